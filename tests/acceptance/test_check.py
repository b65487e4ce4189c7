"""`make check` stands guard: a planted breach of each rule makes the tool that owns it fail."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.commands import environment

BIN = Path(sys.executable).parent
ROOMS = ("schemas", "pipeline", "agents", "api")
LOOSE = ("pyproject.toml", "Makefile", "README.md")

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    """A copy of the code and of what configures the tools."""
    ignore = shutil.ignore_patterns("__pycache__", "*.csv.gz")
    for room in (*ROOMS, "tests/unit", "tests/fixtures"):
        shutil.copytree(repository / room, tmp_path / room, ignore=ignore)
    for name in (*LOOSE, "tests/conftest.py"):
        shutil.copy(repository / name, tmp_path / name)
    return tmp_path


def _run(checkout: Path, tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / tool), *arguments],
        cwd=checkout,
        env={**environment(), "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def _plant(file: Path, text: str, *, first: bool = False) -> None:
    before = file.read_text(encoding="utf-8")
    file.write_text(f"{text}\n{before}" if first else f"{before}\n\n{text}\n", encoding="utf-8")


def test_check_runs_every_tool(repository: Path) -> None:
    """The tools planted against below are those of the target `check`, over everything."""
    found = re.search(
        r"^check:.*\n((?:\t.*\n)+)", (repository / "Makefile").read_text("utf-8"), re.MULTILINE
    )
    assert found
    lines = [line.strip().removeprefix("$(BIN)/") for line in found[1].splitlines()]
    wanted = ("ruff check .", "ruff format --check .", "mypy", "lint-imports", "codespell")
    assert set(wanted) <= set(lines)
    assert any("tests/unit/test_stems.py" in line for line in lines)


@pytest.mark.parametrize(
    ("file", "text", "rule"),
    [
        ("pipeline/errors.py", 'import os\n\nHOME = os.environ["HOME"]', "TID251"),
        ("pipeline/stages/base.py", "import time\n\nNOW = time.time()", "TID251"),
        ("pipeline/errors.py", 'print("so")', "T201"),
        ("agents/ports.py", 'print("so")', "T201"),
        ("schemas/topics.py", "def topics() -> None:\n    return", "D103"),
        ("api/names.py", "x = 1  # noqa", "PGH004"),
    ],
)
def test_ruff_finds_it(checkout: Path, file: str, text: str, rule: str) -> None:
    """The environment, the clock, output, an undocumented function, a blanket exemption."""
    clean = _run(checkout, "ruff", "check", "--no-cache", "--output-format=concise", file)
    assert clean.returncode == 0, clean.stdout
    _plant(checkout / file, text)
    done = _run(checkout, "ruff", "check", "--no-cache", "--output-format=concise", file)
    assert done.returncode == 1, done.stderr
    assert rule in done.stdout


def test_ruff_finds_another_format(checkout: Path) -> None:
    """Single quotes are another format."""
    _plant(checkout / "pipeline/errors.py", "NAME = 'x'")
    assert _run(checkout, "ruff", "format", "--no-cache", "--check", ".").returncode == 1


def test_printing_and_the_environment_have_their_rooms(checkout: Path) -> None:
    """The same lines pass where they belong."""
    _plant(checkout / "pipeline/settings.py", 'HOME = os.environ["HOME"]')
    for file in ("pipeline/settings.py", "pipeline/clock.py"):
        done = _run(checkout, "ruff", "check", "--no-cache", "--select=TID251,T201", file)
        assert done.returncode == 0, done.stdout


def test_mypy_finds_wrong_types(checkout: Path) -> None:
    """A wrong type, a function without types, and a silence without its code."""
    file = "pipeline/errors.py"
    arguments = ("--no-incremental", "--cache-dir=/dev/null", file)
    assert _run(checkout, "mypy", *arguments).returncode == 0
    lines = ('CODE: int = "one"', "def untyped(x):\n    return x", "BAD: int = 1.5  # type: ignore")
    _plant(checkout / file, "\n\n\n".join(lines))
    done = _run(checkout, "mypy", *arguments)
    assert done.returncode == 1, done.stderr
    for code in ("[assignment]", "[no-untyped-def]", "[ignore-without-code]"):
        assert code in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("agents/ports.py", "import api.names", "Four rooms"),
        ("api/names.py", "import agents.ports", "Four rooms"),
        ("schemas/topics.py", "import pipeline.errors", "Four rooms"),
        ("pipeline/stages/base.py", "import asyncio", "Stages and kernels are pure"),
        ("pipeline/kernels/jit.py", "import random", "Stages and kernels are pure"),
        ("pipeline/kernels/jit.py", "import pipeline.bus.topics", "Floors inside pipeline"),
        ("api/names.py", "import asyncpg", "Drivers are opened in their rooms only"),
        ("agents/ports.py", "import aiokafka", "Drivers are opened in their rooms only"),
        ("schemas/topics.py", "import faust", "Schemas import no framework"),
        ("pipeline/bus/topics.py", "import faust", "Faust lives in agents only"),
        ("pipeline/telemetry/logs.py", "import starlette", "The web lives in api only"),
    ],
)
def test_import_linter_finds_it(checkout: Path, file: str, line: str, contract: str) -> None:
    """An import against the layout breaks its contract."""
    _plant(checkout / file, line)
    done = _run(checkout, "lint-imports", "--no-cache")
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{contract} BROKEN" in done.stdout, done.stdout


def test_import_linter_keeps_the_checkout(checkout: Path) -> None:
    """Without a plant every contract is kept; a new module without a floor is none of them."""
    assert _run(checkout, "lint-imports", "--no-cache").returncode == 0
    (checkout / "pipeline/helpers.py").write_text('"""A drawer."""\n', encoding="utf-8")
    done = _run(checkout, "lint-imports", "--no-cache")
    assert "Floors inside pipeline BROKEN" in done.stdout


def _stems(checkout: Path) -> subprocess.CompletedProcess[str]:
    return _run(checkout, "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/test_stems.py")


def test_a_stage_under_another_name_breaks_the_stem_rule(checkout: Path) -> None:
    """The file of a stage renamed, with every import of it following: all still runs, and fails."""
    clean = _stems(checkout)
    assert clean.returncode == 0, clean.stdout
    (checkout / "pipeline/stages/regimes.py").rename(checkout / "pipeline/stages/weather.py")
    for path in checkout.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("pipeline.stages.regimes", "pipeline.stages.weather"))
    done = _stems(checkout)
    assert done.returncode == 1, done.stdout
    assert "test_every_stage_has_its_file[pipeline/stages]" in done.stdout
    assert "test_no_other_file_poses_as_a_stage" in done.stdout


def test_a_missing_stem_in_other_rooms_breaks_the_stem_rule(checkout: Path) -> None:
    """Tests, kernels and GraphQL types bear the words too."""
    (checkout / "tests/unit/stages/test_bars.py").rename(checkout / "tests/unit/stages/test_x.py")
    graphql = checkout / "schemas" / "graphql"
    (graphql / "signals.graphql").rename(graphql / "orders.graphql")
    done = _stems(checkout)
    assert done.returncode == 1, done.stdout
    assert "test_every_stage_has_its_tests" in done.stdout
    assert "test_every_stage_has_its_type" in done.stdout


def test_codespell_finds_it(checkout: Path) -> None:
    """A misspelled word fails the last one."""
    _plant(checkout / "README.md", "to reci" + "eve " + "to recie" + "ve")
    assert _run(checkout, "codespell", "README.md").returncode != 0
