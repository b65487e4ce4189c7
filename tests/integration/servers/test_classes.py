"""A broker that has started once on a machine starts sooner: from its classes as they lie there."""

from pathlib import Path

import pytest

from pipeline.servers.kafka import KafkaServer
from tests.acceptance.commands import wait_until


@pytest.mark.timeout(300)
def test_the_second_start_is_from_kept_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first start keeps them for the user; a broken file of them keeps nobody from starting."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    server = KafkaServer(tmp_path / "kafka", timeout=180.0)

    def mapped() -> bool:
        return ".jsa" in Path(f"/proc/{server.pid}/maps").read_text()

    def kept() -> list[Path]:
        return list((tmp_path / "cache" / "tickstream" / "java").glob("*.jsa"))

    with server:
        assert not mapped()
        wait_until(lambda: bool(kept()), 120.0, "the classes")
        server.restart()
        assert mapped()
        (archive,) = kept()
        archive.write_bytes(b"no classes")
        server.restart()
        assert not mapped()
