"""Peers in environments of their own, so that their pins do not meet ours."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from platformdirs import user_cache_path


def scripts(repository: Path) -> Path:
    """The directory of the peers' scripts; without it the bench is skipped, loudly."""
    found = repository.parent / "shared" / "peers"
    if not found.is_dir():
        pytest.skip(f"NO PEERS: {found} is missing")
    return found


def environment(name: str, packages: Sequence[str]) -> Path:
    """The interpreter of a peer's environment; the bench is skipped, loudly, without it."""
    python = installed(name, packages)
    if python is None:
        pytest.skip(absent(name))
    return python


def absent(name: str) -> str:
    """What a bench says where it goes without a peer."""
    return f"NO PEER: {name} cannot be installed"


def installed(name: str, packages: Sequence[str]) -> Path | None:
    """The interpreter of a peer's environment, made once under the user's cache."""
    home = user_cache_path("tickstream") / "peers" / name
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        done = subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", *packages], check=False
        )
        if done.returncode:
            return None
        (home / "ready").touch()
    return python


def measured(python: Path, script: Path, data: Path, *arguments: str) -> list[dict[str, Any]]:
    """The lines that a peer's script reports."""
    done = subprocess.run(
        [str(python), script.name, *arguments],
        cwd=script.parent,
        env={"PATH": os.defpath, "PB_DATA": str(data), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
