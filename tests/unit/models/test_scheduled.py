"""Which training is due: the same for every service, and for every attempt at it."""

import pytest

from pipeline.errors import MisuseError
from pipeline.models.scheduled import due
from pipeline.settings import load_settings
from pipeline.store.jobs import Kind
from schemas.times import parse_rfc3339

DAY = 86_400 * 10**9
NOON = parse_rfc3339("2026-03-04T12:00:00Z")


def test_a_turn_is_a_range_that_has_ended() -> None:
    """Whenever it is asked for within the turn; the next turn is another one."""
    settings = load_settings(
        ["training.every=1d", "training.range=7d", 'training.symbols=["A"]', "training.embargo=9"]
    )
    job = due(settings, NOON)
    midnight = NOON - DAY // 2
    assert (job.arguments["from"], job.arguments["to"]) == (midnight - 7 * DAY, midnight)
    assert (job.kind, job.key) == (Kind.TRAINING, "2026-03-04T00:00:00.000000000Z")
    assert (job.principal, job.fingerprint) == ("schedule:gbdt", settings.chain.fingerprint())
    assert due(settings, midnight) == due(settings, midnight + DAY - 1) == job
    assert due(settings, midnight + DAY).key == "2026-03-05T00:00:00.000000000Z"
    # What it is trained by goes with it, whatever runner does it.
    asked = load_settings(job.arguments["settings"]).training
    assert asked == settings.training.model_copy(update={"every": None, "range": "30d"})


def test_a_range_longer_than_there_was_time() -> None:
    """It begins where time does."""
    job = due(load_settings(["training.every=6h", "training.range=36500d"]), NOON)
    assert (job.arguments["from"], job.arguments["to"]) == (0, NOON)


def test_what_cannot_be_meant() -> None:
    """A period that is none, a year and more between trainings, no schedule at all."""
    for text in ("every=sometimes", "every=0d", "every=367d", "range=0d", "model=A B"):
        with pytest.raises(MisuseError, match=f"setting training.{text.split('=', maxsplit=1)[0]}"):
            load_settings([f"training.{text}"])
    with pytest.raises(MisuseError, match=r"training\.every is not set"):
        due(load_settings(), NOON)
