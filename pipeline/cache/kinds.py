"""The kinds of cached values, their keys, and what is forgotten when something happens."""

from collections.abc import Mapping, Sequence
from typing import Final

from pipeline.cache.latest import KEYS, key_of
from schemas.blocks import engines

METRICS: Final = "metrics"
REGISTRY: Final = "registry"
"""What the registry of models holds, under names of its own."""
KINDS: Final = (*KEYS.values(), METRICS)
"""What there is of a symbol."""
STAGE_OF: Final = {kind: stage for stage, kind in KEYS.items()}
# What is forgotten when something happens elsewhere; of one symbol, or of all.
EVENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "rows_changed": (*KEYS.values(), METRICS),  # history was rewritten or dropped
    "model_changed": ("prediction", "signal", METRICS),
    "instrument_changed": (*KEYS.values(), METRICS),  # another one bears the symbol
}
Key = tuple[str, str, str]  # kind, symbol, and of predictions the engine, of metrics the period


def text_of(key: Key) -> str:
    """The key in Redis, as `price:ES`, `prediction:ES:momentum`, `metrics:ES:1d`."""
    kind, symbol, part = key
    if kind in STAGE_OF:
        return key_of(STAGE_OF[kind], symbol, part or None)
    if kind == REGISTRY:
        return f"{kind}:{symbol}"
    if kind != METRICS:
        known = ", ".join((*KINDS, REGISTRY))
        raise ValueError(f"no kind is called {kind!r}; there are {known}")
    return f"{kind}:{symbol}:{part}"


def parts_of(kind: str, part: str) -> Sequence[str]:
    """The parts that go with a value: those of all engines with a whole prediction."""
    return ("", *engines()) if kind == "prediction" and not part else (part,)


def escaped(symbol: str) -> str:
    """A symbol as it is in a pattern."""
    return "".join(f"\\{c}" if c in "*?[]^-\\" else c for c in symbol)
