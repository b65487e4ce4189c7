"""Marks by folder, and the servers that a test run brings itself."""

import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

from pipeline.cache.latest import Cache, open_cache
from pipeline.errors import UnavailableError
from pipeline.servers import Addresses, Fleet, start_servers
from pipeline.servers.containers import start_containers
from pipeline.settings import CacheSettings, StoreSettings, samples_directory
from pipeline.store.pool import Pool, open_pool
from schemas.blocks import own_columns
from tests.fixtures.databases import bare_database, fresh_database

# Started in the background by a script, this process ignores Ctrl-C, and so would every command
# that a test starts and then interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parent.parent
# The first example of a test may have to wait for numba.
settings.register_profile("tickstream", deadline=None)
settings.load_profile("tickstream")
# With rich, structlog would draw the variables of every frame of each fault that a test provokes.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        ),
    ]
)
_FOLDERS = ("integration", "acceptance", "bench")

for _name in [name for name in os.environ if name.startswith("TICKSTREAM_")]:
    if _name not in {
        "TICKSTREAM_SAMPLES",
        "TICKSTREAM_USER__FEATURES",  # the contract suite over a user's own
        "TICKSTREAM_USER__ENGINES",
        "TICKSTREAM_KAFKA",
        "TICKSTREAM_POSTGRES",
        "TICKSTREAM_REDIS",
    }:
        del os.environ[_name]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Our own switches."""
    parser.addoption(
        "--require-servers", action="store_true", help="A missing server is a failure."
    )
    parser.addoption("--containers", action="store_true", help="Servers from testcontainers.")
    parser.addoption("--chaos-seed", type=int, default=1, help="First seed of the chaos runs.")
    parser.addoption("--chaos-runs", type=int, help="How many chaos runs; 25, in a soak 300.")
    parser.addoption("--simulation-schedules", type=int, help="2,000; in a soak 100,000.")
    parser.addoption("--simulation-seed", type=int, help="One schedule only, by its seed.")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Iterator[None]:
    """A test is what its folder says: nobody can forget the marker.

    Of several processes each takes the longest file that is left, so that none ends alone.
    """
    for item in items:
        parts = item.path.relative_to(REPOSITORY / "tests").parts
        for folder in _FOLDERS:
            if folder in parts:
                item.add_marker(folder)
    yield  # those that are not asked for are left out
    if hasattr(config, "workerinput"):
        items[:] = longest_first(items)


def longest_first(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Tests by file: the files whose tests may take longest, of these the ones with most tests."""
    limits: dict[Path, float] = {}
    counts = Counter(item.path for item in items)
    for item in items:
        limit = item.get_closest_marker("timeout")
        seconds = limit.args[0] if limit else 0
        limits[item.path] = max(seconds, limits.get(item.path, 0))
    return sorted(items, key=lambda item: (-limits[item.path], -counts[item.path]))


@pytest.fixture(autouse=True)
def _columns_as_before_the_test() -> Iterator[None]:
    """A user's columns live as long as the process; other tests know none of them."""
    with own_columns():
        yield


@pytest.fixture(autouse=True, scope="module")
def _columns_as_before_the_module() -> Iterator[None]:
    """Likewise those that a fixture of a module brings."""
    with own_columns():
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def samples() -> Path:
    """The directory of real price samples; without it the test is skipped, loudly."""
    found = samples_directory() or REPOSITORY.parent / "shared" / "data"
    if not found.is_dir():
        pytest.skip(f"NO SAMPLES: {found} is missing; set TICKSTREAM_SAMPLES")
    return found


@pytest.fixture(scope="session")
def oracles() -> Path:
    """The directory of expected values; without it the test is skipped, loudly."""
    found = (samples_directory() or REPOSITORY.parent / "shared" / "data").parent / "oracles"
    if not (found / "expected").is_dir():
        pytest.skip(f"NO ORACLES: {found} is missing")
    return found / "expected"


@pytest.fixture(scope="session")
def sample() -> Path:
    """The bundled sample of the demo: 120,000 trades of ES."""
    return REPOSITORY / "pipeline" / "sources" / "samples" / "es_trades_20130901.csv.gz"


@pytest.fixture(scope="session")
def fleet(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Fleet]:
    """The three embedded servers, or the ones that the environment names, for the whole run."""
    named = {
        name: os.environ.get(f"TICKSTREAM_{name.upper()}")
        for name in ("kafka", "postgres", "redis")
    }
    try:
        running = start_servers(
            tmp_path_factory.mktemp("fleet"),
            kafka=named["kafka"],
            postgres=named["postgres"],
            redis=named["redis"],
        )
    except UnavailableError as error:
        if request.config.getoption("--require-servers"):
            raise
        pytest.skip(f"NO SERVERS: {error}")
    with running:
        yield running


@pytest.fixture(scope="session")
def addresses(request: pytest.FixtureRequest) -> Iterator[Addresses]:
    """Where the servers of this run are; from containers when --containers asks for that."""
    if request.config.getoption("--containers"):
        with start_containers() as containers:
            yield containers.addresses
        return
    fleet: Fleet = request.getfixturevalue("fleet")
    yield fleet.addresses


@pytest.fixture
async def postgres(addresses: Addresses, worker_id: str) -> AsyncIterator[str]:
    """The DSN of a fresh, migrated database of this test's own."""
    ours = "TICKSTREAM_POSTGRES" not in os.environ
    template = f"template_{worker_id}"
    async with fresh_database(addresses.postgres, template, ours=ours) as dsn:
        yield dsn


@pytest.fixture
async def bare(addresses: Addresses) -> AsyncIterator[str]:
    """The DSN of a fresh database without any table."""
    async with bare_database(addresses.postgres) as dsn:
        yield dsn


@pytest.fixture
async def pool(postgres: str) -> AsyncIterator[Pool]:
    """Connections to the test's own database."""
    opened = await open_pool(postgres, StoreSettings())
    yield opened
    await opened.close()


@pytest.fixture
async def cache(addresses: Addresses) -> AsyncIterator[Cache]:
    """An empty cache in a logical database that only sequential tests share."""
    patient = CacheSettings(timeout=10.0)  # a machine that others keep busy is no fault of ours
    opened = open_cache(addresses.redis.rsplit("/", 1)[0] + "/15", patient)
    await opened._client.flushdb()
    yield opened
    await opened.close()


@pytest.fixture
def worker_id(request: pytest.FixtureRequest) -> str:
    """The xdist worker, or main."""
    return str(getattr(request.config, "workerinput", {}).get("workerid", "main"))
