"""The real samples again and again, later each time, under symbols of each partition's own."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from pipeline.sources.files import read_documents
from schemas.codec import tick_bytes
from schemas.times import parse_time
from tests.acceptance.chaos.prices import Publication

FILES: Final = (
    "crypto_trades_20240808",
    "es_trades_20130901",
    "fx_quotes_eurusd_201405",
    "crypto_quotes_20240808",
)
_PAUSE: Final = 2 * 10**9  # ns between two rounds of a sample
_FRAMES: Final = (1, 5, 20, 100, 250)  # ticks of a message
MEAN_FRAME: Final = sum(_FRAMES) / len(_FRAMES)
_TIMES: Final = ("ts", "recv_ts")

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows of a file in the order of time, and how much later the next round of them is."""

    rows: Sequence[Document]
    span: int
    ids: int


def samples_of(folder: Path, rows: int) -> list[Sample]:
    """The first rows of each file."""
    return [sample_of(folder / f"{name}.csv.gz", rows) for name in FILES]


def sample_of(file: Path, rows: int) -> Sample:
    """The first rows of a file."""
    documents = list(islice(read_documents(file), rows))
    for one in documents:
        one["ts"] = parse_time(one["ts"])
    span = documents[-1]["ts"] - documents[0]["ts"] + _PAUSE
    ids = [one["id"] for one in documents if "id" in one]
    return Sample(documents, span, max(ids) - min(ids) + 1 if ids else 0)


def tape(sample: Sample, name: str, start: int = 0) -> Iterator[Document]:
    """Ticks without end, from a row of the sample on."""
    turn, n = 0, len(sample.rows)
    while True:
        for row in islice(sample.rows, start if turn == 0 else 0, n):
            tick = {**row, "symbol": f"{row['symbol']}.{name}"}
            for field in _TIMES:
                if field in tick:
                    tick[field] += turn * sample.span
            if "id" in tick:
                tick["id"] += turn * sample.ids
            yield tick
        turn += 1


def messages(
    samples: Sequence[Sample], partitions: int, chance: random.Random
) -> Iterator[Publication]:
    """Messages without end, of many sizes, for all partitions; two samples on each of them."""
    tapes = {
        number: [
            tape(samples[(number + i) % len(samples)], f"{number}{'ab'[i]}", 331 * number)
            for i in range(2)
        ]
        for number in range(partitions)
    }
    while True:
        number = chance.randrange(partitions)
        count = chance.choice(_FRAMES)
        some = list(islice(chance.choice(tapes[number]), count))
        framing = chance.choice(("json", "json", "arrow"))
        yield Publication(number, tick_bytes(some, framing), tuple(range(count)))
