"""Versions of models as they are published, stored and named in settings: JSON documents."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

ANY_SYMBOL: Final = "*"
STATES_MOST: Final = 3  # as many as the stage of the regimes has columns for
_SUM_ERROR: Final = 1e-9  # of a row of probabilities that was written with 9 digits or more

Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Mean = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
# Within these bounds no square of a standardised return can overflow.
Positive = Annotated[float, Field(ge=1e-12, le=1e12, allow_inf_nan=False)]


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

    def of(self, symbol: str) -> HmmParameters | None:
        """The parameters for a symbol; None when there are none."""
        return self.symbols.get(symbol, self.symbols.get(ANY_SYMBOL))


def _reached(transition: Sequence[Sequence[float]], state: int) -> set[int]:
    """All states that can follow a state sooner or later, itself among them."""
    found, new = {state}, [state]
    while new:
        row = transition[new.pop()]
        more = [j for j, p in enumerate(row) if p > 0 and j not in found]
        found.update(more)
        new += more
    return found
