"""What code under check fetches from outside its input: files, sockets, other processes.

A table that is read once and then asked for what comes next gives the same answers wherever the
input is cut: no comparison of runs can see it. Python tells an audit hook of every file it opens.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any, Final

from pipeline.replay.leakcheck_rows import Leak
from pipeline.stages.chain import Chain
from pipeline.stages.custom import Custom, Function
from pipeline.stages.predictions import Predictions
from pipeline.stages.user import USER_MODULE

_EVENTS: Final = frozenset(
    {"open", "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system",
     "sqlite3.connect", "os.listdir", "os.scandir"}
)  # fmt: skip
_CODE: Final = (".py", ".pyc", ".so", ".nbi", ".nbc", ".pth")
_MACHINERY: Final = ("importlib", "_frozen_importlib", "numba", "llvmlite", "zoneinfo", "linecache")
_WHOLE_STAGE: Final = "(whole stage)"


class Audit:
    """Notes who fetched what; one for a process, since a hook stays until its end."""

    def __init__(self) -> None:
        self._on = False
        self._seen: list[tuple[str, tuple[CodeType, ...], bool, str]] = []
        sys.addaudithook(self._note)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note what happens in here."""
        self._on = True
        try:
            yield
        finally:
            self._on = False

    def _note(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._on or event not in _EVENTS:
            return
        what = str(args[0] if event != "socket.connect" else args[-1])
        if isinstance(args[0], int) or what.endswith(_CODE):
            return
        self._on = False  # what looking at frames does is not meant
        try:
            self._place(sys._getframe(1), f"{event} {what}")  # noqa: SLF001 -- the caller's frame has no other door
        finally:
            self._on = True

    def _place(self, frame: FrameType | None, what: str) -> None:
        codes: list[CodeType] = []
        stage, user = "", False
        while frame is not None:
            module = str(frame.f_globals.get("__name__", ""))
            if module.startswith(_MACHINERY):
                return
            codes.append(frame.f_code)
            user |= module == USER_MODULE
            owner = frame.f_locals.get("self")
            if frame.f_code.co_name in {"step", "__init__"} and hasattr(owner, "snapshot"):
                stage = stage or str(getattr(owner, "name", ""))
            frame = frame.f_back
        if stage or user:
            self._seen.append((stage, tuple(codes), user, what))

    def leaks(self, chain: Chain) -> Iterator[Leak]:
        """One leak for each column whose making fetched something."""
        own = list(_own(chain))
        for stage, codes, user, what in self._seen:
            found = _columns(own, codes) if user else []
            for one in found:
                yield Leak("outside", one.stage, one.column, detail=what)
            if not found:
                yield Leak("outside", stage or "features", _WHOLE_STAGE, detail=what)


@dataclass(frozen=True, slots=True)
class _Made:
    """A column that a function of the user's makes, or has learnt for."""

    stage: str
    column: str
    function: Function


def _own(chain: Chain) -> Iterator[_Made]:
    """The user's functions."""
    for stage in chain.stages:
        if isinstance(stage, Custom):
            for one in stage.features:
                yield _Made("features", one.column.name, one.function)
        if isinstance(stage, Predictions):
            for engine in stage.own:
                for function in (engine.function, engine.learn):
                    if function is not None:
                        yield _Made("predictions", f"p_{engine.name}", function)


def _columns(own: list[_Made], codes: tuple[CodeType, ...]) -> list[_Made]:
    """Those whose code is at work, else (a file is being run) those that use its data."""
    found = [one for one in own if _code(one) in codes]
    if not found:
        found = [one for one in own if _uses_data(one)] or own
    return list({(one.stage, one.column): one for one in found}.values())


def _code(one: _Made) -> CodeType | None:
    function = getattr(one.function, "py_func", one.function)
    return getattr(function, "__code__", None)


def _uses_data(one: _Made) -> bool:
    """Whether the function names a value of its file, directly or by a function of the file."""
    function = getattr(one.function, "py_func", one.function)
    names: dict[str, Any] = getattr(function, "__globals__", {})
    waiting, seen = [function], set[int]()
    while waiting:
        code = getattr(waiting.pop(), "__code__", None)
        if code is None or id(code) in seen:
            continue
        seen.add(id(code))
        for value in (names[name] for name in code.co_names if name in names):
            if getattr(value, "__module__", None) == USER_MODULE and callable(value):
                waiting.append(getattr(value, "py_func", value))
            elif not callable(value) and not hasattr(value, "__path__") and not _module(value):
                return True
        if any(not callable(cell.cell_contents) for cell in function.__closure__ or ()):
            return True
    return False


def _module(value: Any) -> bool:
    return type(value) is type(sys)
