"""A user's own engines: what they say and learn, what they cannot do, and how slips are told."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import MisuseError
from pipeline.settings import load_settings
from pipeline.stages.chain import Chain
from pipeline.stages.engines import Engine, engine, load_engines
from pipeline.stages.user import ENGINE, UserSettings
from schemas.blocks import COLUMNS, ENGINES
from tests.fixtures.predicting import bars_of, predict
from tests.fixtures.ticks import arrivals_of, settings_of, walk

STRATEGY = Path(__file__).parents[2] / "fixtures" / "strategies" / "own_engines.py"
SOURCE = '''
from pipeline.stages.engines import engine

@engine(inputs=("{column}",), periods=1, name="{name}")
def mine(x):
    """Anything."""
    return x[-1]
'''


def declared(function: Any) -> Engine:
    """What the decorator made of a function."""
    found = getattr(function, ENGINE)
    assert isinstance(found, Engine)
    return found


@engine(inputs=("bar_ret_20", "donchian_pos_20"), periods=1, name="mine")
def momentum(ret: Any, place: Any) -> float:
    """The built-in rule, in a user's words."""
    return float(0.5 * (np.sign(ret[-1]) + 2.0 * place[-1] - 1.0))


def count(state: Any, _: Any, rose: float) -> None:
    """Rises and outcomes."""
    state[0] += rose
    state[1] += 1.0


@engine(inputs=("close",), periods=1, says="probability", state=2, learn=count)
def rate(state: Any, _: Any) -> float:
    """The built-in base rate, but for what stale bars teach."""
    return float((state[0] + 1.0) / (state[1] + 2.0)) if state[1] else math.nan


@pytest.mark.parametrize("horizon", [1, 5, 13])
@pytest.mark.parametrize("block", [None, 7])
def test_engines_equal_the_built_in_ones(horizon: int, block: int | None) -> None:
    """Bit for bit over three symbols with stale bars, new instruments and other units."""
    columns = bars_of(2000, horizon, symbols=3)
    columns["stale"][:] = 0
    columns["bar_ret_20"] = np.nan_to_num(columns["bar_ret_20"])
    own = [declared(momentum), declared(rate)]
    found = predict(columns, block, own, horizon=horizon)
    assert found["p_mine"].notna().mean() > 0.8
    for mine, theirs in (("p_mine", "p_momentum"), ("p_rate", "p_base_rate")):
        assert found[mine].to_numpy().tobytes() == found[theirs].to_numpy().tobytes()
    weights = found[[name for name in found.columns if name.startswith("w_")]].sum(axis=1)
    np.testing.assert_allclose(weights[found["p_up"].notna()], 1.0, rtol=1e-12)
    assert (found["w_mine"] == found["w_momentum"]).all()


def test_learning_gets_what_was_seen_then() -> None:
    """The windows of h bars before, on bars that were not stale, with the outcome; in order."""
    got: list[tuple[float, ...]] = []

    def learn(state: Any, close: Any, ret: Any, rose: float) -> None:
        got.append((state[0], *close, ret[-1], rose))
        state[0] += 1.0

    @engine(inputs=("close", "bar_ret_1"), periods=2, state=1, learn=learn)
    def seen(_: Any, close: Any, ret: Any) -> float:
        """Anything."""
        return float(close[-1] + ret[-1])

    n, horizon = 400, 3
    columns = bars_of(n, 2)
    columns["life"][:], columns["scale"][:] = 0, 1.0
    columns["close"] = np.random.default_rng(1).integers(100, 105, n).astype(float)
    predict(columns, own=[declared(seen)], horizon=horizon)
    close, ret, stale = columns["close"], columns["bar_ret_1"], columns["stale"]
    expected: list[tuple[float, ...]] = []
    for t in range(1, n - horizon):
        ready = not stale[t] and not np.isnan(ret[t - 1 : t + 1]).any()
        if ready and close[t + horizon] != close[t]:
            rose = float(close[t + horizon] > close[t])
            expected.append((len(expected), close[t - 1], close[t], ret[t], rose))
    assert got == expected
    assert len(got) > 100


def test_a_stale_bar_is_not_spoken_of() -> None:
    """Nothing is said of it, though its values are there."""
    columns = bars_of(600, 3)
    found = predict(columns, own=[declared(rate)])
    stale = columns["stale"] == 1
    assert found["p_rate"][stale].isna().all()
    assert found["p_rate"][~stale].notna().mean() > 0.9


def test_own_engines_speak_alone() -> None:
    """Without the built-in ones all weight is theirs."""
    found = predict(bars_of(600, 5), own=[declared(rate)], engines=[])
    ready = found["p_rate"].notna()
    assert ready.sum() > 500
    assert (found["w_rate"] == ready.astype(float)).all()
    np.testing.assert_allclose(found["p_up"], found["p_rate"], rtol=1e-15)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -0.1, 1.1, "text", None])
def test_what_is_no_probability_is_null(wrong: Any) -> None:
    """So is what an exception leaves; the stream goes on."""

    @engine(inputs=("close",), periods=1, says="probability")
    def odd(close: Any) -> Any:
        """Right on whole closes, wrong on others."""
        return 0.25 if close[-1] == round(close[-1]) else wrong

    columns = bars_of(300, 6)
    columns["close"] = np.round(columns["close"] * 2) / 2
    columns["stale"][:] = 0
    found = predict(columns, own=[declared(odd)])
    whole = columns["close"] == np.round(columns["close"])
    assert 0 < whole.sum() < 300
    assert (found["p_odd"][whole] == 0.25).all()
    assert found["p_odd"][~whole].isna().all()


@pytest.mark.parametrize("fault", ["raise", "nan", "inf"])
def test_a_slip_in_learning_teaches_nothing(fault: str) -> None:
    """The state stays as it was before that outcome."""

    def learn(state: Any, close: Any, rose: float) -> None:
        count(state, close, rose)
        if close[-1] != round(close[-1]):
            if fault == "raise":
                state[:] = 7.0
                raise ValueError(close)
            state[0] = float(fault)

    def honest(state: Any, close: Any, rose: float) -> None:
        if close[-1] == round(close[-1]):
            count(state, close, rose)

    found = []
    for taught in (learn, honest):

        @engine(inputs=("close",), periods=1, says="probability", state=2, learn=taught)
        def frail(state: Any, _: Any) -> float:
            """The rate of what could be learnt."""
            return float((state[0] + 1.0) / (state[1] + 2.0))

        found.append(predict(bars_of(400, 7), own=[declared(frail)])["p_frail"].to_numpy())
    assert found[0].tobytes() == found[1].tobytes()
    assert len(set(found[0].tolist())) > 30


def test_saying_cannot_change_the_state() -> None:
    """Nor the windows: what it gets are copies."""

    @engine(inputs=("close",), periods=1, says="probability", state=2, learn=count, name="rate")
    def rude(state: Any, close: Any) -> float:
        """The rate, and then scribbles."""
        said = float((state[0] + 1.0) / (state[1] + 2.0)) if state[1] else math.nan
        state[:] = close[:] = 1e9
        return said

    columns = bars_of(500, 8)
    one, two = (predict(columns, own=[declared(each)]) for each in (rate, rude))
    for name in one.columns:
        assert one[name].to_numpy().tobytes() == two[name].to_numpy().tobytes(), name


def test_compiled_engines_give_the_same_bits() -> None:
    """Both functions by numba."""

    def learn(state: Any, close: Any, rose: float) -> None:
        state[0] += rose if close[-1] > close[0] else -rose

    def said(state: Any, close: Any) -> Any:
        """Anything that learns."""
        return state[0] * (close[-1] - close[0])

    columns = bars_of(500, 9)
    found = []
    for compiled in (False, True):
        declare = engine(
            inputs=("close",), periods=3, state=1, learn=learn, name="mine", compiled=compiled
        )
        found.append(predict(columns, own=[declared(declare(said))])["p_mine"].to_numpy())
    assert np.isfinite(found[0]).sum() > 300
    assert found[0].tobytes() == found[1].tobytes()


def test_a_file_of_engines_joins_the_chain(tmp_path: Path) -> None:
    """Columns, sources in the settings, another fingerprint; a user's feature as an input."""
    place = tmp_path / "place.py"
    place.write_text(
        "from pipeline.stages.custom import feature\n"
        '@feature(inputs=("close",), periods=2, unit="-")\n'
        "def step(close):\n"
        '    "The last change."\n'
        "    return close[-1] - close[0]\n"
    )
    back = tmp_path / "back.py"
    back.write_text(SOURCE.format(column="step", name="back"))
    sets = (f'user.features=["{place}"]', f'user.engines=["{STRATEGY}", "{back}"]')
    settings = load_settings(["bars.clock=ticks:2", "predictions.horizon=2", *sets])
    assert settings.chain.user.engines[1].source == back.read_text()
    names = ("contrarian", "frequency", "back")
    known = {column.name: column.meaning for column in COLUMNS["predictions"]}
    assert known["p_contrarian"] == "engine contrarian: Against an RSI that is far from 50."
    assert {f"{kind}_{name}" for kind in "pw" for name in names} <= set(known)
    chain = Chain(settings.chain)
    found = pd.DataFrame(dict(chain.step(arrivals_of(walk(900))).rows["predictions"].columns))
    for name in names:
        assert found[f"p_{name}"].notna().sum() > 300, name
    assert settings.chain.fingerprint() != settings_of().fingerprint()


def test_a_chain_without_them_has_its_own_bits() -> None:
    """Columns live as long as the process: those of another chain's engines are null."""
    came = arrivals_of(walk(900))
    before = Chain(settings_of()).step(came).rows["predictions"]
    load_engines(load_settings([f'user.engines="{STRATEGY}"']).chain.user)
    after = Chain(settings_of()).step(came).rows["predictions"]
    for name, values in before.columns.items():
        assert after[name].tobytes() == values.tobytes(), name
    assert np.isnan(after["p_contrarian"]).all()
    assert len(after.columns) == len(before.columns) + 4 == len(COLUMNS["predictions"])


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("x = 1", "declares no engine with @engine"),
        (SOURCE.format(column="close", name="momentum"), "engine momentum: there is one"),
        (SOURCE.format(column="close", name="combined"), "engine combined: there is one"),
        (SOURCE.format(column="close", name="up"), "engine up: there is one"),
        (SOURCE.format(column="close", name="Bad Name"), "lower-case identifier"),
        (SOURCE.format(column="nothing", name="n"), "engine n: .* no column nothing"),
        (SOURCE.format(column="vol", name="n"), "engine n: .* no column vol"),
        (SOURCE.format(column="close", name="n").replace("x[-1]", "y"), "engine n: NameError"),
        (SOURCE.format(column="close", name="n").replace('"""Anything."""', "pass"), "docstring"),
        (SOURCE.format(column="close", name="n").replace("periods=1", "periods=0"), "periods"),
        (SOURCE.format(column="close", name="n").replace("1,", '1, says="odds",'), "says is score"),
        (SOURCE.format(column="close", name="n").replace("1,", "1, state=3,"), "that learns has"),
        (
            SOURCE.format(column="close", name="n").replace("1,", "1, learn=lambda *a: None,"),
            "that learns has a state",
        ),
        (
            SOURCE.format(column="close", name="n")
            .replace("1,", "1, state=1, learn=lambda: None,")
            .replace("(x)", "(state, x)"),
            "engine n, learn: TypeError",
        ),
        (SOURCE.format(column="close", name="n") * 2, "engine n: declared twice"),
    ],
)
def test_slips_are_told_in_one_line(tmp_path: Path, body: str, why: str) -> None:
    """A file that cannot be used names what is wrong before the first tick."""
    path = tmp_path / "mine.py"
    path.write_text(body)
    files = f'["{path}"]' if "twice" not in why else f'["{path}", "{path}"]'
    with pytest.raises(MisuseError, match=why) as error:
        load_settings([f"user.engines={files}"])
    assert "\n" not in str(error.value)


def test_a_missing_file_is_told() -> None:
    """So is a file that is not there."""
    with pytest.raises(MisuseError, match="cannot be read"):
        load_settings(['user.engines=["/no/such/file.py"]'])


def test_without_files_there_are_none() -> None:
    """And no column but those of the built-in ones."""
    assert load_engines(UserSettings()) == ()
    said = [c.name for c in COLUMNS["predictions"] if c.name.startswith("p_")]
    assert said == ["p_up", *(f"p_{name}" for name in ENGINES)]
