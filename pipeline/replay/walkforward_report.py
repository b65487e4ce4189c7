"""The page of a walk-forward: equity out of sample, and what the choices promised and brought."""

import html
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pipeline.replay import metrics
from pipeline.replay.pages import GREEN, GREY, RED, drawn, grid, inputs_of, moments, page, pairs
from pipeline.replay.splits import Window
from pipeline.replay.sweep_report import COLOURS, told_value
from pipeline.replay.trial_figures import BETTER
from pipeline.replay.walkforward import Choice, Walked

_SHOWN: Final = (
    "total_return", "cagr", "volatility", "sharpe", "sortino", "max_drawdown", "calmar",
    "skewness", "kurtosis", "psr", "dsr",
)  # fmt: skip
_SECOND: Final = 1_000_000_000


def told_time(ns: int | None, otherwise: str) -> str:
    """A time to the minute, as people write it."""
    if ns is None:
        return otherwise
    return datetime.fromtimestamp(ns // _SECOND, UTC).strftime("%Y-%m-%d %H:%M")


def _equity(walked: Walked) -> str:
    stitched = walked.stitched
    if not stitched.ts:
        return "<p>Nothing was traded.</p>"
    equity = np.array(stitched.equity)
    at, fall = moments(stitched.ts), metrics.drawdowns(equity)[1:]
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.7, 0.3])
    for number in dict.fromkeys(stitched.fold):
        mine = np.flatnonzero(np.array(stitched.fold) == number)
        joined = np.append(max(mine[0] - 1, 0), mine)  # the line comes from the window before
        figure.add_scatter(
            x=at[joined], y=equity[1:][joined], name=f"window {number}", showlegend=False,
            line={"color": COLOURS[number % len(COLOURS)]}, row=1, col=1,
        )  # fmt: skip
    figure.add_scatter(
        x=at, y=fall, name="drawdown", fill="tozeroy", line={"color": RED}, showlegend=False,
        row=2, col=1,
    )  # fmt: skip
    figure.update_yaxes(tickformat=".1%", row=2, col=1)
    figure.update_yaxes(title="equity / capital", row=1, col=1)
    return drawn(figure, 460, "equity")


def _figure(figures: Mapping[str, Any] | None, name: str) -> Any:
    return None if figures is None else figures[name]


def _pair(walked: Walked, choice: Choice) -> tuple[Any, Any]:
    """The figure that chose in training, and in the test."""
    if choice.chosen is None or choice.test is None:
        return None, None
    train = choice.train[choice.chosen].figures[walked.metric]
    return train, choice.test.figures[walked.metric]


def _promise(walked: Walked) -> str:
    both = [_pair(walked, choice) for choice in walked.choices]
    names = [f"window {number}" for number in range(len(both))]
    figure = go.Figure()
    figure.add_bar(x=names, y=[one for one, _ in both], name="in training", marker={"color": GREY})
    figure.add_bar(x=names, y=[one for _, one in both], name="in the test", marker={"color": GREEN})
    figure.update_yaxes(title=html.escape(walked.metric.replace("_", " ")))
    return drawn(figure, 320, "promise")


def _trained(window: Window) -> str:
    start = told_time(window.start, "the start")
    return f"{start}, but for the test" if window.hole is not None else start


def _folds(walked: Walked) -> str:
    rows = []
    for number, choice in enumerate(walked.choices):
        train, test = _pair(walked, choice)
        chosen = {} if choice.chosen is None else walked.parameters[choice.chosen]
        figures = None if choice.test is None else choice.test.figures
        rows.append(
            {
                "window": str(number),
                "trained from": _trained(choice.fold.train),
                "test from": told_time(choice.fold.test.start, "the start"),
                "to": told_time(choice.fold.test.end, "the end"),
                "run": "–" if choice.chosen is None else str(choice.chosen),
                **{key: told_value(value) for key, value in chosen.items()},
                f"{walked.metric} in training": train,
                f"{walked.metric} in test": test,
                "total_return": _figure(figures, "total_return"),
                "max_drawdown": _figure(figures, "max_drawdown"),
                "trades": _figure(figures, "trades"),
            }
        )
    names = list(dict.fromkeys(name for row in rows for name in row))
    return grid(rows, names)


def _chosen(walked: Walked) -> str:
    taken = [walked.parameters[c.chosen] for c in walked.choices if c.chosen is not None]
    if not taken:
        return "<p>Nothing was chosen.</p>"
    text = ""
    for key in walked.parameters[0]:
        counts = Counter(told_value(one[key]) for one in taken)
        told = pairs({f"{value}": n for value, n in counts.most_common()})
        text += f"<div><h3>{html.escape(key)}</h3>{told}</div>"
    return f'<div class="side top">{text}</div>'


def _warnings(walked: Walked) -> Sequence[str]:
    found = []
    years = walked.manifest["periods_per_year"]
    if len(walked.stitched.ts) < years:
        found.append(f"Only {len(walked.stitched.ts)} returns: yearly figures mean little.")
    missing = sum(choice.chosen is None for choice in walked.choices)
    if missing:
        found.append(f"Windows not traded, for no run had the figure in training: {missing}.")
    train, test = zip(*(_pair(walked, choice) for choice in walked.choices), strict=True)
    known = [(a, b) for a, b in zip(train, test, strict=True) if a is not None and b is not None]
    sign = 1.0 if BETTER[walked.metric] else -1.0
    if len(known) > 1 and all(sign * b < sign * a for a, b in known):
        found.append("Every window brought less than its training promised.")
    if any(choice.fold.train.end is None for choice in walked.choices):
        found.append("Parameters were chosen by what came later, too: nobody could have traded so.")
    return found


def walkforward_report(walked: Walked) -> str:
    """The page as text."""
    figures = walked.figures
    short = {
        "windows": figures["folds"],
        "parameter sets": figures["variants"],
        "returns": figures["periods"],
        "returns a year": f"{walked.manifest['periods_per_year']:,.6g}",
        "trades": figures["trades"],
        "fills": figures["fills"],
        "buy_and_hold_return": None
        if figures["buy_and_hold"] is None
        else f"{figures['buy_and_hold']:.2%}",
    }
    return page(
        "walkforward.html",
        f"Walk-forward over {html.escape(inputs_of(walked.manifest))}",
        {
            "metric": html.escape(walked.metric.replace("_", " ")),
            "warnings": "".join(f"<li>{html.escape(text)}</li>" for text in _warnings(walked)),
            "performance": pairs({name: figures[name] for name in _SHOWN}),
            "short": pairs(short),
            "equity": _equity(walked),
            "promise": _promise(walked),
            "folds": _folds(walked),
            "chosen": _chosen(walked),
            "manifest": html.escape(json.dumps(walked.manifest, indent=1)),
        },
    )
