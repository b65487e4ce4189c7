"""Servers that a chaos session may kill, the seeds of its runs, and its summary of recoveries."""

from collections.abc import Iterator

import pytest

from pipeline.errors import UnavailableError
from pipeline.servers import start_servers
from tests.acceptance.chaos.scripts import RUNS
from tests.acceptance.chaos.world import Ground

_GROUND = pytest.StashKey[Ground]()


@pytest.fixture(scope="session")
def ground(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ground]:
    """Embedded servers of our own: others in this session must not see them die."""
    home = tmp_path_factory.mktemp("chaos")
    try:
        fleet = start_servers(home / "data")
    except UnavailableError as error:
        if request.config.getoption("--require-servers"):
            raise
        pytest.skip(f"NO SERVERS: {error}")
    with fleet:
        made = Ground(fleet, home)
        request.config.stash[_GROUND] = made
        yield made


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a run, named by its seed."""
    if "chaos_seed" in metafunc.fixturenames:
        first = int(metafunc.config.getoption("--chaos-seed"))
        soak = metafunc.definition.get_closest_marker("soak") is not None
        default = 300 if soak else RUNS
        count = metafunc.config.getoption("--chaos-runs")
        metafunc.parametrize("chaos_seed", range(first, first + (count or default)))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Seconds from each kind of fault to the first new row."""
    ground = config.stash.get(_GROUND, None)
    if ground is not None and ground.recoveries.seconds:
        terminalreporter.section("chaos: seconds to the first new row")
        terminalreporter.line(f"{'fault':24} {'n':>4} {'min':>7} {'median':>6} {'max':>6}")
        for line in ground.recoveries.lines():
            terminalreporter.line(line)
