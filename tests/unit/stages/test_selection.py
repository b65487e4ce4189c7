"""Versions of gbdt by volatility regime: LightGBM's bits, whatever blocks, restarts and swaps."""

from collections.abc import Mapping
from itertools import pairwise

import lightgbm
import numpy as np
import pytest

from pipeline.errors import MisuseError
from pipeline.kernels.learners import CLIP
from pipeline.stages.base import Block
from pipeline.stages.boosted import Activated, Boosted, Speaker
from pipeline.stages.chain import Chain
from pipeline.stages.predictions import Predictions, PredictionsSettings
from pipeline.stages.selection import Selector
from schemas.blocks import VOL_REGIMES, Array, Rows
from schemas.gbdt import read_gbdt
from schemas.models import Activation
from schemas.trees import TreeModel
from tests.fixtures.boosted import activated, artifact, speaking
from tests.fixtures.ticks import arrivals_of, bits, settings_of, walk

TICKS, HOLD = 4000, 3
SETTINGS = settings_of(
    bars={"clock": "ticks:1"},
    guard={"mode": "plain"},
    regimes={"vol_window": 40},
    predictions={"selection_hold": HOLD},
)
CAME = arrivals_of(walk(TICKS, ("A", "B", "C")))
ONE, TWO, THREE = speaking(1), speaking(2), speaking(3)
Plan = Mapping[int, Activated]


def stepped(
    plan: Plan, cuts: tuple[int, ...] = (), *, restart: bool = False
) -> list[dict[str, Rows]]:
    """The chain over the ticks, with these activations from these ticks on."""
    chain, found = Chain(SETTINGS), []
    for low, high in pairwise(sorted({0, *cuts, TICKS})):
        done = chain.activation.place if chain.activation else (-1, 0)
        for one in plan.values():
            if one.activation.place > done:
                chain.plan(one)
        found.append(dict(chain.step(CAME.slice(low, high)).rows))
        if restart:
            data = chain.snapshot()
            chain = Chain(SETTINGS)
            chain.restore(data)
    return found


def at(tick: int, *versions: Boosted | None, **selected: Boosted | None) -> tuple[int, Activated]:
    """Versions from a tick on, the active one first."""
    active, shadow = (*versions, None)[:2]
    place = int(CAME["offset"][tick]), int(CAME["index"][tick])
    return tick, activated(active, shadow, *place, selected=selected)


def column(rows: list[dict[str, Rows]], name: str, stage: str = "predictions") -> Array:
    """Of all blocks."""
    return np.concatenate([part[stage][name] for part in rows])


def spoken(rows: list[dict[str, Rows]], begun: int) -> Array:
    """By the rule in words: the last regime that stood at `HOLD` bars of a symbol in a row."""
    symbols, regimes = (column(rows, name, "regimes") for name in ("symbol", "vol_regime"))
    found = np.full(len(symbols), -1)
    for s in np.unique(symbols):
        now, mine = -1, np.flatnonzero(symbols == s)
        mine = mine[mine >= begun]
        for i, place in enumerate(mine):
            last = set(regimes[mine[max(0, i + 1 - HOLD) : i + 1]].tolist())
            if i + 1 >= HOLD and len(last) == 1 and min(last) >= 0:
                (now,) = last
            found[place] = now
    return found


def truth(rows: list[dict[str, Rows]], seed: int) -> Array:
    """What LightGBM says of all bars by a version."""
    version = read_gbdt(artifact(seed))
    columns = [
        column(rows, name, "bars" if name == "close" else "features") for name in version.features
    ]
    said = lightgbm.Booster(model_str=version.text).predict(np.stack(columns, axis=1))
    return np.asarray(np.clip(said, CLIP, 1.0 - CLIP))


def test_each_bar_is_by_the_version_of_its_regime() -> None:
    """The active one in a regime without one, and before any regime has lasted; rows tell which."""
    found = stepped(dict([at(500, ONE, high=TWO, extreme=TWO, low=THREE)]))
    regime = spoken(found, 500)
    code = {name: VOL_REGIMES.index(name) for name in VOL_REGIMES}
    expected = truth(found, 1)
    for seed, names in ((2, ("high", "extreme")), (3, ("low",))):
        mine = np.isin(regime, [code[name] for name in names])
        expected[mine] = truth(found, seed)[mine]
        assert mine.sum() > 200
    expected[:500] = np.nan
    assert column(found, "p_gbdt").tobytes() == expected.tobytes()
    told = np.where(regime == code["normal"], -1, regime)
    assert column(found, "gbdt_regime").tolist() == told.tolist()
    assert set(told.tolist()) == {-1, code["low"], code["high"], code["extreme"]}
    assert (regime != column(found, "vol_regime", "regimes")).mean() > 0.05  # it is sticky


@pytest.mark.parametrize("restart", [False, True])
def test_blocks_and_restarts_leave_no_trace(*, restart: bool) -> None:
    """Selections come, change and go between ticks: the rows are the same whatever the blocks."""
    plan = dict(
        [
            at(100, ONE),
            at(900, ONE, None, high=TWO),
            at(1500, TWO, ONE, high=THREE, low=ONE),
            at(2200, TWO),
            at(2300, ONE, None, low=TWO, extreme=TWO, normal=THREE),
            at(3000, None, ONE, high=None, normal=TWO),
        ]
    )
    cuts = tuple(np.random.default_rng(4).integers(1, TICKS, 60).tolist())
    whole, parts = stepped(plan), stepped(plan, (*cuts, 901, 1499), restart=restart)
    assert bits(parts) == bits(whole)
    assert column(whole, "gbdt_regime").max() == VOL_REGIMES.index("extreme")


def test_what_is_held_goes_on_while_any_is_selected() -> None:
    """Another selection begins at once; one after none waits for a regime that lasts."""
    two_each = dict.fromkeys(VOL_REGIMES, TWO)
    three_each = dict.fromkeys(VOL_REGIMES, THREE)
    change = stepped(dict([at(500, ONE, None, **two_each), at(2000, ONE, None, **three_each)]))
    assert column(change, "p_gbdt")[2000:].tobytes() == truth(change, 3)[2000:].tobytes()
    gone = stepped(
        dict([at(500, ONE, None, **two_each), at(1999, ONE), at(2000, ONE, None, **three_each)])
    )
    told = column(gone, "gbdt_regime")
    assert told[1998] >= 0
    assert (told[1999:2004] == -1).all()
    assert (told[2100:] >= 0).all()


def test_without_a_selection_nothing_is_remembered() -> None:
    """No state, no label, and the bits of a chain that never heard of one."""
    plain = stepped(dict([at(100, ONE, TWO)]))
    assert (column(plain, "gbdt_regime") == -1).all()
    same = stepped(dict([at(100, ONE, TWO, **dict.fromkeys(VOL_REGIMES, ONE))]))
    mine, theirs = (bits(rows) for rows in (plain, same))
    mine["predictions"].pop("gbdt_regime")
    assert theirs["predictions"].pop("gbdt_regime") != (np.full(TICKS, -1, np.int32)).tobytes()
    assert mine == theirs
    stage = Predictions(PredictionsSettings())
    names = set(stage.snapshot())
    stage.activate(activated(ONE, selected={"high": TWO}))
    assert set(stage.snapshot()) > names
    stage.activate(activated(ONE, generation=2))
    assert "held" not in stage.snapshot()


def test_a_snapshot_knows_the_selection() -> None:
    """Restored where another one is in force, or none; a version of two regimes is kept once."""
    chain, other = Chain(SETTINGS), Chain(SETTINGS)
    chain.predictions.activate(activated(ONE, selected={"high": TWO, "extreme": TWO, "low": None}))
    chain.step(CAME)
    other.predictions.activate(activated(TWO, selected={"normal": ONE}))
    other.restore(chain.snapshot())
    wanted = Activation(
        0,
        0,
        "gbdt",
        1,
        ONE.version,
        None,
        {"high": TWO.version, "extreme": TWO.version, "low": None},
    )
    assert other.activation == chain.activation == wanted
    assert bits([other.step(CAME).rows]) == bits([chain.step(CAME).rows])
    heads = [name for name in chain.predictions.snapshot() if name.endswith(" head")]
    assert len(heads) == 2
    other.restore(Chain(SETTINGS).snapshot())
    assert other.activation is None
    assert "held" not in other.predictions.snapshot()


def test_a_stale_bar_is_by_nobody() -> None:
    """It has no probability, and no regime of one."""
    chain = Chain(SETTINGS)
    block = Block(CAME.slice(0, 0), chain.step(CAME).rows)
    stage = Predictions(PredictionsSettings(selection_hold=1))
    stage.activate(activated(ONE, selected=dict.fromkeys(VOL_REGIMES, TWO)))
    block.rows["bars"].columns["stale"][::2] = 1
    said = stage.step(block).rows["predictions"]
    assert (said["gbdt_regime"][::2] == -1).all()
    assert np.isnan(said["p_gbdt"][::2]).all()
    assert (said["gbdt_regime"][1::2][200:] >= 0).all()


def test_what_does_not_fit_is_refused() -> None:
    """A version of unknown columns, and others than those that are named; nothing has changed."""
    stage = Predictions(PredictionsSettings())
    stage.activate(activated(ONE, selected={"low": TWO}))
    strange = Boosted("gbdt-x", TreeModel(("nonsense",), 1.0, ONE.trees.trees))
    with pytest.raises(MisuseError, match=r"gbdt-x: .* nonsense"):
        stage.activate(activated(ONE, generation=2, selected={"low": TWO, "high": strange}))
    assert stage.activation == activated(ONE, selected={"low": TWO}).activation
    told = Activation(1, 0, "gbdt", 1, ONE.version, None, {"low": TWO.version})
    for wrong in ({}, {"low": ONE}, {"high": TWO}, {"low": None}):
        with pytest.raises(ValueError, match="other versions"):
            Activated(told, ONE, None, wrong)


def test_a_block_without_regimes_is_by_the_active_version() -> None:
    """As of a stage that gave none."""
    n = 5
    names = ONE.trees.features
    zeros = np.zeros(n, np.int32)
    columns: dict[str, Array] = {
        "symbol": zeros,
        "life": zeros,
        **{name: np.zeros(n) for name in names},
    }
    p = np.empty(8)
    selector = Selector({"low": TWO}, Speaker(ONE))
    state = np.zeros((1, 4), np.int64)
    found = selector.say(columns, {}, np.full(n, -1, np.int32), 1, state, p)
    assert found.tolist() == [-1] * n
    assert np.isfinite(p[:n]).all()
