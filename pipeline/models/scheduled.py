"""Trainings by a schedule: which one is due, what is asked of it, and what comes of it."""

import json
from dataclasses import dataclass
from enum import StrEnum

from pipeline.errors import MisuseError, RefusedError
from pipeline.models.jobs import Trained
from pipeline.models.registry import FeatureSetOf
from pipeline.models.settling import settle
from pipeline.settings import RANGE_LONGEST, Settings
from pipeline.stages.equity import parse_period
from pipeline.store.jobs import Kind, NewJob
from pipeline.store.pool import Pool
from schemas.times import format_rfc3339


class Outcome(StrEnum):
    """What came of a training."""

    PROMOTED = "promoted"
    KEPT = "kept"
    SKIPPED = "skipped"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Came:
    """What came of a training, and why; `better` than the champion or, without one, the base rate.

    No version where nothing was trained, no n (rows) where nothing could be compared.
    """

    outcome: Outcome
    why: str
    version: str | None = None
    champion: str | None = None
    n: int | None = None
    better: bool | None = None


def due(settings: Settings, now: int) -> NewJob:
    """The training of the present turn (now in ns): of the range that ended when the turn began.

    So every attempt at it, and every service with the same settings, means the same one.

    Raises:
        MisuseError: no schedule is set.
    """
    asked = settings.training
    if asked.every is None:
        raise MisuseError("training.every is not set")
    every = parse_period(asked.every)
    end = now // every * every
    named = asked.model_dump(exclude={"every", "range", "source"}, mode="json")
    arguments = {
        "source": asked.source,
        "from": max(end - parse_period(asked.range, RANGE_LONGEST), 0),
        "to": end,
        "bar": None,
        "settings": [f"training.{name}={json.dumps(value)}" for name, value in named.items()],
    }
    return NewJob(
        Kind.TRAINING,
        arguments,
        f"schedule:{asked.model}",
        format_rfc3339(end),
        settings.chain.fingerprint(),
    )


async def judge(
    pool: Pool,
    kafka: str,
    model: str,
    trained: Trained,
    feature_set_of: FeatureSetOf,
    *,
    promote: bool,
    watch: bool = False,
) -> Came:
    """Register, compare and perhaps promote, as `settle`; a refusal is an outcome.

    Raises:
        ConflictError: another version became active meanwhile.
        UnavailableError: a server does not answer.
    """
    version = trained.version.version
    try:
        settled = await settle(
            pool, kafka, model, trained, feature_set_of, promote=promote, watch=watch
        )
    except RefusedError as error:
        return Came(Outcome.REFUSED, str(error), version)
    comparison = settled.comparison
    return Came(
        Outcome.KEPT if settled.change is None else Outcome.PROMOTED,
        settled.why,
        version,
        settled.champion,
        None if comparison is None else comparison.n,
        None if comparison is None else comparison.better,
    )
