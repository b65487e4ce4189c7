"""A feed for live tests: the sample as three symbols, at a steady rate until told to hurry."""

import csv
import gzip
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.sources.feed import Pace

SYMBOLS = ("ES", "NQ", "YM")
RUN = 40  # rows in a row of one symbol


@dataclass(frozen=True, slots=True)
class UntilTold(Pace):
    """A steady rate, and full speed once told."""

    hurry: list[bool] = field(default_factory=list)

    def due(self, sent: int, since_first_ns: int) -> float:
        """As the rate says, or at once."""
        return 0.0 if self.hurry else Pace.due(self, sent, since_first_ns)


def three_symbols(sample: Path, to: Path) -> Path:
    """The sample with its rows dealt to three symbols: three partitions are at work."""
    with gzip.open(sample, "rt", newline="") as source, to.open("w", newline="") as target:
        rows = csv.DictReader(source)
        writer = csv.DictWriter(target, list(rows.fieldnames or ()))
        writer.writeheader()
        for number, row in enumerate(rows):
            writer.writerow({**row, "symbol": SYMBOLS[number // RUN % len(SYMBOLS)]})
    return to
