"""The description of the gRPC service: its messages are the columns, its files made of it."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor

from schemas.blocks import COLUMNS, STAGES
from schemas.proto import tickstream_pb2 as pb

PROTO = "schemas/proto/tickstream.proto"
TYPES = {
    "int64": FieldDescriptor.TYPE_INT64,
    "int32": FieldDescriptor.TYPE_INT32,
    "float64": FieldDescriptor.TYPE_DOUBLE,
    "symbol": FieldDescriptor.TYPE_STRING,
    "label": FieldDescriptor.TYPE_ENUM,
}
ROW: Any = pb.Row.DESCRIPTOR
KINDS: dict[str, Any] = {
    stage: field.message_type for stage, field in zip(STAGES, ROW.oneofs[0].fields, strict=True)
}


def test_the_generated_files_are_what_the_description_gives(
    repository: Path, tmp_path: Path
) -> None:
    """By the release of the compiler that pyproject.toml names."""
    folder = repository / "schemas" / "proto"
    outs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    made = [sys.executable, "-m", "grpc_tools.protoc", "-I.", *outs, PROTO]
    subprocess.run(made, cwd=repository, check=True)
    names = {path.name for path in (tmp_path / "schemas" / "proto").iterdir()}
    assert names == {path.name for path in folder.glob("*_pb2*.py*")}
    for name in names:
        fresh = (tmp_path / "schemas" / "proto" / name).read_text()
        assert (folder / name).read_text() == fresh, f"{name}: make it anew, see {PROTO}"


@pytest.mark.parametrize("stage", STAGES)
def test_messages_have_the_columns_of_the_code(stage: str) -> None:
    """Names, types, and what may be null; a column that is added gets the next number."""
    fields = KINDS[stage].fields
    assert {one.name: one.type for one in fields} == {
        column.name: TYPES[column.kind] for column in COLUMNS[stage]
    }
    assert [one.number for one in fields] == list(range(1, len(fields) + 1))
    assert all(one.has_presence for one in fields if one.type == FieldDescriptor.TYPE_DOUBLE)


@pytest.mark.parametrize("stage", STAGES)
def test_labels_have_their_words(stage: str) -> None:
    """Unspecified for null, then the labels in their order."""
    for column in COLUMNS[stage]:
        enum = KINDS[stage].fields_by_name[column.name].enum_type
        if column.kind != "label":
            assert enum is None
            continue
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper()
        words = ("unspecified", *column.labels)
        assert [(one.name, one.number) for one in enum.values] == [
            (f"{prefix}_{word.upper()}", number) for number, word in enumerate(words)
        ]


def test_stages_are_those_of_the_chain() -> None:
    """In their order, from 1 on: numbers of the wire."""
    assert dict(pb.Stage.items()) == {
        "STAGE_UNSPECIFIED": 0,
        **{f"STAGE_{stage.upper()}": number for number, stage in enumerate(STAGES, 1)},
    }
