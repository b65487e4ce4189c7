"""Pages that carry everything they show and ask nobody: figures, tables, pictures, a template."""

import html
from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import pairwise
from typing import Any, Final, Literal

import numpy as np
from plotly.offline import get_plotlyjs

POINTS: Final = 4000  # of a line; more than a screen can show
INK, RED, GREEN, GREY = "#1f3a5f", "#b23a48", "#2e7d55", "#8a94a0"
_PERCENT: Final = frozenset(
    {
        "total_return", "cagr", "volatility", "max_drawdown", "win_rate", "exposure",
        "share_of_time", "hit_rate", "psr", "dsr",
    }
)  # fmt: skip
_MONEY: Final = frozenset({"profit", "fees", "gain", "all_fees", "all_slippage", "open_profit"})


def figure_text(name: str, value: Any) -> str:
    """A figure as a person reads it; null is a dash."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return html.escape(value)
    if isinstance(value, Sequence):
        return " to ".join(figure_text(name.removesuffix("_95"), one) for one in value)
    return _number(name, value)


def _number(name: str, value: float) -> str:
    if name in _PERCENT:
        return f"{value:.2%}"
    if isinstance(value, int):
        return f"{value:,}"
    money = name in _MONEY or name.startswith("mean_")
    return f"{value:,.2f}" if money else f"{value:,.4f}"


def words(name: str) -> str:
    """The name of a figure as people say it, safe in a page."""
    return html.escape(name if "." in name else name.replace("_", " "))  # a key stays one


def pairs(figures: Mapping[str, Any]) -> str:
    """A table of names and figures."""
    rows = "".join(
        f"<tr><th>{words(name)}</th><td>{figure_text(name, value)}</td></tr>"
        for name, value in figures.items()
    )
    return f"<table>{rows}</table>"


def grid(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """A table with a column for each name and a line for each row."""
    head = "".join(f"<th>{words(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{figure_text(c, row.get(c))}</td>" for c in columns) + "</tr>"
        for row in rows
    )
    return f"<table class=grid><tr>{head}</tr>{body}</table>"


def thinned(values: np.ndarray[Any, Any], most: int = POINTS) -> np.ndarray[Any, Any]:
    """Places of at most so many values, the lowest and highest of each stretch among them."""
    n = len(values)
    if n <= most:
        return np.arange(n)
    edges = np.linspace(0, n, most // 2 + 1).astype(int)
    kept = {0, n - 1}
    for low, high in pairwise(edges.tolist()):
        part = values[low:high]
        kept |= {low + int(np.argmin(part)), low + int(np.argmax(part))}
    return np.array(sorted(kept))


def moments(ns: Any) -> Any:
    """Times for a picture, where a millisecond is enough."""
    return (np.asarray(ns, np.int64) // 1_000_000).astype("datetime64[ms]")


def drawn(figure: Any, height: int, name: str, legend: Literal["above", "below"] = "above") -> str:
    """A picture as a piece of a page, `name` its id there."""
    figure.update_layout(
        height=height, template="plotly_white", margin={"l": 60, "r": 20, "t": 30, "b": 30},
        font={"family": "system-ui, sans-serif", "size": 12}, hovermode="x unified",
        legend={"orientation": "h", "y": 1.08 if legend == "above" else -0.18},
    )  # fmt: skip
    text: str = figure.to_html(
        full_html=False, include_plotlyjs=False, div_id=name, config={"displaylogo": False}
    )
    return text


def inputs_of(manifest: Mapping[str, Any]) -> str:
    """What was run over, in a few words."""
    return ", ".join(
        str(one.get("file") or one.get("table") or f"{one.get('topic')}:{one.get('partition')}")
        for one in manifest["inputs"]
    )


def page(template: str, heading: str, values: Mapping[str, str]) -> str:
    """A whole page: plotly itself, and a template of this folder filled with values by name.

    The heading and the values are HTML.
    """
    found = {"heading": heading, "plotly": get_plotlyjs(), "body": _filled(template, values)}
    return _filled("page.html", found)


def _filled(template: str, values: Mapping[str, str]) -> str:
    text = files("pipeline.replay").joinpath(template).read_text(encoding="utf-8")
    head, *parts = text.split("{{")
    return head + "".join(_put(part, values) for part in parts)


def _put(part: str, values: Mapping[str, str]) -> str:
    """A piece of the page behind the name of a value: the value, and the rest."""
    name, rest = part.split("}}", 1)
    return values[name] + rest
