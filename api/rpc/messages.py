"""Rows of the stages as messages of the service."""

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.message import Message

from api.names import ENUMS, LATEST, MAY_LACK, TYPES
from schemas.blocks import COLUMNS, STAGES
from schemas.proto import tickstream_pb2 as pb

Row = Mapping[str, Any]
STAGE_OF: Final = {pb.Stage.Value(f"STAGE_{stage.upper()}"): stage for stage in STAGES}
"""The stages by their numbers."""


class _Form:
    """How rows of one stage become messages."""

    def __init__(self, stage: str) -> None:
        self._kind: type[Message] = getattr(pb, TYPES[stage])
        fields = self._kind.DESCRIPTOR.fields_by_name
        columns = [column for column in COLUMNS[stage] if column.name in fields]
        self._labels = {
            column.name: {
                label: fields[column.name].enum_type.values[code].number
                for code, label in enumerate(column.labels, 1)
            }
            for column in columns
            if (stage, column.name) in ENUMS
        }
        self._lacking = [name for at, name in MAY_LACK if at == stage]
        self._plain = [
            column.name
            for column in columns
            if column.name not in self._labels and column.name not in self._lacking
        ]

    def __call__(self, row: Row) -> Message:
        """A row; what is null, or was not known when it was kept, is not set."""
        found = {name: row[name] for name in self._plain if row.get(name) is not None}
        for name, codes in self._labels.items():
            label = row.get(name)
            if label is not None:
                found[name] = codes[label]
        for name in self._lacking:
            if row.get(name, -1) >= 0:
                found[name] = row[name]
        return self._kind(**found)


_FORMS: Final = {stage: _Form(stage) for stage in STAGES}


def row_message(stage: str, row: Row) -> pb.Row:
    """A row of any stage."""
    found: dict[str, Any] = {LATEST[stage]: _FORMS[stage](row)}
    return pb.Row(**found)


def symbol_message(name: str, staleness: float, rows: Mapping[str, Row | None]) -> pb.Symbol:
    """The latest rows of an instrument by stage."""
    found: dict[str, Any] = {
        LATEST[stage]: _FORMS[stage](row) for stage, row in rows.items() if row is not None
    }
    return pb.Symbol(name=name, staleness=staleness, **found)
