"""A whole backtest: its directory, its figures against the oracles, its page, and its ends."""

import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pytest

from pipeline.disk import MANIFEST
from pipeline.errors import MisuseError
from pipeline.replay.backtest import METRICS, REPORT, TRADES, Result, backtest
from pipeline.replay.engine import replay_file
from pipeline.replay.pages import thinned
from pipeline.replay.report import months_of, report
from pipeline.settings import Settings, load_settings
from pipeline.stages.base import Block
from pipeline.stages.predictions import Predictions
from schemas import blocks
from schemas.blocks import ENGINES, STAGES, Rows
from tests.fixtures.ticks import walk
from tests.unit.replay.test_crossing import crossing, sp500

EXTRA = {MANIFEST, METRICS, TRADES, REPORT, "rejected.parquet"}


def run(table: pd.DataFrame, out: Path, settings: Settings, **more: Any) -> dict[str, Any]:
    """The figures of a backtest of a table, and what its page was made of under `result`."""
    path = out.parent / "ticks.parquet"
    table.to_parquet(path)
    kept: list[Result] = []

    def draw(result: Result) -> str:
        kept.append(result)
        return report(result)

    figures = backtest(out, lambda into: replay_file(path, into, settings), draw, **more)
    assert json.loads((out / METRICS).read_text()) == figures
    return {**figures, "months": months_of(kept[0])}


def undrawn(_: Result) -> str:
    """No page."""
    return ""


@pytest.fixture(scope="module")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The crossing of means on the S&P 500, filled at the next open."""
    out = tmp_path_factory.mktemp("crossed") / "out"
    before = blocks._COLUMNS["features"]
    found = run(sp500(), out, crossing("fills.mode=next_open"), trials=46)
    blocks._COLUMNS["features"] = before  # a user's columns live as long as the process
    return out, found


def test_the_crossing_by_the_backtest(crossed: tuple[Path, dict[str, Any]]) -> None:
    """Figures of the whole directory: the oracle's end, 31 trades whose profits are all of it."""
    out, found = crossed
    np.testing.assert_allclose(found["final_equity"], 1_470_520.7243071883, rtol=1e-12)
    assert found["trading"]["trades"] == 31
    trades = pd.read_parquet(out / TRADES)
    np.testing.assert_allclose(trades["profit"].sum(), 470_520.7243071883, rtol=1e-11)
    assert abs(found["trading"]["open_profit"]) < 1e-6
    assert (trades["closed"] > trades["opened"]).all()
    assert (trades["opened"] > trades["decided"]).all()
    assert found["clock"] == {"period": "day", "periods_per_year": 252, "periods": 5031}
    np.testing.assert_allclose(found["buy_and_hold"], 1.0412426895121119, rtol=1e-12)
    gained = sum(row["gain"] for row in found["regimes"])
    np.testing.assert_allclose(gained, 470_520.7243, rtol=1e-9)
    assert sum(row["trades"] for row in found["regimes"]) == 31
    assert found["performance"]["dsr"] < found["performance"]["psr"]
    assert not found["research_only"]


def test_the_figures_are_those_of_pandas(crossed: tuple[Path, dict[str, Any]]) -> None:
    """Sharpe, volatility and drawdown of the daily equity by another way."""
    out, found = crossed
    equity = pd.read_parquet(out / "equity.parquet")["equity"]
    returns = pd.concat([pd.Series([1e6]), equity]).pct_change().dropna()
    assert found["performance"]["sharpe"] == pytest.approx(
        returns.mean() / returns.std() * np.sqrt(252), rel=1e-12
    )
    fall = (equity / equity.cummax().clip(lower=1e6) - 1).min()
    assert found["performance"]["max_drawdown"] == pytest.approx(fall, rel=1e-12)


def test_the_months_compound_to_all_of_it(crossed: tuple[Path, dict[str, Any]]) -> None:
    """Twenty years; the product of all months is the return."""
    months = crossed[1]["months"]
    assert [row["year"] for row in months] == [str(year) for year in range(1999, 2019)]
    product = np.prod([1 + row["all"] for row in months])
    assert product == pytest.approx(1.4705207243, rel=1e-9)
    assert months[0]["Jan"] == 0.0


def test_a_held_index_is_the_oracles_table(tmp_path: Path) -> None:
    """Golden: bought at the first close without costs, it is the price ratio and its drawdown."""
    table = sp500()
    settings = load_settings(
        ["bars.clock=row", "signals.follow=tod_cos", "fills.mode=close", "fills.taker_bp=0",
         "equity.period=1d", "guard.mode=plain", "fills.long_only=true"]
    )  # fmt: skip
    found = run(table, tmp_path / "out", settings)
    truth = {"total_return": 1.0412426895121283, "max_drawdown": -0.5677538775030555}
    for name, value in truth.items():
        np.testing.assert_allclose(found["performance"][name], value, rtol=1e-9)
    assert found["research_only"]
    assert "research only" in found["warnings"][0]
    assert found["buy_and_hold"] == pytest.approx(found["performance"]["total_return"], rel=1e-12)
    assert found["trading"]["trades"] == 0
    assert found["trading"]["exposure"] == pytest.approx(1.0)


def test_the_directory_is_complete(crossed: tuple[Path, dict[str, Any]]) -> None:
    """Every stage, figures, trades and page; the manifest has the digest of each but itself."""
    out, _ = crossed
    assert {path.name for path in out.iterdir()} == EXTRA | {f"{s}.parquet" for s in STAGES}
    manifest = json.loads((out / MANIFEST).read_text())
    for name, digest in manifest["sha256"].items():
        path = out / (name if "." in name else f"{name}.parquet")
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest, name
    assert {METRICS, TRADES, REPORT} < set(manifest["sha256"])
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []


class _Page(HTMLParser):
    """What a browser would fetch, and the headings."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [str(v) for k, v in attrs if k in {"src", "href", "data", "action"}]

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] in {"h2", "h3"}:
            self.words.append(data.strip())


def test_the_page_stands_alone(crossed: tuple[Path, dict[str, Any]]) -> None:
    """Nothing is fetched, and a policy forbids it; every part is there; no place is left open."""
    text = (crossed[0] / REPORT).read_text()
    page = _Page()
    page.feed(text)
    assert page.fetched == []
    assert "default-src 'none'" in text
    assert page.tags.count("script") == 1 + 4  # plotly and the pictures
    for heading in ("Equity and drawdown", "Prices, fills and regimes", "SPX", "Months",
                    "Rolling Sharpe ratio", "By regime", "By engine", "Calibration",
                    "Data quality", "Manifest"):  # fmt: skip
        assert heading in page.words
    body = text[text.index("<body>") :]
    assert not re.search(r"\{\{\w+\}\}", body)
    assert "38.71%" in body  # win rate
    assert "sma_cross" in body  # the strategy's source, in the manifest


def test_the_same_backtest_is_the_same_bytes(tmp_path: Path) -> None:
    """Figures, trades and page depend on nothing but the input and the settings."""
    pages = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        run(walk(3000), tmp_path / name / "out", load_settings(["bars.clock=ticks:5"]))
        pages.append(
            [(tmp_path / name / "out" / f).read_bytes() for f in (METRICS, TRADES, REPORT)]
        )
    assert pages[0] == pages[1]


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    """A symbol that is HTML stays a word."""
    table = walk(2000).assign(symbol="</script><b>x")
    run(table, tmp_path / "out", load_settings(["bars.clock=ticks:2"]))
    text = (tmp_path / "out" / REPORT).read_text()
    assert "<b>x" not in text[text.index("<body>") :]
    assert "&lt;/script&gt;&lt;b&gt;x" in text


@pytest.mark.parametrize("n", [0, 1, 2])
def test_hardly_anything_is_a_backtest(tmp_path: Path, n: int) -> None:
    """An empty file, a tick, two: figures are null, the page is whole."""
    found = run(walk(3).iloc[:n], tmp_path / "out", load_settings())
    assert found["performance"].get("sharpe") is None
    assert found["trading"]["trades"] == 0
    assert found["trading"]["win_rate"] is None
    assert (tmp_path / "out" / REPORT).stat().st_size > 1_000_000


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    """Neither a new directory nor a change of the older one, whatever fails and where."""
    path = tmp_path / "ticks.parquet"
    walk(300).to_parquet(path)
    out = tmp_path / "out"

    def fail(*_: Any) -> NoReturn:
        raise KeyboardInterrupt

    def replay(into: Path) -> dict[str, Any]:
        return replay_file(path, into, load_settings())

    for first, second in ((fail, report), (replay, fail)):
        with pytest.raises(KeyboardInterrupt):
            backtest(out, first, second)
        assert [one.name for one in tmp_path.iterdir()] == ["ticks.parquet"]
    backtest(out, replay, report)
    before = {one.name: one.read_bytes() for one in out.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        backtest(out, replay, fail)
    assert {one.name: one.read_bytes() for one in out.iterdir()} == before


def test_what_is_no_output_is_not_replaced(tmp_path: Path) -> None:
    """A directory with other things in it is left alone, and nothing is run."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")

    def never(_: Path) -> NoReturn:
        raise AssertionError

    with pytest.raises(MisuseError, match="not the output of a replay"):
        backtest(tmp_path / "out", never, report)


def test_thinning_keeps_the_extremes() -> None:
    """The highest, the lowest, the first and the last of many values are drawn."""
    values = np.random.default_rng(0).normal(size=100_000)
    kept = thinned(values, 100)
    assert len(kept) <= 102
    assert {0, 99_999, int(values.argmin()), int(values.argmax())} <= set(kept.tolist())
    assert thinned(values[:50], 100).tolist() == list(range(50))


def test_engines_are_scored_on_what_came(tmp_path: Path) -> None:
    """By a loop: each probability against the close `horizon` bars later of its own symbol."""
    settings = load_settings(["bars.clock=ticks:5", "predictions.horizon=3"])
    found = run(walk(3000), tmp_path / "out", settings)["engines"]
    bars = pd.read_parquet(tmp_path / "out" / "bars.parquet")
    said = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    squares, hits = [], []
    for symbol in sorted(set(bars["symbol"])):
        closes = bars["close"][bars["symbol"] == symbol].tolist()
        mine = said[said["symbol"] == symbol]
        for place, (p, null) in enumerate(
            zip(mine["p_momentum"], mine["p_base_rate"], strict=True)
        ):
            if place + 3 < len(closes) and not np.isnan(p + null):
                rose = closes[place + 3] - closes[place]
                if rose != 0:
                    squares.append((p - (rose > 0)) ** 2)
                    if p != 0.5:  # even odds say nothing
                        hits.append((p > 0.5) == (rose > 0))
    assert len(squares) > 300
    assert found["momentum"]["n"] == len(squares)
    assert found["momentum"]["brier"] == pytest.approx(np.mean(squares), rel=1e-12)
    assert found["momentum"]["hit_rate"] == pytest.approx(np.mean(hits), rel=1e-12)
    assert found["base_rate"]["log_loss_less_null"] == 0.0
    assert set(found) == {"combined", *ENGINES}


@pytest.mark.parametrize("clock", ["ticks:5", "time:10s"])
def test_an_engine_alone_trades_as_the_chain_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: str
) -> None:
    """A whole backtest of a chain that knows one engine only brings what is told of it alone."""
    sets = [f"bars.clock={clock}", "replay.row_group=200", "signals.cost_bp=0", "fills.taker_bp=2"]
    settings = load_settings(sets)
    path = tmp_path / "ticks.parquet"
    told = run(walk(4000, ("B", "A", "C")), tmp_path / "out", settings, trials=7)
    assert told["engines"]["combined"]["alone"]["performance"] == told["performance"]
    assert told["engines"]["combined"]["alone"]["trading"] == told["trading"]
    step = Predictions.step
    for engine in ENGINES:

        def only(self: Predictions, block: Block, name: str = f"p_{engine}") -> Block:
            rows = step(self, block).rows["predictions"]
            columns = {**rows.columns, "p_up": rows[name]} if len(rows) else rows.columns
            return block.plus(Rows("predictions", columns, rows.symbols))

        monkeypatch.setattr(Predictions, "step", only)
        monkeypatch.setattr("pipeline.replay.backtest.alone", lambda *_: None)  # not asked for here
        truth = backtest(
            tmp_path / engine, lambda into: replay_file(path, into, settings), undrawn, trials=7
        )
        monkeypatch.undo()
        alone = told["engines"][engine]["alone"]
        assert alone["final_equity"] == truth["final_equity"]
        assert alone["performance"] == truth["performance"]
        assert alone["trading"] == truth["trading"]
    ends = {one["alone"]["final_equity"] for one in told["engines"].values()}
    assert len(ends) == 1 + len(ENGINES), "each trades otherwise"


def test_a_strategy_that_follows_a_column_leaves_engines_their_own(tmp_path: Path) -> None:
    """What is traded is the column; alone an engine trades its probability."""
    base = ["bars.clock=ticks:5", "signals.cost_bp=0"]
    plain = run(walk(3000), tmp_path / "plain", load_settings(base))
    led = run(walk(3000), tmp_path / "led", load_settings([*base, "signals.follow=momentum_20"]))
    assert led["final_equity"] != plain["final_equity"]
    for engine in ("combined", *ENGINES):
        assert led["engines"][engine]["alone"] == plain["engines"][engine]["alone"]


def test_a_changed_symbol_leaves_no_engine_alone(tmp_path: Path) -> None:
    """What was written does not tell of it: null and a warning, not wrong figures."""
    table = walk(3000, ("A",))
    table.loc[1500:, "symbol"] = "NEW"
    table["was"] = [None] * 1500 + ["A"] + [None] * 1499
    found = run(table, tmp_path / "out", load_settings(["bars.clock=ticks:5"]))
    assert {one["alone"] for one in found["engines"].values()} == {None}
    assert "no engine is traded alone" in found["warnings"][-1]
    assert "No engine was traded alone" in (tmp_path / "out" / REPORT).read_text()
