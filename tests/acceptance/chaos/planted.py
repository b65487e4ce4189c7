"""A worker with a known bug, for chaos to catch: `python -m tests.acceptance.chaos.planted NAME`.

The bugs are planted from outside, in this process only; the product has no hooks for them.
"""

import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final

from agents.ports import Arrived
from agents.source import FaustSource
from agents.worker import main
from pipeline.store import live
from pipeline.store.live import LiveStore, PartitionBatch

ACK_FIRST: Final = "ack-before-commit"
MARK_APART: Final = "mark-not-in-the-transaction"
UNFENCED: Final = "unfenced-zombie"
_statement: Final[Callable[[str], str]] = vars(live)["statement"]
_STORED_MARKS: Final = """(SELECT array_agg(p.mark ORDER BY n) FROM progress p
 JOIN unnest($2::int[]) WITH ORDINALITY AS w(partition, n) USING (partition) WHERE service = $1)"""
_MOVE: Final = "UPDATE progress SET mark = $3 WHERE service = $1 AND partition = $2"


def _replace(name: str, text: str) -> None:
    """Have the store find another statement under a name."""
    assert _statement(name) != text

    def statement(asked: str) -> str:
        return text if asked == name else _statement(asked)

    setattr(live, "statement", statement)  # noqa: B010 -- planted on purpose


def ack_first() -> None:
    """Messages are acknowledged as they arrive."""
    batches, ack = FaustSource.batches, FaustSource.ack

    async def early(self: FaustSource) -> AsyncIterator[Sequence[Arrived]]:
        async for arrived in batches(self):
            await ack(self, len(arrived))
            yield arrived

    async def done(_: FaustSource, __: int) -> None:
        return

    _plant(FaustSource, batches=early, ack=done)


def mark_apart() -> None:
    """Rows are committed in one transaction, their mark in the next one."""
    commit, move = LiveStore.commit, _statement("move_marks")
    # Of the two: the check stays, the new marks are the stored ones.
    _replace(
        "move_marks",
        move.replace("$5", f"CASE WHEN $5::bigint[] <> '{{}}' THEN {_STORED_MARKS} END"),
    )

    async def twofold(self: LiveStore, batches: Sequence[PartitionBatch]) -> None:
        await commit(self, batches)
        for batch in batches:
            await self._pool.execute(_MOVE, self._service, batch.partition, batch.mark)

    _plant(LiveStore, commit=twofold)


def unfenced() -> None:
    """A claim leaves the epoch as it is: an older owner cannot be told from a newer one."""
    fenced = _statement("claim")
    _replace("claim", fenced.replace("progress.epoch + 1", "progress.epoch"))


def _plant(where: type[Any], **methods: Any) -> None:
    for name, method in methods.items():
        assert hasattr(where, name)
        setattr(where, name, method)


BUGS: Final[Mapping[str, Callable[[], None]]] = {
    ACK_FIRST: ack_first,
    MARK_APART: mark_apart,
    UNFENCED: unfenced,
}

if __name__ == "__main__":
    BUGS[sys.argv.pop(1)]()
    main()
