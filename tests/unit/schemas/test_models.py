"""Parameters of models: what is one, and what is refused."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from schemas.models import HmmModel, HmmParameters, digest_of, hmm_artifact, read_hmm

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
    assert model.name_of("A") == model.name_of("B") == "*"
    named = HmmModel.model_validate({"version": "v2", "symbols": {"A": GOOD, "B": THREE}})
    assert (named.symbols["A"].states, named.symbols["B"].states) == (2, 3)
    assert (named.name_of("A"), named.name_of("C")) == ("A", None)
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


def artifact() -> dict[str, Any]:
    """One of two symbols."""
    parameters = {name: HmmParameters.model_validate(told) for name, told in NAMED.items()}
    return hmm_artifact(parameters, {"input": "x", "rows": [1, 2]}, {"llf": -1.5})


NAMED = {"A": GOOD, "B": {**THREE, "scale": 0.1 + 0.2}}


def test_an_artifact_is_read_as_it_was_written() -> None:
    """Every digit, whatever the spaces; the version tells parameters and data apart."""
    document = artifact()
    for text in (json.dumps(document), json.dumps(document, indent=2, sort_keys=True)):
        model = read_hmm(text.encode())
        assert model.version == document["version"]
        assert {n: one.model_dump() for n, one in model.symbols.items()} == {
            n: HmmParameters.model_validate(told).model_dump() for n, told in NAMED.items()
        }
    one = {"A": HmmParameters.model_validate(GOOD)}
    versions = {hmm_artifact(one, {"input": name}, {})["version"] for name in "ab"}
    assert len(versions) == 2
    assert hmm_artifact(one, {}, {"llf": 1.0})["version"] == hmm_artifact(one, {}, {})["version"]


@pytest.mark.parametrize("path", [("symbols", "A", "scale"), ("data", "input"), ("version",)])
def test_an_artifact_that_was_changed_is_refused(path: tuple[str, ...]) -> None:
    """Any value of it, or the hash itself."""
    document = artifact()
    inner = document
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = 7
    with pytest.raises(ValueError, match="damaged"):
        read_hmm(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[]", "no artifact"),
        (b'{"kind": "gbdt"}', "no artifact"),
        (b'{"kind": "hmm", "schema_version": 2}', "another version"),
        (b'{"kind": "hmm", "schema_version": 1}', "damaged"),
    ],
)
def test_what_is_no_artifact_is_refused(text: bytes, why: str) -> None:
    """Each in one line."""
    with pytest.raises(ValueError, match=why) as caught:
        read_hmm(text)
    assert "\n" not in str(caught.value)


def test_an_artifact_with_bad_parameters_is_refused() -> None:
    """Its hash may be right, its parameters not."""
    document = artifact()
    document["symbols"]["A"]["variance"] = [4.0, 0.5]
    del document["hash"]
    document["hash"] = digest_of(document)
    with pytest.raises(ValueError, match=r"no model: .*ascending order"):
        read_hmm(json.dumps(document).encode())
