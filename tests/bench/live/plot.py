"""Lines over time: a PNG where matplotlib is installed, an SVG of our own where it is not."""

import importlib
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

_WIDTH: Final = 900
_HEIGHT: Final = 260  # of one panel
_LEFT, _RIGHT, _TOP, _BOTTOM = 90, 20, 36, 36
_PARTS: Final = 5


def plot(stem: Path, seconds: Sequence[float], panels: Mapping[str, Sequence[float]]) -> Path:
    """Draw a panel for each series; the file written."""
    return (_png if find_spec("matplotlib") else _svg)(stem, seconds, panels)


def _png(stem: Path, seconds: Sequence[float], panels: Mapping[str, Sequence[float]]) -> Path:
    importlib.import_module("matplotlib").use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(len(panels), sharex=True, squeeze=False, figsize=(10, 6))
    for (axis,), (title, values) in zip(axes, panels.items(), strict=True):
        axis.plot(seconds, values)
        axis.set_title(title)
        axis.set_ylim(bottom=0)
    axes[-1][0].set_xlabel("seconds")
    found = stem.with_suffix(".png")
    figure.savefig(found)
    return found


def _svg(stem: Path, seconds: Sequence[float], panels: Mapping[str, Sequence[float]]) -> Path:
    height = _HEIGHT * len(panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}">',
        "<style>text { font: 12px sans-serif }</style>",
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
    ]
    for place, (title, values) in enumerate(panels.items()):
        parts.extend(_panel(place * _HEIGHT, title, seconds, values))
    found = stem.with_suffix(".svg")
    found.write_text("\n".join([*parts, "</svg>"]) + "\n")
    return found


def _panel(top: int, title: str, seconds: Sequence[float], values: Sequence[float]) -> list[str]:
    low, high = top + _HEIGHT - _BOTTOM, top + _TOP
    most, last = max(*values, 1e-9) * 1.05, max(*seconds, 1e-9)

    def x(second: float) -> float:
        return _LEFT + second / last * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return low - value / most * (low - high)

    parts = [f'<text x="{_LEFT}" y="{high - 12}" font-weight="bold">{title}</text>']
    for number in range(_PARTS + 1):
        value, second = most * number / _PARTS, last * number / _PARTS
        parts += [
            f'<path d="M{_LEFT} {y(value):.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>',
            f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:,.4g}</text>',
            f'<text x="{x(second):.1f}" y="{low + 18}" text-anchor="middle">{second:.0f} s</text>',
        ]
    points = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in zip(seconds, values, strict=True))
    parts.append(f'<polyline points="{points}" fill="none" stroke="#1f5fa8" stroke-width="1.5"/>')
    return parts
