"""Chaos is worth something only if it finds the bugs that it is made for: three are planted."""

import asyncio

import pytest

from tests.acceptance.chaos import scripts
from tests.acceptance.chaos.planted import ACK_FIRST, MARK_APART, UNFENCED
from tests.acceptance.chaos.play import run
from tests.acceptance.chaos.world import Ground, world

RUNS = 25

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize(
    ("bug", "kinds", "shows"),
    [
        (ACK_FIRST, (scripts.FULL, scripts.KILL_IN_COMMIT), {"committed ahead of the mark"}),
        (MARK_APART, (scripts.CUT, scripts.KILL), {"twice"}),
        (UNFENCED, (scripts.ZOMBIE,), {"twice"}),
    ],
)
def test_a_planted_bug_is_caught(
    ground: Ground,
    bug: str,
    kinds: tuple[str, ...],
    shows: set[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Within twenty-five runs of the faults that could reveal it, the checks name what it does."""
    with world(ground, "tests.acceptance.chaos.planted", bug, patience=10.0) as here:
        for number in range(1, RUNS + 1):
            verdict = asyncio.run(run(here, scripts.script(number, kinds)))
            found = {kind.partition(" (")[0] for kind in verdict.faults()}
            if found:
                break
    with capsys.disabled():
        print(f"\n{bug}: caught by run {number}: {', '.join(verdict.faults())}")  # noqa: T201 -- worth reading
    assert found & shows, f"{bug}: {verdict.faults()}"
