"""The time of day as a point on the unit circle."""

import math
from typing import Final

import numpy as np

from pipeline.kernels.hot import piece
from schemas.times import DAY

_MINUTE: Final = 60_000_000_000  # ns
_TURN: Final = 2.0 * math.pi / DAY


def _point(minute: int) -> tuple[float, float]:
    """Sine and cosine, from an angle of at most an eighth of a turn: a larger one is rounded."""
    quarter, rest = divmod(minute + 180, 360)
    angle = 2.0 * math.pi * (rest - 180) / 1440
    s, c = math.sin(angle), math.cos(angle)
    return ((s, c), (c, -s), (-s, -c), (-c, s))[quarter % 4]


# From libm once, not for every row: there it took as long as a dozen windows.
_SINES: Final = np.array([_point(minute)[0] for minute in range(1440)])
_COSINES: Final = np.array([_point(minute)[1] for minute in range(1440)])


@piece
def on_circle(at: int) -> tuple[float, float]:
    """Sine and cosine of the time of day, ns of local time; the first minute begins at (0, 1).

    The minute's point, turned by the rest: an angle below 0.0044, so what the series leave out is
    below 1e-17.
    """
    rest = at % DAY
    minute = rest // _MINUTE
    angle = (rest - minute * _MINUTE) * _TURN
    square = angle * angle
    sine = angle - angle * square * (1.0 / 6.0 - square * (1.0 / 120.0))
    short = square * (0.5 - square * (1.0 / 24.0 - square * (1.0 / 720.0)))  # 1 - cosine
    s = _SINES[minute]
    c = _COSINES[minute]
    return s + (c * sine - s * short), c - (s * sine + c * short)
