"""Parameters of models: what is one, and what is refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.models import HmmModel

GOOD: dict[str, Any] = {
    "transition": [[0.9, 0.1], [0.2, 0.8]],
    "mean": [0.0, -0.1],
    "variance": [0.5, 4.0],
}
THREE = {
    "transition": [[0.9, 0.1, 0.0], [0.0, 0.9, 0.1], [0.1, 0.0, 0.9]],
    "mean": [0, 0, 0],
    "variance": [1, 1, 2],
}


def test_bare_parameters_are_those_of_every_symbol() -> None:
    """By symbol, `*` for the others; a model that names symbols only has none for others."""
    model = HmmModel.model_validate(GOOD)
    assert model.version == "inline"
    assert model.of("A") == model.of("B") == model.symbols["*"]
    named = HmmModel.model_validate({"version": "v2", "symbols": {"A": GOOD, "B": THREE}})
    assert (named.symbols["A"].states, named.symbols["B"].states) == (2, 3)
    assert named.of("C") is None
    assert HmmModel.model_validate_json(named.model_dump_json()) == named


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"transition": [[0.9, 0.2], [0.2, 0.8]]}, "sums to 1"),
        ({"transition": [[1.1, -0.1], [0.2, 0.8]]}, "less than or equal to 1"),
        ({"transition": [[1.0, 0.0], [0.2, 0.8]]}, "can be reached"),
        ({"transition": [[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]]}, "k rows of k"),
        ({"mean": [0.0]}, "k rows of k"),
        ({"variance": [4.0, 0.5]}, "ascending order"),
        ({"variance": [0.5]}, "ascending order"),
        ({"variance": [0.0, 1.0]}, "greater than or equal to"),
        ({"variance": [1.0, float("inf")]}, "finite number"),
        ({"scale": 0.0}, "greater than or equal to"),
        ({"mean": [float("nan"), 0.0]}, "finite number"),
        ({"tail": 3}, "not permitted"),
    ],
)
def test_what_is_no_model_is_refused(change: dict[str, Any], why: str) -> None:
    """Each with its reason."""
    with pytest.raises(ValidationError, match=why):
        HmmModel.model_validate({**GOOD, **change})


def test_states_that_no_column_could_show_are_refused() -> None:
    """Four states are one too many for the stage."""
    rows = [[0.25] * 4] * 4
    with pytest.raises(ValidationError, match="2 to 3 states"):
        HmmModel.model_validate({"transition": rows, "mean": [0] * 4, "variance": [1] * 4})
    with pytest.raises(ValidationError, match="at least 1"):
        HmmModel.model_validate({"symbols": {}})
