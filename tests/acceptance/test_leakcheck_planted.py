"""Every planted leak is found, and its column named."""

import pytest

from pipeline.replay.leakcheck import check
from pipeline.replay.leakcheck_plan import Plan
from pipeline.stages.chain import Chain
from tests.fixtures.leaks import LEAKS, SETTINGS, STORE, Leaky, sample

QUICK = Plan(cuts=60, stretches=0, reruns=0, warm_up=(), canary=0)
FRESH = Plan(cuts=40, stretches=2, stretch=400, reruns=1, warm_up=(), canary=0)


@pytest.fixture(autouse=True)
def _nothing_stored() -> None:
    """What a leak keeps for the process is of one test only."""
    STORE.clear()


def honest() -> Chain:
    """The chain as it is."""
    return Chain(SETTINGS)


@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.name.replace(" ", "-"))
def test_a_planted_leak_is_found(leak: Leaky) -> None:
    """The first leak of the report names the stage and the column."""
    report = check(leak.make, sample, FRESH if leak.fresh else QUICK)
    assert report.leaks, leak.name
    first = report.leaks[0]
    assert (first.stage, first.column) == (leak.stage, leak.reported or leak.column)
    assert first.offset >= 0


def test_leaks_are_many_and_of_different_kinds() -> None:
    """Fifty or more, no two alike."""
    assert len({leak.name for leak in LEAKS}) == len(LEAKS) >= 50


def test_without_a_leak_none_is_found() -> None:
    """The same ticks and settings without a planted leak."""
    report = check(honest, sample, FRESH)
    assert not report.leaks, report.line()
