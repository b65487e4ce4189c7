"""Windows of a walk-forward by event time (QUANT.md 4.4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from pipeline.errors import MisuseError

Scheme = Literal["anchored", "rolling", "kfold"]
_MOST: Final = 10_000  # folds


@dataclass(frozen=True, slots=True)
class Window:
    """Event times (ns) start <= t < end; None is the start or the end of the input.

    A book begins with first cash at the start, over a chain that has seen all before it. `left_out`
    are the bars of each book before the end whose outcome may reach beyond it, `skipped` those
    behind the start that are not traded on. A `hole`, start <= t < end, cuts it in two: its start
    is the end of the one part and its end the start of the other, each with books of its own.
    """

    start: int | None
    end: int | None
    left_out: int = 0
    skipped: int = 0
    hole: tuple[int, int] | None = None

    @property
    def spans(self) -> tuple["Window", ...]:
        """Its parts, none with a hole."""
        if self.hole is None:
            return (self,)
        start, end = self.hole
        before = Window(self.start, start, self.left_out)
        return before, Window(end, self.end, skipped=self.skipped)


@dataclass(frozen=True, slots=True)
class Fold:
    """Parameters are chosen in `train` and traded in `test`, which is no part of it."""

    train: Window
    test: Window


def even_edges(first: int, last: int, tests: int, whole: int) -> list[int]:
    """Starts (ns) of so many tests that cut event times first to last evenly, with one training.

    So they are the edges between one part more than there are tests.

    They are multiples of `whole` ns where the windows are that long.
    """
    width = (last - first) / (tests + 1)
    edges = [first + int(k * width) for k in range(1, tests + 1)]
    return [edge // whole * whole for edge in edges] if width >= whole else edges


def edges_of(first: int, last: int, train: int, test: int, whole: int) -> list[int]:
    """Starts (ns) of tests of one length behind a first training of another.

    The last test goes on to the end of the input; it is at least half as long as the others.

    Raises:
        MisuseError: the input is too short, or there would be too many.
    """
    begin = first // whole * whole if min(train, test) >= whole else first
    count = int((last - begin - train) / test + 0.5)
    if count < 1:
        raise MisuseError(
            "the input is too short for one training and one test window: "
            f"it has {_span(last - first)}, they take {_span(train + test)}"
        )
    if count > _MOST:
        raise MisuseError(f"that makes more than {_MOST:,} test windows: make --test longer")
    return [begin + train + k * test for k in range(count)]


def folds_of(
    edges: Sequence[int], first: int, scheme: Scheme, left_out: int, train: int | None = None
) -> list[Fold]:
    """A fold for each start of a test; the last test ends with the input.

    Args:
        edges: starts of the tests, ns, ascending.
        first: event time of the first tick, ns.
        scheme: `anchored` trains from the first tick on, `rolling` on the last `train` ns.
        left_out: bars before a test that may not teach.
        train: None: from the start of the test before.
    """
    found = []
    for k, edge in enumerate(edges):
        start = (edges[k - 1] if k else first) if train is None else edge - train
        known = None if scheme == "anchored" or start <= first else start
        end = edges[k + 1] if k + 1 < len(edges) else None
        found.append(Fold(Window(known, edge, left_out), Window(edge, end)))
    return found


def kfolds_of(edges: Sequence[int], purge: int, embargo: int) -> list[Fold]:
    """Each part of the input is the test once, and what is around it the training.

    A bar before the test teaches if the label behind it by `purge` bars is known by then; one
    behind it if it stands more than `purge` and `embargo` bars off (QUANT.md 4.4.7).

    Args:
        edges: where one part ends and the next begins, ns, ascending.
        purge: bars until a label is known.
        embargo: bars behind a test that its prices still shape.
    """
    away = purge + embargo
    first, last = edges[0], edges[-1]
    inner = [
        Fold(Window(None, None, purge, away, hole=(low, high)), Window(low, high))
        for low, high in pairwise(edges)
    ]
    return [
        Fold(Window(first, None, skipped=away), Window(None, first)),
        *inner,
        Fold(Window(None, last, purge), Window(last, None)),
    ]


def _span(ns: int) -> str:
    hours = ns / 3.6e12
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} hours"  # noqa: PLR2004 -- two days
