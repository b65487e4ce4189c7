"""A version of the engine gbdt as a document: trees, what they look at, and what they come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.blocks import Array
from schemas.models import artifact_of, content_of, digest_of
from schemas.trees import TreeModel, read_trees

GBDT: Final = "gbdt"
HORIZON_MOST: Final = 10_000

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{32,64}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class CanaryRow(BaseModel):
    """What the trees said of a row when they were trained; null is a missing value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    x: tuple[Finite | None, ...]
    log_odds: Finite
    p: float = Field(ge=0, le=1)


class Scores(BaseModel):
    """How a version did on n rows that it was not trained on; losses in nats."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first_ts: int
    last_ts: int
    n: int = Field(ge=1)
    log_loss: Finite
    null_log_loss: Finite  # of the base rate of the training, on the same rows
    brier: Finite
    auc: Finite | None


class Range(BaseModel):
    """What a version was trained on: event times (ns) of its rows, and what else is known."""

    model_config = ConfigDict(frozen=True, extra="allow")

    first_ts: int
    last_ts: int  # of the last close that taught
    rows: int = Field(ge=1)
    rose: float = Field(ge=0, le=1)  # share of these rows


class Metrics(BaseModel):
    """How it did, on the end of the range that it was trained on, and what else is known."""

    model_config = ConfigDict(frozen=True, extra="allow")

    held_out: Scores


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["gbdt"]
    schema_version: Literal[1]
    version: str = Field(pattern=r"^gbdt-[0-9a-f]{12}$")
    trees: str
    feature_set: Hash
    horizon: int = Field(ge=1, le=HORIZON_MOST)
    canary: tuple[CanaryRow, ...] = Field(min_length=1, max_length=1024)
    hyperparameters: dict[str, Any]
    data: Range
    metrics: Metrics


@dataclass(frozen=True)
class Gbdt:
    """One version: it says the probability that the close rises over `horizon` bars."""

    version: str
    text: str  # as LightGBM reads it
    trees: TreeModel
    feature_set: str  # hash of what its features are, see `ChainSettings.feature_set`
    horizon: int
    canary: Sequence[CanaryRow]
    hyperparameters: Mapping[str, Any]
    data: Range
    metrics: Metrics

    @property
    def features(self) -> tuple[str, ...]:
        """The columns of bars and features that it looks at, in order."""
        return self.trees.features

    @property
    def canary_inputs(self) -> Array:
        """The rows of the canary, (n, features)."""
        rows = [[np.nan if value is None else value for value in row.x] for row in self.canary]
        return np.array(rows, np.float64)


def gbdt_artifact(
    trees: str,
    *,
    feature_set: str,
    horizon: int,
    canary: Sequence[CanaryRow],
    hyperparameters: Mapping[str, Any],
    data: Range,
    metrics: Metrics,
) -> dict[str, Any]:
    """A version as a document that is stored; its name is made of what it says and comes from.

    `trees` is LightGBM's text. `data` tells the range that it was trained on, `metrics` how well it
    did on what lay behind it.
    """
    told = data.model_dump(mode="json")
    content = {
        "trees": trees,
        "feature_set": feature_set,
        "horizon": horizon,
        "canary": [row.model_dump(mode="json") for row in canary],
        "hyperparameters": dict(hyperparameters),
        "data": told,
        "metrics": metrics.model_dump(mode="json"),
    }
    return artifact_of(
        GBDT, f"{GBDT}-{digest_of([trees, feature_set, horizon, told])[:12]}", content
    )


def read_gbdt(body: bytes) -> Gbdt:
    """The version in an artifact.

    Raises:
        ValueError: it is none, or it is not as it was written; in one line.
    """
    document = content_of(body, GBDT, "boosted trees")
    try:
        told = _Document.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"no model: {where}: {first['msg']}") from error
    trees = read_trees(told.trees.encode())
    if any(len(row.x) != len(trees.features) for row in told.canary):
        raise ValueError("no model: its canary has rows of another width than its trees")
    return Gbdt(
        told.version, told.trees, trees, told.feature_set, told.horizon, told.canary,
        told.hyperparameters, told.data, told.metrics,
    )  # fmt: skip
