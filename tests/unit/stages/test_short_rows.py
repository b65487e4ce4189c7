"""A stage that gives fewer rows than there are bars: nulls follow, never what lies behind the end.

Rows are cut off as views with wild values behind them, which a loop that reads on would find.
"""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from pipeline.stages.base import Block, State, beside
from pipeline.stages.chain import Chain
from schemas.blocks import STAGES, Array, Rows, own_columns
from tests.fixtures.regimes import FOLLOWED
from tests.fixtures.ticks import arrivals_of, settings_of, walk

STRATEGY = Path(__file__).parents[2] / "fixtures" / "strategies" / "own_engines.py"
CAME = arrivals_of(walk(2000))
OPTIONS: dict[str, Any] = {
    "bars": {"clock": "time:5s"},
    "regimes": {"vol_window": 20, **FOLLOWED},
    "predictions": {"fallback": 20},
    "fills": {"sizing": "volatility", "vol_target_bp": 10.0},
}
FEATURE = """
from pipeline.stages.custom import feature
@feature(inputs=("close", "rsi_14"), periods=3, unit="-")
def mine(close, rsi):
    \"\"\"Anything.\"\"\"
    return close[-1] + rsi[-1]
"""


class Short:
    """Cuts rows of one stage off, right behind it or behind another one."""

    name: ClassVar[str] = "short"

    def __init__(self, stage: str, keep: slice) -> None:
        self._stage, self._keep = stage, keep

    def step(self, block: Block) -> Block:
        """The block with fewer rows of the stage."""
        rows = block.rows[self._stage]
        columns = {name: values.copy() for name, values in rows.columns.items()}
        n = len(range(*self._keep.indices(len(rows))))
        for values in columns.values():
            values[n:] = 12_345
        return block.plus(Rows(rows.stage, columns, rows.symbols).take(self._keep))

    def snapshot(self) -> State:
        """Nothing is kept."""
        return {}

    def restore(self, state: State) -> None:
        """The same."""

    def rename(self, old: int, new: int) -> None:
        """The same."""


def run(
    stage: str, keep: slice, behind: str = "", size: int = 2000, **options: Any
) -> dict[str, dict[str, Array]]:
    """Columns of all stages of a chain that has a stage cut short; at most 150 blocks."""
    chain = Chain(settings_of(**{**OPTIONS, **options}))
    stages = list(chain.stages)
    place = [one.name for one in stages].index(behind or stage)
    chain._stages = (*stages[: place + 1], Short(stage, keep), *stages[place + 1 :])
    came = CAME.slice(0, min(len(CAME), 150 * size))
    blocks = [chain.step(came.slice(at, at + size)) for at in range(0, len(came), size)]
    return {
        name: {
            column: np.concatenate([block.rows[name][column] for block in blocks])
            for column in blocks[0].rows[name].columns
        }
        for name in STAGES
    }


NONE, BUT_ONE = slice(0, 0), slice(0, -1)


@pytest.mark.parametrize("keep", [NONE, BUT_ONE])
def test_a_value_for_each_bar_or_nulls(keep: slice) -> None:
    """As many stay as they are, the same array; of others nobody knows whose they are."""
    floats, labels = np.arange(5.0), np.arange(5, dtype=np.int32)
    assert beside(floats, 5) is floats
    assert np.isnan(beside(floats[keep], 5)).all()
    assert (beside(labels[keep], 5) == -1).all()
    assert beside(labels[keep], 5).dtype == np.int32
    assert beside(np.zeros((4, 2, 3)), 5).shape == (5, 2, 3)


@pytest.mark.parametrize("keep", [NONE, BUT_ONE])
def test_short_features(keep: slice) -> None:
    """No tag, no score, no volatility; the engines that need no feature go on."""
    found, whole = run("features", keep), run("features", slice(None))
    n = len(whole["bars"]["close"])
    assert len(found["regimes"]["vol"]) == len(found["predictions"]["p_up"]) == n > 100
    for name in ("vol", "vol_regime", "hmm", "cusum_alarm", "bocpd_alarm"):
        assert (found["regimes"][name] == -1).all(), name
    for name in ("vol_low", "cusum"):
        assert np.isnan(found["regimes"][name]).all(), name
    for name in ("sigma", "p_momentum", "p_mean_reversion", "p_breakout", "p_last_sign"):
        assert np.isnan(found["predictions"][name]).all(), name
        assert not np.isnan(whole["predictions"][name]).all(), name
    same = found["predictions"]["p_base_rate"].tobytes()
    assert same == whole["predictions"]["p_base_rate"].tobytes()
    assert not len(found["signals"]["action"])
    assert len(whole["fills"]["price"])


@pytest.mark.parametrize("keep", [NONE, BUT_ONE])
def test_short_regimes(keep: slice) -> None:
    """What is said is said as without any tag."""
    found = run("regimes", keep)["predictions"]
    untagged = run("regimes", slice(None), regimes={"vol_window": 10_000})["predictions"]
    tagged = run("regimes", slice(None))["predictions"]
    for name in untagged:
        assert found[name].tobytes() == untagged[name].tobytes(), name
    assert found["p_up"].tobytes() != tagged["p_up"].tobytes()


@pytest.mark.parametrize("tag", [-2_000_000_000, -1, 3, 2_000_000_000])
@pytest.mark.parametrize("which", ["vol", "trend"])
def test_tags_that_are_none(which: str, tag: int) -> None:
    """A number that is no tag counts as null."""

    class Wrong(Short):
        def step(self, block: Block) -> Block:
            block.rows["regimes"][which][:] = tag
            return block

    chain = Chain(settings_of(**OPTIONS))
    stages = list(chain.stages)
    place = [one.name for one in stages].index("regimes")
    chain._stages = (*stages[: place + 1], Wrong("regimes", NONE), *stages[place + 1 :])
    found = chain.step(CAME).rows["predictions"]
    untagged = run("regimes", NONE)["predictions"]
    for name, values in untagged.items():
        assert found[name].tobytes() == values.tobytes(), name


@pytest.mark.parametrize("keep", [NONE, BUT_ONE])
@pytest.mark.parametrize("size", [1, 7, 2000])
@pytest.mark.parametrize("stage", STAGES[:-1])
def test_any_short_stage_is_survived(stage: str, size: int, keep: slice) -> None:
    """The stages behind it give rows of equal columns, with a user's feature and engines too."""
    with own_columns():
        engines = [{"path": "mine.py", "source": STRATEGY.read_text()}]
        user = {"features": [{"path": "mine.py", "source": FEATURE}], "engines": engines}
        found = run(stage, keep, size=size, user=user)
        for name, columns in found.items():
            assert len({len(values) for values in columns.values()}) == 1, name
        if stage != "features":
            assert "mine" in found["features"]
        else:
            assert np.isnan(found["features"]["mine"]).all()


def test_signals_without_the_lives_of_bars() -> None:
    """Bars cut behind the predictions: decisions go on, an instrument's life unknown."""
    found = run("bars", BUT_ONE, "predictions")
    whole = run("bars", slice(None), "predictions")
    assert found["signals"]["action"].tobytes() == whole["signals"]["action"].tobytes()


def test_what_is_followed_cut_short_says_nothing() -> None:
    """A column that decides, and has not a value for each bar."""
    signals = {"follow": "roc_10"}
    assert len(run("features", slice(None), "predictions", signals=signals)["signals"]["action"])
    assert not len(run("features", BUT_ONE, "predictions", signals=signals)["signals"]["action"])


def test_fills_without_volatility_wait() -> None:
    """The size of a trade rests on it: none is made."""
    assert len(run("features", slice(None), "signals")["fills"]["price"])
    assert not len(run("features", BUT_ONE, "signals")["fills"]["price"])


def test_equity_without_its_books_is_null() -> None:
    """Bars cut behind the fills: the books belong to other rows."""
    found = run("bars", BUT_ONE, "fills")["equity"]
    assert len(found["equity"])
    assert np.isnan(found["equity"]).all()
    assert not np.isnan(run("bars", slice(None), "fills")["equity"]["equity"]).any()


def test_bars_cut_short_close_before_the_ticks() -> None:
    """Which tick triggered which bar is lost: features know of no tick of the block."""
    found = run("bars", BUT_ONE)
    assert np.isnan(found["features"]["ret_1"]).all()
    assert not np.isnan(run("bars", slice(None))["features"]["ret_1"]).all()
