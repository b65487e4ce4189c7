"""What a client learns of errors."""

from graphql import GraphQLError

from api.errors import ApiError, Code, format_error

SECRET = "postgresql://user:password@10.0.0.1/prices"  # noqa: S105 - what must not leak


def test_our_errors_are_told() -> None:
    """An ApiError shows its message, code and path."""
    cause = ApiError(Code.BAD_INPUT, "give first or last, not both")
    error = GraphQLError(str(cause), path=["bars"], original_error=cause)
    assert format_error(error) == {
        "message": "give first or last, not both",
        "path": ["bars"],
        "extensions": {"code": "BAD_INPUT"},
    }


def test_mistakes_in_the_request_are_told() -> None:
    """What parser and validation found is shown as it is."""
    shown = format_error(GraphQLError("Cannot query field 'x'."))
    assert shown == {"message": "Cannot query field 'x'.", "extensions": {"code": "BAD_REQUEST"}}


def test_unknown_errors_are_masked() -> None:
    """The text of any other exception stays in the log, under an id."""
    for path in (["bars"], None):
        error = GraphQLError(SECRET, path=path, original_error=RuntimeError(SECRET))
        shown = format_error(error, True)
        assert SECRET not in str(shown)
        assert shown["message"] == "Internal error"
        assert shown["extensions"]["code"] == "INTERNAL"
        assert len(shown["extensions"]["id"]) == 32


def test_faults_of_our_results_are_masked() -> None:
    """An error of the executor about a value of ours is ours, not the client's."""
    shown = format_error(GraphQLError(f"Float cannot represent {SECRET}", path=["symbols", 0]))
    assert SECRET not in str(shown)
