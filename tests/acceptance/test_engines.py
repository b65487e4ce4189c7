"""What engines find where something is to be found, and that they find nothing where nothing is."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import arch.data.sp500
import numpy as np
import pandas as pd
import pytest

from pipeline.models.scoring import auc
from pipeline.replay.figures import NULL_ENGINE, engines, outcomes
from pipeline.sources.files import read_arrivals
from pipeline.stages.chain import Chain
from schemas.arrivals import Arrivals
from schemas.blocks import ENGINES, Array
from tests.fixtures.ticks import SECOND, START, arrivals_of, frame, settings_of

BLOCK: Final = 8192
PLANTED: Final = 60_000  # ticks
SHUFFLES: Final = 6
BATCHES: Final = 50  # whose means are as good as independent
# No version of gbdt is active: it says nothing.
SAID: Final = ("p_up", *(f"p_{name}" for name in ENGINES if name != "gbdt"))
Tables = dict[str, pd.DataFrame]


def run(came: Iterator[Arrivals], horizon: int, **groups: Any) -> Tables:
    """Bars, features and predictions of ticks that each decide, with the settings as they are."""
    chain = Chain(
        settings_of(bars={"clock": "ticks:1"}, predictions={"horizon": horizon}, **groups)
    )
    blocks = [chain.step(part).rows for part in came]
    return {
        stage: pd.concat([frame(rows[stage]) for rows in blocks], ignore_index=True)
        for stage in ("bars", "features", "predictions")
    }


def parts(table: pd.DataFrame) -> Iterator[Arrivals]:
    """Ticks of a table, block by block."""
    came = arrivals_of(table)
    for start in range(0, len(came), BLOCK):
        yield came.slice(start, min(start + BLOCK, len(came)))


def losses(p: Array, rose: Array) -> Array:
    """The log loss of each row."""
    return -np.log(np.where(rose, p, 1.0 - p))


def by_imbalance(strength: float) -> tuple[pd.DataFrame, Array]:
    """The imbalance of a tick's quote decides how probably the next price is higher.

    Returns:
        The ticks, and P(up) of each, known at it and by nothing that came before.
    """
    rng = np.random.default_rng(int(strength))
    bid_size, ask_size = rng.integers(1, 100, (2, PLANTED)).astype(float)
    p = 1.0 / (1.0 + np.exp(-strength * (bid_size - ask_size) / (bid_size + ask_size)))
    moves = np.where(rng.random(PLANTED) < p, 1e-4, -1e-4)
    price = 1000.0 * np.exp(np.concatenate([[0.0], np.cumsum(moves)[:-1]]))
    quotes = {"bid": price - 0.01, "ask": price + 0.01, "bid_size": bid_size, "ask_size": ask_size}
    return pd.DataFrame({"price": price, **quotes}), p


def by_the_last_move(stay: float) -> tuple[pd.DataFrame, Array]:
    """The next move goes the way of the last one with this probability."""
    rng = np.random.default_rng(int(100 * stay))
    sign = np.cumprod(np.where(rng.random(PLANTED) < stay, 1.0, -1.0))
    price = 1000.0 * np.exp(np.cumsum(sign) * 1e-4)
    return pd.DataFrame({"price": price}), np.where(sign > 0, stay, 1.0 - stay)


@pytest.mark.parametrize(
    ("plant", "strength"),
    [
        (by_imbalance, 1.0),
        (by_imbalance, 2.0),
        (by_the_last_move, 0.35),
        (by_the_last_move, 0.65),
        (by_the_last_move, 0.8),
    ],
)
def test_a_planted_signal_is_found(
    plant: Callable[[float], tuple[pd.DataFrame, Array]], strength: float
) -> None:
    """From the first word on p_up costs at most 2 % more than the truth, and never less than it."""
    ticks, truth = plant(strength)
    found = run(parts(ticks), horizon=1)
    told, rose = outcomes(found["bars"], 1)
    told = told & found["predictions"]["p_up"].notna().to_numpy()
    assert told.sum() > PLANTED - 10
    p, rose, truth = found["predictions"]["p_up"].to_numpy()[told], rose[told], truth[told]
    entropy = -(truth * np.log(truth) + (1.0 - truth) * np.log(1.0 - truth)).mean()
    assert losses(p, rose).mean() <= 1.02 * entropy
    # Who does better than the truth has looked ahead.
    excess = losses(p, rose) - losses(truth, rose)
    assert excess.mean() > -3.0 * excess.std() / math.sqrt(len(excess))
    # And it is a signal: who knows only how often it rises is far off.
    assert engines(found["bars"], found["predictions"])["base_rate"]["log_loss"] > 1.03 * entropy


def daily() -> Array:
    """Log returns of the S&P 500, 5,030 of them."""
    found: Array = np.diff(np.log(arch.data.sp500.load()["Close"].to_numpy()))
    return found


def trades(sample: Path) -> Array:
    """Log returns of ES from one trade to the next that are not zero, some 8,000."""
    found = np.diff(np.log(pd.read_csv(sample)["price"].to_numpy()))
    moved: Array = found[found != 0.0]
    return moved


def of_returns(returns: Array, horizon: int) -> Tables:
    """Prices that have these returns, a second apart, with no spike kept out."""
    price = 1000.0 * np.exp(np.concatenate([[0.0], np.cumsum(returns)]))
    ticks = pd.DataFrame({"price": price, "ts": START + np.arange(len(price)) * SECOND})
    return run(parts(ticks), horizon, guard={"mode": "plain"})


def standing(found: Tables, horizon: int, column: str) -> tuple[float, Array]:
    """How an engine stands: its AUC less one half, in standard errors, and what it gains.

    The error of the AUC is that of ranks that say nothing, sqrt((n + 1) / (12 ups downs)); labels
    overlap, so that n / horizon of them count. Gains are means of batches of the rows, in nats less
    than the base rate.
    """
    told, rose = outcomes(found["bars"], horizon)
    said, null = (found["predictions"][name].to_numpy() for name in (column, NULL_ENGINE))
    told = told & ~np.isnan(said) & ~np.isnan(null)
    p, null, rose = said[told], null[told], rose[told]
    ups, n = int(rose.sum()), len(rose)
    error = math.sqrt((n + 1) / (12 * ups * (n - ups)) * horizon)
    place = auc(p, rose)
    assert place is not None
    gains = losses(null, rose) - losses(p, rose)
    each = n // BATCHES
    return (place - 0.5) / error, gains[: each * BATCHES].reshape(BATCHES, each).mean(axis=1)


@pytest.mark.parametrize("horizon", [1, 5])
@pytest.mark.parametrize("source", ["daily", "trades"])
def test_nothing_is_found_in_shuffled_returns(source: str, horizon: int, sample: Path) -> None:
    """AUC within 3 errors of one half each time; no engine gains more on the null than its error.

    The gains are those of all shuffles together.
    """
    returns = daily() if source == "daily" else trades(sample)
    gains: dict[str, list[Array]] = {column: [] for column in SAID}
    for seed in range(SHUFFLES):
        found = of_returns(np.random.default_rng(seed).permutation(returns), horizon)
        for column in SAID:
            place, gained = standing(found, horizon, column)
            gains[column].append(gained)
            assert column != "p_up" or abs(place) < 3.0, seed
    for column in SAID:
        all_of = np.concatenate(gains[column])
        assert all_of.mean() <= all_of.std(ddof=1) / math.sqrt(len(all_of)), column


def test_in_their_true_order_trades_tell_something(sample: Path) -> None:
    """The last trade was at the bid or at the ask: the next price is likelier to turn back."""
    found = of_returns(trades(sample), 1)
    for column in ("p_up", "p_last_sign", "p_online_logit"):
        place, gained = standing(found, 1, column)
        assert place > 10.0, column
        assert gained.mean() > 5.0 * gained.std(ddof=1) / math.sqrt(BATCHES), column


@pytest.fixture(scope="module")
def quotes(samples: Path) -> Tables:
    """Eleven minutes of the quotes of two symbols; a row decides for the next change of the mid."""
    return run(read_arrivals(samples / "crypto_quotes_20240808.csv.gz", BLOCK), horizon=1)


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT"])
def test_queue_imbalance_tells_the_next_mid(symbol: str, quotes: Tables, oracles: Path) -> None:
    """An AUC of .92 and more, of the feature as the oracle has it, of what learns from it and all.

    An unchanged mid is no outcome, so that with a horizon of 1 what counts is said by the last
    quote before a change.
    """
    mine = quotes["bars"]["symbol"] == symbol
    bars, predictions = (quotes[stage][mine] for stage in ("bars", "predictions"))
    told, rose = outcomes(bars, 1)
    expected = json.loads((oracles / "real_edge.json").read_text())[symbol]
    assert told.sum() == expected["mid changes"]
    imbalance = quotes["features"]["queue_imbalance"][mine].to_numpy()[told]
    truth = expected["AUC of imbalance just before the change"]
    assert auc(imbalance, rose[told]) == pytest.approx(truth, rel=1e-12)
    found = engines(bars, predictions)
    for name in ("combined", "online_logit"):
        assert found[name]["n"] >= told.sum() - 1
        assert found[name]["auc"] >= 0.92, name
        assert found[name]["log_loss_less_null"] < -0.3, name
