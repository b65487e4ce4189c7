"""Versions of models as they are published, stored and named in settings: JSON documents."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from schemas.blocks import VolRegime

HMM: Final = "hmm"
NAME: Final = r"^[a-z][a-z0-9_]{0,31}$"  # of a model
ARTIFACT_VERSION: Final = 1
ANY_SYMBOL: Final = "*"
STATES_MOST: Final = 3  # as many as the stage of the regimes has columns for
_SUM_ERROR: Final = 1e-9  # of a row of probabilities that was written with 9 digits or more

Name = Annotated[str, Field(min_length=1, max_length=64)]  # of a version
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # SHA-256
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Mean = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
# Within these bounds no square of a standardised return can overflow.
Positive = Annotated[float, Field(ge=1e-12, le=1e12, allow_inf_nan=False)]


class Selected(BaseModel):
    """A version that speaks in a volatility regime, with the SHA-256 of its artifact."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Name
    artifact: Digest


class Promotion(BaseModel):
    """What the topic `models` carries: which versions of a model speak from now on.

    `version` is the active one and `shadow` the one that predicts beside it, each with the SHA-256
    of its artifact; in the volatility regimes that `selected` names, another one speaks in the
    place of `version`. Generations of a model count its promotions, rollbacks, changes of its
    shadow and selections: a lower one is older news.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str = Field(pattern=NAME)
    version: Name | None
    generation: int = Field(ge=1, lt=2**63)
    artifact: Digest | None
    rolled_back: bool = False
    shadow: Name | None = None
    shadow_artifact: Digest | None = None
    selected: Mapping[VolRegime, Selected] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _with_artifacts(self) -> Self:
        named = (self.version, self.artifact), (self.shadow, self.shadow_artifact)
        if any((name is None) != (artifact is None) for name, artifact in named):
            raise ValueError("a version comes with its artifact")
        return self


@dataclass(frozen=True, slots=True)
class Activation:
    """From the first tick at or behind (offset, index) of a partition on these versions speak.

    They are those of a generation of a model: `version` as the engine gbdt, silent without one, and
    `shadow` beside it. In the volatility regimes that `selected` names, another one speaks in the
    place of `version`, or nobody.
    """

    offset: int
    index: int
    model: str
    generation: int
    version: str | None
    shadow: str | None = None
    selected: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def place(self) -> tuple[int, int]:
        """Offset and index."""
        return self.offset, self.index


class HmmParameters(BaseModel):
    """A Gaussian hidden Markov model of k states in ascending order of variance.

    `transition[i][j]` is Pr(state j at t | state i at t - 1). An observation is
    y = (log return - location) / scale, in state j normal with `mean[j]` and `variance[j]`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    transition: tuple[tuple[Probability, ...], ...] = Field(min_length=2, max_length=16)
    mean: tuple[Mean, ...]
    variance: tuple[Positive, ...]
    location: Mean = 0.0
    scale: Positive = 1.0

    @property
    def states(self) -> int:
        """The number of states k."""
        return len(self.transition)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        k = self.states
        if any(len(row) != k for row in self.transition) or len(self.mean) != k:
            raise ValueError("transition is k rows of k probabilities, mean and variance have k")
        if len(self.variance) != k or list(self.variance) != sorted(self.variance):
            raise ValueError("states stand in ascending order of variance, one for each state")
        if any(abs(sum(row) - 1.0) > _SUM_ERROR for row in self.transition):
            raise ValueError("each row of transition sums to 1")
        if any(len(_reached(self.transition, state)) < k for state in range(k)):
            raise ValueError("every state can be reached from every other")
        return self


class HmmModel(BaseModel):
    """One version of the regime model: parameters by symbol, `*` for those that are not named."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str = Field("inline", min_length=1, max_length=64)
    symbols: Mapping[str, HmmParameters] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _for_any_symbol(cls, value: Any) -> Any:
        """Bare parameters are those of every symbol."""
        if isinstance(value, dict) and "transition" in value:
            return {"symbols": {ANY_SYMBOL: value}}
        return value

    @field_validator("symbols")
    @classmethod
    def _few_states(cls, value: Mapping[str, HmmParameters]) -> Mapping[str, HmmParameters]:
        if any(parameters.states > STATES_MOST for parameters in value.values()):
            raise ValueError(f"a model of regimes has 2 to {STATES_MOST} states")
        return value

    def name_of(self, symbol: str) -> str | None:
        """Under which name the parameters of a symbol stand; None when there are none."""
        return next((name for name in (symbol, ANY_SYMBOL) if name in self.symbols), None)


def digest_of(content: Any) -> str:
    """SHA-256 of a JSON value, whatever its spaces and the order of its keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def artifact_of(kind: str, version: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """What is stored of a version; `hash` is of all the rest of it."""
    head = {"kind": kind, "schema_version": ARTIFACT_VERSION, "version": version}
    document = {**head, **content}
    return {**document, "hash": digest_of(document)}


def content_of(body: bytes, kind: str, named: str) -> dict[str, Any]:
    """What `artifact_of` was made of, the head with it.

    Raises:
        ValueError: it is no artifact of this kind, or not as it was written; in one line.
    """
    try:
        document = json.loads(body)
    except ValueError as error:
        raise ValueError(f"no JSON: {error}") from error
    if not isinstance(document, dict) or document.get("kind") != kind:
        raise ValueError(f'no artifact of {named}: it has no "kind": "{kind}"')
    if document.get("schema_version") != ARTIFACT_VERSION:
        raise ValueError("an artifact of another version of tickstream: train it anew")
    found = document.pop("hash", None)
    if found != digest_of(document):
        raise ValueError("damaged: its hash is not that of its content; train it anew")
    return document


def hmm_artifact(
    symbols: Mapping[str, HmmParameters], data: Mapping[str, Any], metrics: Mapping[str, Any]
) -> dict[str, Any]:
    """A version of the regime model as a document that is stored and named in settings.

    Its name is made of what it says and what it was fitted on; `hash` is of all the rest of it.
    `data` tells what it was fitted on, `metrics` how well it fits.
    """
    told = {name: one.model_dump(mode="json") for name, one in symbols.items()}
    content = {"symbols": told, "data": dict(data), "metrics": dict(metrics)}
    return artifact_of(HMM, f"{HMM}-{digest_of([told, data])[:12]}", content)


def read_hmm(text: bytes) -> HmmModel:
    """The model of an artifact.

    Raises:
        ValueError: it is none, or it is not as it was written.
    """
    document = content_of(text, HMM, "a hidden Markov model")
    try:
        return HmmModel(version=document.get("version"), symbols=document.get("symbols"))
    except ValidationError as error:
        raise ValueError(f"no model: {error.errors()[0]['msg']}") from error


def _reached(transition: Sequence[Sequence[float]], state: int) -> set[int]:
    """All states that can follow a state sooner or later, itself among them."""
    found, new = {state}, [state]
    while new:
        row = transition[new.pop()]
        more = [j for j, p in enumerate(row) if p > 0 and j not in found]
        found.update(more)
        new += more
    return found
