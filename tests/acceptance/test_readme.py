"""The README's examples, run as they are printed, against a live stack."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance import evidence
from tests.acceptance.commands import Up, environment, tickstream, up, wait_until

README = Path(__file__).resolve().parents[2] / "README.md"
MARKED = re.compile(r"<!-- run: (?P<name>\w+) -->\n```(?P<kind>\w+)\n(?P<text>.*?)```", re.DOTALL)
MARKS = re.compile(r"<!-- run:")

pytestmark = pytest.mark.timeout(180)


@dataclass(frozen=True, slots=True)
class Snippet:
    """A marked fence of the README."""

    name: str
    kind: str
    text: str

    def command(self) -> list[str]:
        """What runs it."""
        if self.kind == "python":
            return [sys.executable, "-W", "error", "-c", self.text]
        return ["bash", "-euo", "pipefail", "-c", self.text]


def _snippets() -> list[Snippet]:
    return [Snippet(**found.groupdict()) for found in MARKED.finditer(README.read_text("utf-8"))]


@pytest.fixture(scope="module")
def live(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Servers, a worker and the API, with the sample through all stages."""
    home = tmp_path_factory.mktemp("readme")
    with up(home / "data", home / "up.log") as running:
        done = tickstream("publish", sample, "--data-dir", home / "data")
        assert done.returncode == 0, done.stderr
        wait_until(
            lambda: asyncio.run(evidence.drained(running.addresses)), 60, "the sample in all stages"
        )
        yield running


def test_every_mark_has_its_fence() -> None:
    """At least three examples are marked, each under a name of its own, as Python or shell."""
    snippets = _snippets()
    assert len(snippets) == len(MARKS.findall(README.read_text("utf-8"))) >= 3
    assert len({snippet.name for snippet in snippets}) == len(snippets)
    assert {snippet.kind for snippet in snippets} <= {"python", "sh", "bash"}
    assert {"signals", "redis"} <= {snippet.name for snippet in snippets}


@pytest.mark.parametrize("snippet", _snippets(), ids=lambda snippet: snippet.name)
def test_the_example_works_as_printed(snippet: Snippet, live: Up, tmp_path: Path) -> None:
    """From an empty directory, addresses in the environment: exit code 0, no word of trouble."""
    values = environment(live.values())
    values["PATH"] = f"{Path(sys.executable).parent}:{values['PATH']}"
    done = subprocess.run(
        snippet.command(),
        cwd=tmp_path,
        env=values,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert '"errors"' not in done.stdout
    if snippet.name != "publish":
        assert done.stdout.strip(), "an example that reads shows something"
