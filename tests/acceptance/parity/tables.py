"""Stage tables and files of a replay side by side, without any code of the product's comparison."""

from pathlib import Path
from typing import Any, Final

import asyncpg
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

_OURS: Final = {"run", "written_on"}  # columns that a table has for itself
_IDENTITY: Final = [(name, "ascending") for name in ("partition", "offset", "index")]


async def apart(dsn: str, stage: str, out: Path) -> list[str]:
    """What is different between a stage's table and its file: columns, rows, values by bits."""
    replayed = _plain(pq.read_table(out / f"{stage}.parquet").sort_by(_IDENTITY))
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(
            "SELECT column_name FROM information_schema.columns WHERE table_name = $1", stage
        )
        names = sorted({row["column_name"] for row in rows} - _OURS)
        if names != sorted(replayed.column_names):
            return [f"{stage}: columns {names} and {sorted(replayed.column_names)}"]
        dump = out / f"{stage}.csv"
        listed = ", ".join(f'"{name}"' for name in names)
        query = f'SELECT {listed} FROM {stage} ORDER BY "partition", "offset", "index"'  # noqa: S608 -- names of the catalogue
        # Postgres writes the shortest text that gives a double back, Arrow reads the nearest one.
        await connection.copy_from_query(query, output=dump, format="csv", header=True, timeout=600)
    finally:
        await connection.close()
    live = _read(dump, replayed.schema)
    if len(live) != len(replayed):
        return [f"{stage}: {len(live)} rows stored, {len(replayed)} replayed"]
    return [
        f"{stage}: column {name}"
        for name in names
        if not np.array_equal(_bits(live[name]), _bits(replayed[name]))
    ]


def _plain(table: Any) -> Any:
    """Words instead of their codes."""
    kinds = {field.name: field.type for field in table.schema}
    for name, kind in kinds.items():
        if pa.types.is_dictionary(kind):
            at = table.schema.get_field_index(name)
            table = table.set_column(at, name, table[name].cast(pa.string()))
    return table.replace_schema_metadata(None)


def _read(dump: Path, schema: Any) -> Any:
    options = pacsv.ConvertOptions(
        column_types={field.name: field.type for field in schema},
        null_values=[""],
        strings_can_be_null=True,
    )
    return pacsv.read_csv(dump, convert_options=options)


def _bits(column: Any) -> Any:
    """Values in which doubles differ as soon as one bit does; a null is the one NaN."""
    if not pa.types.is_floating(column.type):
        return column.to_numpy()
    values = column.fill_null(np.nan).to_numpy().copy()
    values[np.isnan(values)] = np.nan
    return values.view(np.int64)
