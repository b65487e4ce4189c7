"""Documents that clients name by an id instead of sending them, and to which they may be held."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson
from graphql import GraphQLError, GraphQLSchema, parse, validate
from graphql.validation import specified_rules

from api.errors import ApiError, Code
from api.limits import MAX_TOKENS, DepthRule
from pipeline.errors import MisuseError
from pipeline.settings import ApiSettings

_LONGEST: Final = 16 * 1024 * 1024  # bytes of a manifest
_HASHED: Final = "sha256:"  # begins an id that is a hash of its document, by the specification
_APOLLO: Final = "apollo-persisted-query-manifest"


class Persisted:
    """Finds documents by their ids; with `only`, refuses all others."""

    def __init__(self, documents: Mapping[str, str], *, only: bool = False) -> None:
        self._documents = documents
        self._allowed = frozenset(documents.values()) if only else None

    def read(self, data: Any) -> Any:
        """A request with its document, which it may have named; what is no request stays as it is.

        Raises:
            ApiError: no document has this id, or the one that was sent is not allowed.
        """
        if not isinstance(data, dict):
            return data
        name, query = _named(data), data.get("query")
        if name is not None:
            if query is not None:
                raise ApiError(Code.BAD_REQUEST, "give `query` or `documentId`, not both")
            found = self._documents.get(name)
            if found is None:
                raise ApiError(Code.UNKNOWN_DOCUMENT, "no document has this id")
            return {**data, "query": found}
        if self._allowed is not None and isinstance(query, str) and query not in self._allowed:
            told = "only documents that are known here are answered: name one by `documentId`"
            raise ApiError(Code.FORBIDDEN, told)
        return data


def _named(data: Mapping[str, Any]) -> str | None:
    """The id in a request: `documentId`, or what clients of Apollo send when there is no query."""
    name = data.get("documentId")
    if name is None and data.get("query") is None:
        extensions = data.get("extensions")
        asked = extensions.get("persistedQuery") if isinstance(extensions, dict) else None
        name = asked.get("sha256Hash") if isinstance(asked, dict) else None
    if name is not None and not isinstance(name, str):
        raise ApiError(Code.BAD_REQUEST, "the id of a document is a text")
    return name


def names_document(data: Mapping[str, Any]) -> bool:
    """Whether a request names its document."""
    return _named(data) is not None


def read_persisted(settings: ApiSettings, schema: GraphQLSchema) -> Persisted:
    """The documents of `api.documents`, each fit to be asked.

    Raises:
        MisuseError: the manifest cannot be read, or a document in it could never be answered.
    """
    path = settings.documents
    if path is None:
        if settings.documents_only:
            raise MisuseError("api.documents_only needs a manifest of documents: api.documents")
        return Persisted({})
    documents = _manifest(path)
    for name, text in documents.items():
        fault = _fault(name, text, schema)
        if fault is not None:
            raise MisuseError(f"api.documents: {path}: {name[:80]!r}: {' '.join(fault.split())}")
    return Persisted(documents, only=settings.documents_only)


def _manifest(path: Path) -> dict[str, str]:
    try:
        if path.stat().st_size > _LONGEST:
            raise MisuseError(f"api.documents: {path}: is longer than {_LONGEST:,} bytes")
        found = orjson.loads(path.read_bytes())
    except OSError as error:
        reason = error.strerror or str(error)
        raise MisuseError(f"api.documents: {path}: cannot be read: {reason}") from error
    except orjson.JSONDecodeError as error:
        raise MisuseError(f"api.documents: {path}: is not JSON") from error
    pairs = _pairs(found)
    texts = {name: text for name, text in pairs if isinstance(name, str) and isinstance(text, str)}
    if len(texts) < len(pairs) or not texts:
        raise MisuseError(
            f"api.documents: {path}: is neither a JSON object of ids and documents, each once,"
            " nor a manifest of Apollo"
        )
    return texts


def _pairs(found: Any) -> list[tuple[Any, Any]]:
    if not isinstance(found, dict):
        return []
    if found.get("format") != _APOLLO:
        return list(found.items())
    operations = found.get("operations")
    if not isinstance(operations, list):
        return []
    return [
        (one.get("id"), one.get("body")) if isinstance(one, dict) else (None, None)
        for one in operations
    ]


def _fault(name: str, text: str, schema: GraphQLSchema) -> str | None:
    if name.startswith(_HASHED):
        digest = hashlib.sha256(text.encode()).hexdigest()
        if name.removeprefix(_HASHED) != digest:
            return "is not the hash of its document"
    try:
        document = parse(text, max_tokens=MAX_TOKENS)
    except GraphQLError as error:
        return error.message
    errors = validate(schema, document, (*specified_rules, DepthRule))
    return errors[0].message if errors else None
