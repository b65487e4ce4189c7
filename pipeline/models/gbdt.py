"""The engine gbdt outside the chain: whether a version still says what it said when trained."""

from typing import Final

from pipeline.kernels.trees import predict
from schemas.blocks import Array
from schemas.gbdt import CanaryRow, Gbdt
from schemas.trees import TreeModel

_NEAR: Final = 1e-12  # the last bit of exp belongs to libm, and so to the machine


def canary_of(trees: TreeModel, x: Array) -> tuple[CanaryRow, ...]:
    """What trees say of rows x (n, features) today."""
    log_odds, p = predict(trees, x)
    return tuple(
        CanaryRow(x=tuple(None if value != value else value for value in row), log_odds=odds, p=q)  # noqa: PLR0124 -- NaN is null
        for row, odds, q in zip(x.tolist(), log_odds.tolist(), p.tolist(), strict=True)
    )


def check_canary(version: Gbdt) -> None:
    """Let a version speak of the rows that it brings.

    Raises:
        ValueError: it does not say what it said when it was trained.
    """
    log_odds, p = predict(version.trees, version.canary_inputs)
    for row, odds, q in zip(version.canary, log_odds.tolist(), p.tolist(), strict=True):
        if odds != row.log_odds or abs(q - row.p) > _NEAR * row.p:
            raise ValueError(f"{version.version} says {q!r} of a canary row, not {row.p!r}")
