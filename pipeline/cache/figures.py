"""What was asked of the cache and what it had."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class CacheFigures:
    """Counts by kind since the manager was made."""

    hits: Counter[str] = field(default_factory=Counter)
    """Values that the cache had, known absences among them."""
    misses: Counter[str] = field(default_factory=Counter)
    """Values that it had not, or could not give."""
    absences: Counter[str] = field(default_factory=Counter)
    """Hits that said that there is nothing."""
    loads: Counter[str] = field(default_factory=Counter)
    """Times that a value was read from where it comes from."""
    shared: Counter[str] = field(default_factory=Counter)
    """Times that somebody else's reading was waited for instead."""
    failed: int = 0
    """Times that the cache was away, or too slow."""
