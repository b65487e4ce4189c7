"""The jars of Apache Kafka, fetched once from Maven Central by jgo and checked at every start."""

import contextlib
import fcntl
import re
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from pipeline.errors import UnavailableError
from pipeline.servers.server import Say

# slf4j-simple, because without a binding the server's logs vanish; log4j's would bring a parent
# whose managed versions downgrade kafka-clients.
COORDINATE = "org.apache.kafka:kafka_2.13:4.3.1+org.slf4j:slf4j-simple:1.7.36"
NEEDED = ("kafka_2.13-4", "kafka-server-4", "kafka-clients-4", "slf4j-simple-1", "scala-library-2")
PATIENCE = 1.5


def kafka_jars(say: Say) -> list[Path]:
    """The jars, from the cache of jgo or over the network.

    Raises:
        UnavailableError: They are not cached and cannot be fetched.
    """
    try:
        # Imported here: it loads an HTTP client.
        import jgo  # noqa: PLC0415 - see above
    except ImportError as error:
        raise _no_jars(f"the wheel jgo is missing ({error})") from None
    try:
        with _alone(), _announced(say):
            try:
                jars = [Path(jar) for jar in jgo.build(COORDINATE).all_jars]
            except OSError:
                raise  # the network or the disk: another attempt will not help
            except Exception:  # noqa: BLE001 - zip and XML errors of a damaged cache
                jars = []
            if not _complete(jars):
                _drop_broken()
                jars = [Path(jar) for jar in jgo.build(COORDINATE, update=True).all_jars]
    except Exception as error:  # noqa: BLE001 - jgo raises whatever its HTTP client does
        raise _no_jars(str(error)) from None
    if not _complete(jars):
        raise _no_jars("the download is incomplete")
    return jars


def _complete(jars: list[Path]) -> bool:
    names = " ".join(jar.name for jar in jars)
    return all(word in names for word in NEEDED) and all(zipfile.is_zipfile(jar) for jar in jars)


def _drop_broken() -> None:
    """Remove files cut off by a kill in mid-download: jgo writes in place and trusts what is there.

    The resolver's repository and the environment hold the same files, by hard links.
    """
    from jgo.config import GlobalSettings  # noqa: PLC0415 - as jgo itself, when needed

    settings = GlobalSettings.load()
    for root in (Path(settings.repo_cache), Path(settings.cache_dir)):
        for jar in root.rglob("*.jar"):
            if not zipfile.is_zipfile(jar):
                jar.unlink(missing_ok=True)
        for pom in root.rglob("*.pom"):
            if b"</project>" not in pom.read_bytes():
                pom.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Keep two first starts from writing the same files."""
    cache = platformdirs.user_cache_path("tickstream")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "kafka-jars.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _announced(say: Say) -> Iterator[None]:
    """Tell the user what takes so long, if it does."""
    line = "fetching Apache Kafka: the first start takes 45 MB from Maven Central"
    timer = threading.Timer(PATIENCE, say, [line])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _no_jars(reason: str) -> UnavailableError:
    # Of a long story of retries the last cause says it.
    short = re.sub(r"\s+", " ", reason.rpartition("Caused by ")[2]).rstrip(")")[:200]
    return UnavailableError(
        f"the Kafka jars cannot be had ({short}): connect to the internet for the first start, "
        f"or set TICKSTREAM_KAFKA to an existing broker"
    )
