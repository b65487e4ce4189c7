"""Ctrl-C where Python cannot raise it: it is kept, and raised as soon as somebody asks."""

import sys
from threading import Event
from typing import Final

_kept: Final = Event()


def keep_interrupts() -> None:
    """Have a Ctrl-C that comes within a callback of the interpreter kept, not told and forgotten.

    Finalizers and callbacks of weak references run at any place, and what they raise goes no
    further: without this a run would go on to its end, and end well.
    """
    former = sys.unraisablehook

    def hook(lost: "sys.UnraisableHookArgs", /) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            _kept.set()
        else:
            former(lost)

    sys.unraisablehook = hook


def raise_kept() -> None:
    """Raise the Ctrl-C that was kept; once.

    Raises:
        KeyboardInterrupt: there is one.
    """
    if _kept.is_set():
        _kept.clear()
        raise KeyboardInterrupt
