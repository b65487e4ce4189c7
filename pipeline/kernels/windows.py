"""Rolling windows as two stacks of mergeable aggregates: O(1), no drift, no trace of a spike.

A window lives in the state row of its symbol: `f` float64 (F,), `k` int64 (I,). Its place `w` is a
tuple (n, first float of the back aggregate, first counter, first float of the slots): the
aggregates of all windows of a symbol stand side by side, for every push meets all of them. The n
slots hold, before the counter `pos`, the raw values pushed since the last flip (the back stack)
and, from `pos` on, the suffix aggregates of the n values before them (the front stack). The window
is merge(front[pos], back). When the back is full
it is turned into suffixes: nothing is ever subtracted, so rounding cannot pile up (Chan, Golub,
LeVeque 1979). A row of zeros is a row of empty windows.
"""

from typing import Final

import numpy as np

from pipeline.kernels.hot import piece, rare
from schemas.blocks import Array

Place = tuple[int, int, int, int]
Shape = tuple[int, int]
COUNTERS: Final = 2  # pos, and the number of values held
# Floats of the back aggregate, and of each slot.
LAG: Final = (0, 1)
SUM: Final = (1, 1)
MAX: Final = (1, 1)
MOMENTS: Final = (3, 2)
PAIRS: Final = (5, 5)
# A quotient takes the processor as long as five products, and the windows need dozens a row.
_KNOWN: Final = 512
_INVERSE: Final = np.concatenate([[0.0], 1.0 / np.arange(1, _KNOWN)])


@piece
def inverse(n: int) -> float:
    """1 / n of a count of at least 1."""
    value: float = _INVERSE[n] if n < _KNOWN else 1.0 / n
    return value


def floats_of(shape: Shape, n: int) -> int:
    """Floats of a window over n values."""
    return shape[0] + shape[1] * n


def alone(shape: Shape, n: int, a: int, b: int) -> Place:
    """The place of a window whose slots follow its aggregate at float a; counters from b on."""
    return n, a, b, a + shape[0]


@piece
def sum_push(f: Array, k: Array, w: Place, x: float) -> None:
    """Push x into a window of sums. Aggregate: the sum."""
    n, a, b, s = w
    p = k[b]
    f[s + p] = x
    p += 1
    if k[b + 1] < n:
        k[b + 1] += 1
    if p < n:
        f[a] += x
        k[b] = p
        return
    _sum_turn(f, a, s, n)
    k[b] = 0


@rare
def _sum_turn(f: Array, a: int, s: int, n: int) -> None:
    """Turn the back of a window of sums into suffixes."""
    total = 0.0
    for j in range(s + n - 1, s - 1, -1):
        total += f[j]
        f[j] = total
    f[a] = 0.0


@piece
def sum_read(f: Array, k: Array, w: Place) -> float:
    """Sum of the last min(n, pushed) values."""
    # Slots not written yet are 0, so an incomplete window needs no case of its own.
    total: float = f[w[3] + k[w[2]]] + f[w[1]]
    return total


@piece
def held(k: Array, w: Place) -> int:
    """Number of values in a window, at most n."""
    count: int = k[w[2] + 1]
    return count


@piece
def full(k: Array, w: Place) -> bool:
    """True when a window holds n values."""
    ready: bool = k[w[2] + 1] == w[0]
    return ready


@piece
def max_push(f: Array, k: Array, w: Place, x: float) -> None:
    """Push x into a window of the maximum (of the minimum: push -x). Aggregate: it.

    The same skeleton as the sums; a monotonic deque would need as much state and more branches.
    """
    n, a, b, s = w
    p = k[b]
    f[s + p] = x
    if p == 0 or x > f[a]:
        f[a] = x
    p += 1
    if k[b + 1] < n:
        k[b + 1] += 1
    if p < n:
        k[b] = p
        return
    _max_turn(f, s, n)
    k[b] = 0


@rare
def _max_turn(f: Array, s: int, n: int) -> None:
    """Turn the back of a window of the maximum into suffixes."""
    top = f[s + n - 1]
    for j in range(s + n - 1, s - 1, -1):
        top = max(top, f[j])
        f[j] = top


@piece
def max_read(f: Array, k: Array, w: Place) -> float:
    """Maximum of the last min(n, pushed) values; only after a first push."""
    n, a, b, s = w
    p = k[b]
    back: float = f[a]
    if k[b + 1] < n:
        return back
    front: float = f[s + p]
    return front if p == 0 else max(front, back)


@piece
def moments_push(f: Array, k: Array, w: Place, x: float) -> None:
    """Push x into a window of mean and variance. Aggregate: anchor, mean, M2.

    Means are kept relative to an anchor, the newest value at the last flip: at level 1e8 the mean
    itself would cost the digits that the variance needs, and an anchor for ever (the first value)
    would too when that one was an outlier. Both stacks always share one anchor, so equal values
    give M2 = 0.
    """
    n, a, b, s = w
    p = k[b]
    if k[b + 1] == 0:
        f[a] = x
    if k[b + 1] < n:
        k[b + 1] += 1
    f[s + 2 * p] = x
    p += 1
    if p < n:
        d = x - f[a] - f[a + 1]
        step = d * inverse(p)
        f[a + 1] += step
        f[a + 2] += d * step * (p - 1)
        k[b] = p
        return
    _moments_turn(f, a, s, n, x)
    k[b] = 0


@rare
def _moments_turn(f: Array, a: int, s: int, n: int, x: float) -> None:
    """Turn the back of a window of mean and variance into suffixes, relative to x.

    Means by their sums: so no division waits for the one before it.
    """
    f[a] = x
    total = mean = m2 = 0.0
    for c in range(1, n + 1):
        j = s + 2 * (n - c)
        d = f[j] - x
        total += d
        before = mean
        mean = total * inverse(c)
        m2 += (d - before) * (d - mean)
        f[j] = mean
        f[j + 1] = m2
    f[a + 1] = f[a + 2] = 0.0


@piece
def moments_read(f: Array, k: Array, w: Place) -> tuple[float, float]:
    """Mean minus the anchor f[w[1]], and M2 = sum of squared deviations, of the values held."""
    n, a, b, s = w
    p = k[b]
    if k[b + 1] < n:
        return f[a + 1], f[a + 2]
    j = s + 2 * p
    if p == 0:
        return f[j], f[j + 1]
    d = f[a + 1] - f[j]
    share = d * (p * inverse(n))
    return f[j] + share, f[j + 1] + f[a + 2] + d * share * (n - p)


@piece
def pairs_push(f: Array, k: Array, w: Place, x: float, y: float) -> None:
    """Push (x, y) into a window of co-moments. Aggregate: mx, my, Cxx, Cxy, Cyy.

    Without anchor: made for values around 0, such as returns.
    """
    n, a, b, s = w
    p = k[b]
    if k[b + 1] < n:
        k[b + 1] += 1
    j = s + 5 * p
    f[j] = x
    f[j + 1] = y
    p += 1
    if p < n:
        dx = x - f[a]
        dy = y - f[a + 1]
        scale = inverse(p)
        f[a] += dx * scale
        f[a + 1] += dy * scale
        scale *= p - 1
        f[a + 2] += dx * dx * scale
        f[a + 3] += dx * dy * scale
        f[a + 4] += dy * dy * scale
        k[b] = p
        return
    _pairs_turn(f, a, s, n)
    k[b] = 0


@rare
def _pairs_turn(f: Array, a: int, s: int, n: int) -> None:
    """Turn the back of a window of co-moments into suffixes."""
    x = y = mx = my = cxx = cxy = cyy = 0.0
    for c in range(1, n + 1):
        j = s + 5 * (n - c)
        dx = f[j] - mx
        dy = f[j + 1] - my
        x += f[j]
        y += f[j + 1]
        share = inverse(c)
        mx = x * share
        my = y * share
        cxx += dx * (f[j] - mx)
        cxy += dx * (f[j + 1] - my)
        cyy += dy * (f[j + 1] - my)
        f[j], f[j + 1] = mx, my
        f[j + 2], f[j + 3], f[j + 4] = cxx, cxy, cyy
    for j in range(a, a + 5):
        f[j] = 0.0


@piece
def pairs_read(f: Array, k: Array, w: Place) -> tuple[float, float, float]:
    """Cxx, Cxy, Cyy: sums of products of deviations of the pairs held."""
    n, a, b, s = w
    p = k[b]
    if k[b + 1] < n:
        return f[a + 2], f[a + 3], f[a + 4]
    j = s + 5 * p
    if p == 0:
        return f[j + 2], f[j + 3], f[j + 4]
    dx = f[a] - f[j]
    dy = f[a + 1] - f[j + 1]
    scale = p * (n - p) * inverse(n)
    return (
        f[j + 2] + f[a + 2] + dx * dx * scale,
        f[j + 3] + f[a + 3] + dx * dy * scale,
        f[j + 4] + f[a + 4] + dy * dy * scale,
    )


@piece
def lag_push(f: Array, k: Array, w: Place, x: float) -> None:
    """Push x into a ring of n values; it has no aggregate."""
    p = k[w[2]]
    f[w[3] + p] = x
    p += 1
    k[w[2]] = 0 if p == w[0] else p
    if k[w[2] + 1] < w[0]:
        k[w[2] + 1] += 1


@piece
def lag_read(f: Array, k: Array, w: Place, h: int) -> float:
    """The value pushed h pushes before the latest one; only while held > h."""
    p = k[w[2]] - 1 - h
    value: float = f[w[3] + (p if p >= 0 else p + w[0])]
    return value
