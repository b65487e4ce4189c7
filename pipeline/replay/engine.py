"""Replay of a file or of a stretch of the topic through the chain."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pipeline.bus.decoding import new_decoder
from pipeline.bus.ranges import Range, read_ranges
from pipeline.errors import MisuseError
from pipeline.replay.output import ReplayOutput, digest
from pipeline.settings import Settings
from pipeline.sources.files import AS_IT_IS, Reading, read_arrivals
from pipeline.stages.chain import Chain
from schemas.arrivals import Message
from schemas.topics import PRICES

Progress = Callable[[int], None]  # ticks or messages so far


def _quiet(_: int) -> None:
    return


def _settings_facts(settings: Settings) -> dict[str, Any]:
    chain = settings.chain
    return {
        "settings": chain.model_dump(mode="json"),
        "settings_hash": chain.fingerprint(),
        "models": {},
    }


def replay_file(
    path: Path,
    out: Path,
    settings: Settings,
    progress: Progress = _quiet,
    reading: Reading = AS_IT_IS,
) -> dict[str, Any]:
    """Replay a tick file; what its end leaves open is closed. Returns the manifest.

    Raises:
        MisuseError: the file cannot be read or the output not written.
    """
    chain = Chain(settings.chain)
    rows = 0
    with ReplayOutput(out, settings.replay.row_group) as output:
        for came in read_arrivals(path, settings.replay.block, reading):
            block = chain.step(came)
            output.write(block.rows)
            output.reject(0, block.rejects)
            rows += len(came)
            progress(rows)
        if rows:
            output.write(chain.finish(rows).rows)
        source = {"file": path.name, "rows": rows, "sha256": digest(path)}
        return output.finish({"inputs": [source], **_settings_facts(settings)})


_GATHER: Final = 2000


async def replay_topic(
    bootstrap: str,
    ranges: Mapping[int, Range],
    out: Path,
    settings: Settings,
    progress: Progress = _quiet,
) -> dict[str, Any]:
    """Replay stretches of `prices`, partition by partition; open bars stay open.

    The state begins empty at the start of each stretch. Returns the manifest.

    Raises:
        UnavailableError: the broker does not answer.
    """
    seen = 0
    with ReplayOutput(out, settings.replay.row_group) as output:
        for partition in sorted(ranges):
            chain = Chain(settings.chain, partition)
            decoder = new_decoder(partition)
            stretch = {partition: ranges[partition]}
            async for _, messages in read_ranges(bootstrap, PRICES, stretch):
                for part in _portions(messages, settings.replay.block):
                    block = chain.step(*decoder.decode(part))
                    output.write(block.rows)
                    output.reject(partition, block.rejects)
                    seen += len(block.arrivals)
                progress(seen)
        inputs = [
            {"topic": PRICES, "partition": partition, "from": low, "to": high}
            for partition, (low, high) in sorted(ranges.items())
        ]
        return output.finish({"inputs": inputs, **_settings_facts(settings)})


def _portions(messages: list[Message], size: int) -> list[list[Message]]:
    step = min(size, _GATHER)
    return [messages[start : start + step] for start in range(0, len(messages), step)]


def parse_input(text: str) -> Path | str:
    """`kafka:prices` as the topic's name, anything else as a path."""
    scheme, colon, topic = text.partition(":")
    if colon and scheme == "kafka":
        if topic != PRICES:
            raise MisuseError(f"{text}: only kafka:{PRICES} can be replayed")
        return topic
    return Path(text)
