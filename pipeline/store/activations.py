"""From which tick of a partition on which versions speak: planned before anything of it is seen."""

import json
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.errors import FencedError
from pipeline.store.pool import Connection, Pool
from pipeline.store.statements import statement
from schemas.models import Activation


class Planned(NamedTuple):
    """An activation of a partition, by its owner of an epoch."""

    partition: int
    epoch: int
    activation: Activation


async def activations(
    connection: "Connection | Pool", service: str, partition: int
) -> list[Activation]:
    """What was planned of a partition, in the order of the places."""
    rows = await connection.fetch(statement("activations"), service, partition)
    return [Activation(**{**row, "selected": json.loads(row["selected"])}) for row in rows]


async def plan(connection: Connection, service: str, planned: Sequence[Planned]) -> None:
    """Store activations within a transaction; what is there already stays.

    Raises:
        FencedError: a partition has a newer owner.
    """
    # Locked: who claims a partition meanwhile sees what is planned, or we see the claim.
    partitions = sorted({one.partition for one in planned})
    rows = await connection.fetch(statement("lock_progress"), service, partitions)
    epochs = {row["partition"]: row["epoch"] for row in rows}
    for partition, epoch, _ in planned:
        if epochs.get(partition) != epoch:
            raise FencedError(f"partition {partition} has a newer owner")
    told = [
        (
            partition, *one.place, one.model, one.generation, one.version, one.shadow,
            json.dumps(dict(one.selected)),
        )
        for partition, _, one in planned
    ]  # fmt: skip
    columns = [list(column) for column in zip(*told, strict=True)]
    await connection.execute(statement("add_activations"), service, *columns)
