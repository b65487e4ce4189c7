"""How long it took until work went on, by kind of fault."""

import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

# Three times what the issue asks of the medians: a guard against hanging, not a measurement.
BOUNDS: Final[Mapping[str, float]] = {
    "kill worker": 15.0,
    "kill worker in commit": 15.0,
    "restart kafka": 30.0,
    "restart postgres": 30.0,
    "restart valkey": 30.0,
}


@dataclass(slots=True)
class Recoveries:
    """Seconds by kind."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def lines(self) -> list[str]:
        """A table for people."""
        return [
            f"{kind:24} {len(found):4}   {min(found):5.2f} {statistics.median(found):6.2f} "
            f"{max(found):6.2f}"
            for kind, found in sorted(self.seconds.items())
        ]

    def too_slow(self) -> list[str]:
        """Kinds whose median is beyond its bound."""
        return [
            f"{kind}: median {statistics.median(found):.1f} s"
            for kind, found in self.seconds.items()
            if found and statistics.median(found) > BOUNDS.get(kind, 60.0)
        ]
