"""A user's feature and engines, as the README shows them: the rules hold for them too."""

from typing import Any

from pipeline.stages.custom import feature
from pipeline.stages.engines import engine


@feature(inputs=("close",), periods=20, unit="0..1")
def close_place(close: Any) -> float:
    """Where the close lies in the range of the last 20 closes."""
    low, high = close.min(), close.max()
    return float((close[-1] - low) / (high - low)) if high > low else 0.5


@engine(inputs=("rsi_14", "close_place"), periods=2)
def contrarian(rsi: Any, place: Any) -> float:
    """Against an RSI far from 50, and against the place of the close."""
    return float(50.0 - rsi[-1] - 10.0 * place.mean())


def count(state: Any, close: Any, rose: float) -> None:
    """Outcomes behind closes that had risen, and the rises among them; the same of others."""
    which = 2 if close[-1] > close[0] else 0
    state[which] += rose
    state[which + 1] += 1.0


@engine(inputs=("close",), periods=3, says="probability", state=4, learn=count)
def frequency(state: Any, close: Any) -> float:
    """How often it rose after three closes like these."""
    which = 2 if close[-1] > close[0] else 0
    return float((state[which] + 1.0) / (state[which + 1] + 2.0))
