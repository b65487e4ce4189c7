"""What was read of a topic stays on this machine: a second replay of it does without the broker."""

import hashlib
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from pipeline.bus.ranges import Range, Request, Stretch, read_ranges, resolve
from pipeline.disk import unwritable, write_whole
from pipeline.errors import MisuseError, TickstreamError, UnavailableError
from pipeline.replay.messages import Read, from_broker
from pipeline.replay.segments import Place, SegmentWriter, last_of, read_segment, spans
from schemas.arrivals import Message

_ASKED: Final = "asked"


async def open_topic(
    bootstrap: str | None, request: Request, home: Path | None
) -> tuple[Stretch, Read]:
    """The stretch that is asked for, and how its messages are read.

    With a `home` for kept messages, those that are there are not fetched and others are kept. When
    the broker is not there (None) or does not answer, a request that was answered before and whose
    messages are all kept is answered as it was then.

    Raises:
        MisuseError: the request names what is not there, or no broker is named and nothing is kept.
        UnavailableError: the broker does not answer and not all messages are kept.
        TickstreamError: what is kept is damaged.
    """
    if home is None:
        if bootstrap is None:
            raise MisuseError("no broker is named")
        return await resolve(bootstrap, request), from_broker(bootstrap, request.topic)
    try:
        stretch = await _resolved(bootstrap, request)
    except UnavailableError as error:
        known = _recalled(home, bootstrap, request)
        if known is None:
            raise UnavailableError(f"{error}; this stretch is not kept here either") from error
        return known, _reading(home, known, None)
    if bootstrap is not None:
        await _drop_strangers(home, bootstrap, stretch)
        _remember(home, bootstrap, request, stretch)
    fetch = None if bootstrap is None else from_broker(bootstrap, request.topic)
    return stretch, _reading(home, stretch, fetch)


async def _resolved(bootstrap: str | None, request: Request) -> Stretch:
    if bootstrap is None:
        raise UnavailableError("no broker is named")
    return await resolve(bootstrap, request)


def _cover(have: list[Range], span: Range) -> list[tuple[Range, Range | None]]:
    """A span cut into pieces, each with the kept stretch that holds it, or None."""
    pieces: list[tuple[Range, Range | None]] = []
    at, end = span
    while at < end:
        best = max((one for one in have if one[0] <= at < one[1]), key=lambda r: r[1], default=None)
        later = min((low for low, _ in have if low > at), default=end)
        stop = min(best[1] if best else later, end)
        pieces.append(((at, stop), best))
        at = stop
    return pieces


def _place(stretch: Stretch, partition: int, span: Range) -> Place:
    return Place(stretch.cluster, stretch.topic, partition, *span)


def _pieces(
    home: Path, stretch: Stretch, partition: int, span: Range
) -> list[tuple[Range, Range | None]]:
    return _cover(spans(_place(stretch, partition, span).folder(home)), span)


def _reading(home: Path, stretch: Stretch, fetch: Read | None) -> Read:
    async def read(partition: int, span: Range) -> AsyncGenerator[list[Message], None]:
        for piece, have in _pieces(home, stretch, partition, span):
            if have is not None:
                for messages in read_segment(home, _place(stretch, partition, have), piece):
                    yield messages
                continue
            if fetch is None:
                raise UnavailableError("the broker does not answer and messages are missing here")
            with SegmentWriter(home, _place(stretch, partition, piece)) as writer:
                async with aclosing(fetch(partition, piece)) as found:
                    async for messages in found:
                        writer.write(messages)
                        yield messages
                writer.finish()

    return read


async def _drop_strangers(home: Path, bootstrap: str, stretch: Stretch) -> None:
    """Remove what is kept of an earlier topic of the same name: its last message is another."""
    for partition, span in stretch.ranges.items():
        for _, have in _pieces(home, stretch, partition, span):
            if have is None:
                continue
            place = _place(stretch, partition, have)
            mine = last_of(home, place)
            at = {partition: (have[1] - 1, have[1])}
            there = [
                m async for _, found in read_ranges(bootstrap, stretch.topic, at) for m in found
            ]
            if mine is not None and there and there[-1] != mine:
                place.path(home).unlink(missing_ok=True)


def _asked(home: Path, request: Request) -> Path:
    """The folder of the answers to a request."""
    text = json.dumps(asdict(request), sort_keys=True)
    return home / _ASKED / hashlib.sha256(text.encode()).hexdigest()[:32]


def _remember(home: Path, bootstrap: str, request: Request, stretch: Stretch) -> None:
    """Note what the request meant, for a time without the broker."""
    folder = _asked(home, request)
    facts = {"bootstrap": bootstrap, "stretch": asdict(stretch)}
    name = hashlib.sha256(f"{bootstrap} {stretch.cluster}".encode()).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    write_whole(folder / f"{name}.json", json.dumps(facts))


def _recalled(home: Path, bootstrap: str | None, request: Request) -> Stretch | None:
    """What the request meant when it was answered last, if all of that is kept.

    Raises:
        MisuseError: no broker is named, and several gave an answer.
    """
    answers = [_answer(path) for path in sorted(_asked(home, request).glob("*.json"))]
    known = [
        stretch
        for asked, stretch in answers
        if bootstrap in {asked, None} and _whole(home, stretch)
    ]
    if len({stretch.cluster for stretch in known}) > 1:
        raise MisuseError("several clusters gave this stretch: set TICKSTREAM_KAFKA to choose one")
    return known[-1] if known else None


def _whole(home: Path, stretch: Stretch) -> bool:
    return all(
        have is not None
        for partition, span in stretch.ranges.items()
        for _, have in _pieces(home, stretch, partition, span)
    )


def _answer(path: Path) -> tuple[str, Stretch]:
    try:
        facts: dict[str, Any] = json.loads(path.read_text())
        stretch = Stretch(**facts["stretch"])
        ranges = {int(n): (int(low), int(high)) for n, (low, high) in stretch.ranges.items()}
        return str(facts["bootstrap"]), replace(stretch, ranges=ranges)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TickstreamError(f"{path}: is damaged; delete it") from error
