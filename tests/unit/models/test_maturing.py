"""Outcomes of bars as they mature, and the scores that they give, against pandas and by hand."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from pipeline.models.maturing import SAID, Matured, Maturing, day_scores
from pipeline.models.states import fingerprint, packed, unpacked
from pipeline.replay.figures import outcomes
from schemas.blocks import VOL_REGIMES, Array
from schemas.models import Activation

N, HORIZON = 4000, 5
DAY = 86_400 * 10**9
EPOCH = 719_163  # number of 1970-01-01


@pytest.fixture
def bars() -> tuple[Array, Array, Array]:
    """Symbols, lives and what was said of bars: closes that often repeat, a scale that changes."""
    rng = np.random.default_rng(7)
    symbol = rng.choice(np.array(["A", "B", "C"], object), N, p=[0.7, 0.2, 0.1])
    life = np.where((symbol == "B") & (np.arange(N) > 2000), 1, 0)
    said = np.empty(N, SAID)
    said["level"] = np.round(100 + np.cumsum(rng.normal(0, 0.3, N)))
    for name in ("live", "shadow", "null"):
        said[name] = rng.uniform(0.01, 0.99, N)
    said["live"][rng.random(N) < 0.1] = np.nan
    said["shadow"][:1500] = np.nan
    said["ts"] = 10 * DAY - 1500 * 10**9 + np.arange(N) * 10**9
    said["activation"] = np.repeat([-1, 0, 1, 2], 1000)
    said["live"][:1000] = np.nan
    said["regime"] = -1
    return symbol, life, said


def taken(bars: tuple[Array, Array, Array], cuts: list[int]) -> Matured:
    """What matures when the bars come in parts, with the state packed in between."""
    parts, data = [], None
    mark = fingerprint("test")
    for at in zip([0, *cuts], [*cuts, N], strict=True):
        maturing = Maturing(3, HORIZON)
        if data is not None:
            maturing.restore(unpacked(1, mark, data))
        parts.append(maturing.step(*(column[slice(*at)] for column in bars)))
        data = packed(1, mark, maturing.snapshot())
    found = [(one.said, one.rose, one.book) for one in parts]
    joined = Matured(*(np.concatenate(column) for column in zip(*found, strict=True)))
    order = np.argsort(joined.said["ts"], kind="stable")
    return Matured(joined.said[order], joined.rose[order], joined.book[order])


@pytest.mark.parametrize("cuts", [[], [1, 2, 3, 1999, 2001, 3999], list(range(50, N, 50))])
def test_outcomes_are_those_of_a_backtest(
    bars: tuple[Array, Array, Array], cuts: list[int]
) -> None:
    """Of each book the level a horizon later, whatever the parts, over restarts too."""
    symbol, life, said = bars
    frame = pd.DataFrame(
        {"partition": 3, "symbol": symbol, "life": life, "close": said["level"], "scale": 1.0}
    )
    known, rose = outcomes(frame, HORIZON)
    wanted = known & ~(np.isnan(said["live"]) & np.isnan(said["shadow"]))
    found = taken(bars, cuts)
    assert found.said.tobytes() == said[wanted].tobytes()
    np.testing.assert_array_equal(found.rose, rose[wanted])
    books = pd.Series(list(zip(symbol, life, strict=True)))[wanted]
    assert books.groupby(found.book).nunique().tolist() == [1, 1, 1, 1]


def test_scores_by_version_role_and_day(bars: tuple[Array, Array, Array]) -> None:
    """Means by scikit-learn; a version has those rows that it spoke of, in the role it had."""
    planned = [
        Activation(0, 0, "gbdt", 1, "one"),
        Activation(1, 0, "gbdt", 2, "two", "one"),
        Activation(2, 0, "gbdt", 3, None, "one"),
    ]
    matured = taken(bars, [])
    found = list(day_scores(matured, planned))
    said, rose = matured.said, matured.rose
    day = said["ts"] // DAY
    seen = 0
    for number, each in enumerate(planned):
        for role, version in (("live", each.version), ("shadow", each.shadow)):
            for which in np.unique(day):
                at = (said["activation"] == number) & (day == which) & ~np.isnan(said[role])
                mine = [
                    one
                    for one in found
                    if (one.rows, one.version) == (role, version)
                    and one.first_ts == (said["ts"][at].min() if at.any() else None)
                ]
                assert len(mine) == int(version is not None and at.any())
                for one in mine:
                    seen += 1
                    assert (one.n, one.last_ts) == (at.sum(), said["ts"][at].max())
                    assert [one.log_loss, one.null_log_loss, one.brier] == pytest.approx(
                        [
                            log_loss(rose[at], said[role][at]),
                            log_loss(rose[at], said["null"][at]),
                            brier_score_loss(rose[at], said[role][at]),
                        ],
                        rel=1e-12,
                    )
                    assert one.day.toordinal() - EPOCH == which
    assert seen == len(found) == 5  # the second one speaks on both days


def test_a_selected_version_has_the_rows_of_its_regimes(bars: tuple[Array, Array, Array]) -> None:
    """In one or more of them; the active one has the others, and a shadow has all."""
    regime = np.random.default_rng(3).integers(-1, len(VOL_REGIMES), N)
    bars[2]["regime"] = regime
    selected = {"low": "two", "normal": "one", "high": "three", "extreme": "two"}
    planned = [Activation(0, 0, "gbdt", n, "one", "shade", selected) for n in (1, 2, 3)]
    matured = taken(bars, [1000, 2500])
    found = list(day_scores(matured, planned))
    said = matured.said
    spoke = np.array([*(selected[one] for one in VOL_REGIMES), "one"])[said["regime"]]
    for name in ("one", "two", "three", "shade"):
        role = "shadow" if name == "shade" else "live"
        at = ~np.isnan(said[role]) & ((spoke == name) | (role == "shadow"))
        mine = [one for one in found if one.version == name]
        assert {one.rows for one in mine} == {role}
        assert sum(one.n for one in mine) == at.sum() > 200
        mean = sum(one.n * one.log_loss for one in mine) / at.sum()
        assert mean == pytest.approx(log_loss(matured.rose[at], said[role][at]), rel=1e-12)
        assert len({(one.day, one.first_ts) for one in mine}) == len(mine)


def test_a_silent_base_rate_has_even_odds(bars: tuple[Array, Array, Array]) -> None:
    """Where it is switched off the versions are held against a coin."""
    symbol, life, said = bars
    said["null"] = np.nan
    matured = taken((symbol, life, said), [])
    found = list(day_scores(matured, [Activation(0, 0, "gbdt", n, "one") for n in (1, 2, 3)]))
    assert found
    assert [one.null_log_loss for one in found] == pytest.approx([np.log(2)] * len(found))
