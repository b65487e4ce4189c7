"""Replay of a file, of a stretch of the topic or of the stored ticks through the chain."""

from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Protocol

from pipeline.bus.ranges import Range, Request
from pipeline.disk import digest
from pipeline.errors import MisuseError
from pipeline.models.activations import NONE_PLANNED, Planned, of_live_run
from pipeline.replay.kept import open_topic
from pipeline.replay.merging import Portions, merged
from pipeline.replay.messages import Read, Stream, from_broker
from pipeline.replay.output import ReplayOutput
from pipeline.settings import Settings
from pipeline.sources.extent import estimated_rows
from pipeline.sources.files import AS_IT_IS, Reading, read_arrivals
from pipeline.stages.chain import Chain
from pipeline.store.pool import Pool, pooled
from pipeline.store.stored import stored_ticks
from schemas.gbdt import GBDT
from schemas.models import HMM
from schemas.topics import PRICES

TOPIC: Final = f"kafka:{PRICES}"
STORED: Final = "postgres:ticks"
_FETCH: Final = 16_384  # stored ticks fetched at once: Python objects, before they are columns


class Progress(Protocol):
    """Told how many ticks came so far, and which share of all that is."""

    def __call__(self, count: int, share: float | None = None) -> None:
        """Told again and again."""


def quiet(count: int, share: float | None = None) -> None:
    """Progress that nobody watches."""


def _settings_facts(settings: Settings, planned: Planned = NONE_PLANNED) -> dict[str, Any]:
    chain = settings.chain
    hmm = chain.regimes.hmm
    models: dict[str, Any] = {HMM: hmm.version} if hmm is not None else {}
    if planned:
        models[GBDT] = [
            {"partition": partition, **asdict(one.activation)}
            for partition, found in sorted(planned.items())
            for one in found
        ]
    return {
        "settings": chain.model_dump(mode="json"),
        "settings_hash": chain.fingerprint(),
        "models": models,
    }


def replay_file(
    path: Path,
    out: Path,
    settings: Settings,
    progress: Progress = quiet,
    reading: Reading = AS_IT_IS,
) -> dict[str, Any]:
    """Replay a tick file; what its end leaves open is closed. Returns the manifest.

    Raises:
        MisuseError: the file cannot be read or the output not written.
    """
    chain = Chain(settings.chain)
    rows = 0
    total = estimated_rows(path)
    with ReplayOutput(out, settings.replay.row_group) as output:
        for came in read_arrivals(path, settings.replay.block, reading):
            block = chain.step(came)
            output.write(block.rows)
            output.reject(0, block.rejects)
            rows += len(came)
            progress(rows, min(rows / total, 1.0) if total else None)
        if rows:
            output.write(chain.finish(rows).rows)
        source = {"file": path.name, "rows": rows, "sha256": digest(path)}
        return output.finish({"inputs": [source], **_settings_facts(settings)})


async def replay_topic(
    bootstrap: str,
    ranges: Mapping[int, Range],
    out: Path,
    settings: Settings,
    progress: Progress = quiet,
    read: Read | None = None,
    planned: Planned = NONE_PLANNED,
) -> dict[str, Any]:
    """Replay stretches of `prices`, merged by event time; open bars stay open.

    The state begins empty at the start of each stretch. `read` may take messages from elsewhere
    than the broker; `planned` says by which versions of gbdt each partition speaks from where on.
    Returns the manifest.

    Raises:
        UnavailableError: the broker does not answer.
    """
    reader = from_broker(bootstrap) if read is None else read
    block = max(1, settings.replay.block // max(1, len(ranges)))
    streams = {n: Stream(reader, n, span, block) for n, span in sorted(ranges.items())}
    total = sum(high - low for low, high in ranges.values())
    first = sum(low for low, _ in ranges.values())

    def told(count: int) -> None:
        done = sum(stream.next for stream in streams.values()) - first
        progress(count, done / total if total else None)

    def inputs() -> list[dict[str, Any]]:
        return [{"topic": PRICES, **stream.facts()} for stream in streams.values()]

    portions = {n: stream.portions() for n, stream in streams.items()}
    return await _replay_lanes(portions, out, settings, told, inputs, planned)


async def replay_request(
    kafka: str | None,
    postgres: str | None,
    request: Request,
    out: Path,
    settings: Settings,
    progress: Progress = quiet,
    home: Path | None = None,
) -> dict[str, Any]:
    """Replay what is asked of `prices`, `home` as for `open_topic`; with a Postgres as it ran live.

    That is: by the versions of gbdt that spoke. Returns the manifest; raises as `open_topic` and
    `replay_topic`.
    """
    stretch, read = await open_topic(kafka, request, home)
    planned = NONE_PLANNED
    if postgres is not None:
        async with pooled(postgres, settings.store) as pool:
            planned = await of_live_run(pool, settings, stretch.ranges)
    return await replay_topic(kafka or "", stretch.ranges, out, settings, progress, read, planned)


async def replay_stored(
    pool: Pool,
    out: Path,
    settings: Settings,
    progress: Progress = quiet,
    start: int | None = None,
    end: int | None = None,
) -> dict[str, Any]:
    """Replay the live ticks in Postgres with start <= event time < end (ns), merged by event time.

    Versions of gbdt speak as they did live.
    The rows of every stage are those of a replay of their messages, bit for bit, but for what is
    not stored: rejected ticks (they change counts only) and renames (`was`). A corporate action is
    told by the product of its factors; a factor that this does not give to the last bit may move
    the last bit of what is learnt across it. Returns the manifest.

    Raises:
        UnavailableError: Postgres does not answer.
    """
    async with stored_ticks(pool, start, end) as stored:
        extents = await stored.extents()
        total = sum(count for _, _, count in extents.values())
        block = max(1, min(settings.replay.block, _FETCH) // max(1, len(extents)))
        inputs = [
            {"table": "ticks", "partition": n, "from": low, "to": high + 1, "rows": count}
            for n, (low, high, count) in extents.items()
        ]

        async def portions(partition: int) -> Portions:
            async for came in stored.arrivals(partition, block):
                yield came, ()

        return await _replay_lanes(
            {n: portions(n) for n in extents},
            out,
            settings,
            lambda count: progress(count, count / total if total else None),
            lambda: inputs,
            await of_live_run(pool, settings, extents),
        )


async def _replay_lanes(
    portions: Mapping[int, Portions],
    out: Path,
    settings: Settings,
    progress: Callable[[int], None],
    inputs: Callable[[], list[dict[str, Any]]],
    planned: Planned,
) -> dict[str, Any]:
    with ReplayOutput(out, settings.replay.row_group) as output:
        async with aclosing(merged(portions, settings.chain, planned)) as steps:
            async for step in steps:
                output.write(step.rows)
                for partition, reject in step.rejects:
                    output.reject(partition, [reject])
                progress(step.ticks)
        return output.finish({"inputs": inputs(), **_settings_facts(settings, planned)})


def parse_input(text: str) -> Path | str:
    """`kafka:prices` and `postgres:ticks` as they are, anything else as the path of a file."""
    scheme, colon, _ = text.partition(":")
    if colon and scheme in {"kafka", "postgres"}:
        if text not in {TOPIC, STORED}:
            raise MisuseError(f"{text}: only {TOPIC} and {STORED} can be replayed")
        return text
    return Path(text)
