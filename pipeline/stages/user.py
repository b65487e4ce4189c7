"""A user's own files: what is given to them, and what they declare when they are run."""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, field_validator

from pipeline.errors import MisuseError

USER_MODULE: Final = "tickstream_user_features"
FEATURE, ENGINE = "_feature", "_engine"  # attributes of what is declared
_DECORATORS: Final = {FEATURE: "feature with @feature", ENGINE: "engine with @engine"}
Parameter = bool | int | float | str
P = TypeVar("P", bool, int, float, str)


class _Parameters:
    """What is given to the files that are being run, and what they asked for."""

    def __init__(self, given: Mapping[str, Parameter]) -> None:
        self.given = given
        self.asked: set[str] = set()


_PARAMETERS: ContextVar[_Parameters] = ContextVar("parameters")


def parameter(name: str, default: P) -> P:
    """A number or word of the user's file that `user.parameters.NAME` replaces.

    Ask for it once, at the top of the file, as in `FAST = parameter("fast", 20)`.

    Raises:
        MisuseError: what was given is of another type than the default.
    """
    known = _PARAMETERS.get(None)
    if known is None:
        return default
    known.asked.add(name)
    value = known.given.get(name, default)
    if type(default) is float and type(value) is int:
        value = float(value)
    if type(value) is not type(default):
        kind = type(default).__name__
        raise MisuseError(f"user.parameters.{name}: {value!r} is no {kind}, as {default!r} is")
    return value


class UserFile(BaseModel):
    """A file of features or engines with its text, so that a manifest holds what was run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    source: str


class UserSettings(BaseModel):
    """The user's own features and engines, given as paths and kept as sources, and parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    features: tuple[UserFile, ...] = ()
    engines: tuple[UserFile, ...] = ()
    parameters: tuple[tuple[str, Parameter], ...] = ()

    @field_validator("parameters", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        """A mapping as pairs in the order of names."""
        return tuple(sorted(value.items())) if isinstance(value, dict) else value


@lru_cache(maxsize=16)
def declared(settings: UserSettings) -> Mapping[str, tuple[Any, ...]]:
    """Run the files, once, for every partition has a chain; what they declare, FEATURE and ENGINE.

    Raises:
        MisuseError: a file cannot be run or declares nothing, or a parameter is not asked for.
    """
    parameters = _Parameters(dict(settings.parameters))
    before = _PARAMETERS.set(parameters)
    try:
        found = {
            FEATURE: tuple(_run(settings.features, FEATURE)),
            ENGINE: tuple(_run(settings.engines, ENGINE)),
        }
    finally:
        _PARAMETERS.reset(before)
    for name in parameters.given:
        if name not in parameters.asked:
            raise MisuseError(
                f"user.parameters.{name}: no file of user.features or user.engines asks for it"
            )
    return found


def _run(files: Sequence[UserFile], kind: str) -> list[Any]:
    """What the files declare of a kind, in their order."""
    found: list[Any] = []
    for file in files:
        namespace: dict[str, Any] = {"__name__": USER_MODULE}
        try:
            exec(compile(file.source, file.path, "exec"), namespace)  # noqa: S102 -- the user's own code, named by the user
        except MisuseError as error:
            raise MisuseError(f"{file.path}: {error}") from error
        except Exception as error:
            raise MisuseError(f"{file.path}: {type(error).__name__}: {error}") from error
        own = [getattr(value, kind) for value in namespace.values() if hasattr(value, kind)]
        if not own:
            raise MisuseError(f"{file.path}: declares no {_DECORATORS[kind]}")
        found += own
    return found
