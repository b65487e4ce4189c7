"""Our import names are common words: they must be ours, wherever Python is started."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

PACKAGES = ("schemas", "pipeline", "agents", "api")


@pytest.mark.parametrize("name", PACKAGES)
def test_the_package_is_the_one_of_this_checkout(name: str, repository: Path) -> None:
    """Projects on PyPI claim `agents` and `api`; none of them may be imported instead."""
    found = import_module(name).__file__
    assert found is not None
    assert Path(found).resolve() == repository / name / "__init__.py"


def test_the_packages_are_found_from_any_directory(tmp_path: Path, repository: Path) -> None:
    """The installed command resolves them without the working directory."""
    code = f"import {', '.join(PACKAGES)}; print(*[m.__file__ for m in ({', '.join(PACKAGES)})])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(repository / name / "__init__.py") for name in PACKAGES]


@pytest.mark.parametrize("name", ["schemas", "pipeline.stages.chain", "pipeline.cache.latest"])
def test_the_lower_floors_load_without_faust_and_the_web(name: str) -> None:
    """What import-linter reads from the sources is also true of what is loaded."""
    code = f"import sys, {name}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert name.split(".", maxsplit=1)[0] in loaded
    assert not loaded & {
        "faust",
        "mode",
        "ariadne",
        "starlette",
        "uvicorn",
        "graphql",
        "grpc",
        "agents",
        "api",
    }
