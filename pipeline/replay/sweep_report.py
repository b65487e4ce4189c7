"""The page of a sweep: the best runs, how all of them spread, and what each parameter does."""

import html
import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import plotly.graph_objects as go

from pipeline.replay.grid import Parameters
from pipeline.replay.pages import (
    GREY,
    INK,
    RED,
    drawn,
    grid,
    inputs_of,
    moments,
    page,
    pairs,
    thinned,
)
from pipeline.replay.sweep import Swept

_SHOWN: Final = 25  # runs in the table
_CURVES: Final = 5
_POINTS: Final = 1000  # of each curve
_FEW: Final = 12  # values that are shown side by side, not along an axis
_MEANINGFUL: Final = 0.95
COLUMNS: Final = (
    "total_return", "sharpe", "psr", "dsr", "max_drawdown", "trades", "win_rate", "profit_factor",
    "turnover", "exposure", "all_fees",
)  # fmt: skip
COLOURS: Final = (INK, "#2e7d55", "#b8860b", "#7a4b9d", "#b23a48")


def told_value(value: Any) -> str:
    """A parameter as a person reads it."""
    return value if isinstance(value, str) else json.dumps(value)


def told_parameters(parameters: Parameters) -> str:
    """All of a run's parameters in one line."""
    return ", ".join(f"{key} {told_value(value)}" for key, value in parameters.items())


def _best(swept: Swept) -> str:
    keys = list(swept.parameters[0])
    rows = [
        {
            "run": str(place),
            **{key: told_value(value) for key, value in swept.parameters[place].items()},
            **swept.figures[place],
        }
        for place in swept.order[:_SHOWN]
    ]
    names = (swept.metric, *(name for name in COLUMNS if name != swept.metric))
    return grid(rows, ("run", *keys, *names)) if rows else "<p>No run has this figure.</p>"


def _curves(swept: Swept) -> str:
    figure = go.Figure()
    for colour, place in zip(COLOURS, swept.order[:_CURVES], strict=False):
        one = swept.outcomes[place]
        equity = np.array(one.equity) / swept.figures[place]["capital"]
        kept = thinned(equity, _POINTS)
        figure.add_scatter(
            x=moments(np.array(one.ts, np.int64)[kept]), y=equity[kept],
            name=f"run {place}: {told_parameters(swept.parameters[place])}"[:90],
            line={"color": colour},
        )  # fmt: skip
    figure.update_yaxes(title="equity / capital")
    return drawn(figure, 420, "curves", legend="below")


def _spread(swept: Swept) -> str:
    values = [swept.figures[place][swept.metric] for place in swept.order]
    if not values:
        return "<p>No run has this figure.</p>"
    figure = go.Figure()
    figure.add_histogram(x=values, marker={"color": GREY}, name="runs", nbinsx=40)
    figure.add_vline(x=values[0], line={"color": RED}, annotation_text="best")
    figure.update_xaxes(title=html.escape(swept.metric.replace("_", " ")))
    figure.update_yaxes(title="runs")
    return drawn(figure, 300, "spread")


def _effects(swept: Swept) -> str:
    return "".join(
        f"<h3>{html.escape(key)}</h3>{_effect(swept, key, number)}"
        for number, key in enumerate(swept.parameters[0])
    )


def _effect(swept: Swept, key: str, number: int) -> str:
    known = [
        (one[key], figures[swept.metric])
        for one, figures in zip(swept.parameters, swept.figures, strict=True)
        if figures[swept.metric] is not None
    ]
    seen = list(dict.fromkeys(told_value(value) for value, _ in known))
    figure = go.Figure()
    if len(seen) <= _FEW:
        for word in seen:
            mine = [figure_ for value, figure_ in known if told_value(value) == word]
            figure.add_box(
                y=mine, name=word, boxpoints="all", marker={"color": INK, "size": 4},
                pointpos=0, jitter=0.4, showlegend=False,
            )  # fmt: skip
        figure.update_xaxes(type="category")
    else:
        figure.add_scatter(
            x=[value for value, _ in known], y=[figure_ for _, figure_ in known], mode="markers",
            marker={"color": INK, "size": 5}, name="runs",
        )  # fmt: skip
    figure.update_yaxes(title=html.escape(swept.metric.replace("_", " ")))
    return drawn(figure, 300, f"effect{number}")


def _plane(swept: Swept) -> str:
    """The mean of the figure over the two parameters with the most values."""
    words = {
        key: list(dict.fromkeys(told_value(one[key]) for one in swept.parameters))
        for key in swept.parameters[0]
    }
    first, second = sorted(words, key=lambda key: -len(words[key]))[:2]
    sums = np.zeros((len(words[second]), len(words[first])))
    counts = np.zeros_like(sums)
    for one, figures in zip(swept.parameters, swept.figures, strict=True):
        if figures[swept.metric] is not None:
            row, column = (words[key].index(told_value(one[key])) for key in (second, first))
            sums[row, column] += figures[swept.metric]
            counts[row, column] += 1
    mean = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    figure = go.Figure()
    figure.add_heatmap(
        x=words[first], y=words[second], z=mean, colorscale="RdBu", zmid=float(np.nanmedian(mean))
        if np.isfinite(mean).any() else 0.0, colorbar={"title": swept.metric.replace("_", " ")},
    )  # fmt: skip
    figure.update_xaxes(type="category", title=html.escape(first))
    figure.update_yaxes(type="category", title=html.escape(second))
    return drawn(figure, 380, "plane")


def _warnings(swept: Swept) -> Sequence[str]:
    found = []
    n = len(swept.figures)
    best = swept.figures[swept.order[0]] if swept.order else None
    if best is not None and best["dsr"] is not None and best["dsr"] < _MEANINGFUL:
        found.append(
            f"The best of {n} runs has a DSR of {best['dsr']:.1%}: the best of so many shows as "
            "much by luck. Do a walk-forward before believing it."
        )
    periods = best["periods"] if best else 0
    if periods < swept.manifest["periods_per_year"]:
        found.append(f"Only {periods} returns: yearly figures mean little.")
    if len(swept.order) < n:
        found.append(f"Runs without a {swept.metric.replace('_', ' ')}: {n - len(swept.order)}.")
    return found


def sweep_report(swept: Swept) -> str:
    """The page as text."""
    values = [swept.figures[place][swept.metric] for place in swept.order]
    short = {
        "runs": len(swept.figures),
        f"best {swept.metric}": values[0] if values else None,
        f"median {swept.metric}": float(np.median(values)) if values else None,
        f"worst {swept.metric}": values[-1] if values else None,
        "dsr": swept.figures[swept.order[0]]["dsr"] if swept.order else None,
        "returns of each run": swept.figures[0]["periods"],
        "returns a year": f"{swept.manifest['periods_per_year']:,.6g}",
    }
    several = sum(len({told_value(one[key]) for one in swept.parameters}) > 1
                  for key in swept.parameters[0])  # fmt: skip
    return page(
        "sweep.html",
        f"Sweep over {html.escape(inputs_of(swept.manifest))}",
        {
            "warnings": "".join(f"<li>{html.escape(text)}</li>" for text in _warnings(swept)),
            "short": pairs(short),
            "best": _best(swept),
            "curves": _curves(swept),
            "spread": _spread(swept),
            "effects": _effects(swept),
            "plane": _plane(swept) if several > 1 else "",
            "manifest": html.escape(json.dumps(swept.manifest, indent=1)),
        },
    )
