"""The windows by which an open day is read."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.store.history import Span, _cut, _Spread
from pipeline.store.reads import LAST

TIMES = st.integers(-50, 50)


@given(
    st.lists(st.tuples(TIMES, st.integers(0, 400)), max_size=8, unique_by=lambda pair: pair[1]),
    TIMES,
    TIMES,
    st.floats(1, 1000),
    st.booleans(),
)
def test_windows_join_to_the_span(
    seen: list[tuple[int, int]], low: int, high: int, pages: float, backward: bool
) -> None:
    """From the near end on, without a gap, each time once, whatever the pages had told."""
    spread = _Spread(sorted(ts for ts, _ in seen), sorted(page for _, page in seen))
    rest = Span(low, max(low, high), 5, LAST, backward)
    span, found = rest, []
    while rest.low <= rest.high:
        near, rest = _cut(rest, spread, pages)
        found += sorted(range(near.low, near.high + 1), reverse=backward)
    assert found == sorted(range(span.low, span.high + 1), reverse=backward)


def test_a_window_is_about_as_large_as_was_asked() -> None:
    """Where time goes on evenly, ten pages are the time of ten pages."""
    spread = _Spread([0, 1000, 3000], [0, 100, 200])
    near, rest = _cut(Span(-(2**63), 2**62, 5, LAST, backward=True), spread, 10)
    assert (near.low, rest.high) == (2800, 2799)
    near, rest = _cut(Span(0, 2**62, 5, LAST), spread, 150)
    assert (near.high, rest.low) == (2000, 2001)
    near, rest = _cut(Span(0, 2**62, 5, LAST), spread, 201)
    assert near.high == 2**62
    assert rest.low > rest.high
