"""docker-compose.yml: every command in it is one of ours, nothing in it is open to strangers."""

import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from pipeline.cli.main import cli

OURS = ("migrate", "topics", "worker", "api")


@pytest.fixture(scope="module")
def compose(repository: Path) -> dict[str, Any]:
    """The file as Compose reads it, merges done."""
    text = (repository / "docker-compose.yml").read_text(encoding="utf-8")
    found = yaml.safe_load(text)
    assert isinstance(found, dict)
    return found


def _services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


def _ours(compose: dict[str, Any]) -> dict[str, list[str]]:
    """The command lines of the services that are built from this repository."""
    return {
        name: service["command"]
        for name, service in _services(compose).items()
        if "build" in service
    }


def test_every_command_parses(compose: dict[str, Any]) -> None:
    """The command line knows each command and each of its options."""
    ours = _ours(compose)
    assert {command[0] for command in ours.values()} == set(OURS)
    for name, command in ours.items():
        with click.Context(cli) as parent:
            called = cli.get_command(parent, command[0])
            assert called is not None, name
            found = called.make_context(command[0], command[1:], parent=parent)
        assert found.params, name


def test_static_members_have_names_of_their_own(compose: dict[str, Any]) -> None:
    """Two workers of one name would throw each other out of the group."""
    workers = [
        command
        for command in _ours(compose).values()
        if command[0] == "worker" and "--service" not in command
    ]
    names = [word for command in workers for word in command if word.startswith("worker.instance=")]
    assert len(set(names)) == len(workers) > 1


def test_every_image_is_pinned(compose: dict[str, Any]) -> None:
    """A version with at least two numbers, never a moving tag."""
    for name, service in _services(compose).items():
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+(\.\d+)?(-[\w.]+)?", service["image"]), name


def test_no_password_is_in_the_file(compose: dict[str, Any]) -> None:
    """Each comes from the environment and is demanded there; none has a default."""
    demanded = 0
    for service in _services(compose).values():
        for key, value in service.get("environment", {}).items():
            text = str(value)
            assert ":-" not in text, "a default password is everybody's"
            if "PASSWORD" in key or re.search(r"://[^@/]+:[^@/]+@", text):
                assert re.search(r"\$\{POSTGRES_PASSWORD:\?[^}]+\}", text), key
                demanded += 1
    assert demanded


def test_every_port_is_on_loopback(compose: dict[str, Any]) -> None:
    """What is published is bound to 127.0.0.1, and so is the API on the host's network."""
    published = [
        port for service in _services(compose).values() for port in service.get("ports", [])
    ]
    assert published
    assert all(str(port).startswith("127.0.0.1:") for port in published)
    api = _ours(compose)["api"]
    assert api[api.index("--host") + 1] == "127.0.0.1"
    on_host = {n for n, s in _services(compose).items() if s.get("network_mode") == "host"}
    assert on_host <= set(_ours(compose)), "a server on the host's network listens to everybody"


def test_every_dependency_exists(compose: dict[str, Any]) -> None:
    """Services wait for services of the file, and volumes are declared."""
    services = _services(compose)
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in compose["volumes"], name
