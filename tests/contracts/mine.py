"""A user's features, as the README shows them: the rules hold for them too."""

from typing import Any

from pipeline.stages.custom import feature


@feature(inputs=("close",), periods=20, unit="0..1")
def close_place(close: Any) -> float:
    """Where the close lies in the range of the last 20 closes."""
    low, high = close.min(), close.max()
    return float((close[-1] - low) / (high - low)) if high > low else 0.5
