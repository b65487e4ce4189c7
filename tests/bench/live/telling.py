"""Tables for people, on the terminal and in bench-results."""

import sys
from collections.abc import Sequence
from pathlib import Path


def results(repository: Path) -> Path:
    """The directory that benches write to."""
    found = repository / "bench-results"
    found.mkdir(exist_ok=True)
    return found


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with aligned columns, the first one to the left."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if place == 0 else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    ]


def tell(repository: Path, name: str, lines: Sequence[str]) -> None:
    """Print the lines and keep them."""
    text = "\n".join(lines) + "\n"
    sys.stdout.write("\n" + text)
    (results(repository) / f"{name}.txt").write_text(text)
