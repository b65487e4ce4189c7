"""DataFrames as JSON documents and back: every column with its type, NaN and NaT as null."""

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson

if TYPE_CHECKING:
    import pandas as pd

_MARK: Final = "frame"
_TIMES: Final = "mM"  # kinds of numpy: points and lengths of time


def encode_value(value: Any) -> bytes:
    """JSON of a document or of a DataFrame; NaN is null, numpy's numbers and arrays are JSON's.

    Raises:
        TypeError: it holds what JSON cannot say.
        ValueError: a frame holds an infinity, which would come back as null, or names twice.
    """
    shown = {_MARK: _shown(value)} if _is_frame(value) else value
    return orjson.dumps(shown, option=orjson.OPT_SERIALIZE_NUMPY)


def decode_value(text: bytes | str) -> Any:
    """The document or DataFrame of a JSON text."""
    found = orjson.loads(text)
    if isinstance(found, dict) and found.keys() == {_MARK}:
        return _frame(found[_MARK])
    return found


def table_of(rows: Iterable[Mapping[str, Any]]) -> "pd.DataFrame":
    """Rows as a table, a column for each name that one of them has."""
    import pandas as pd  # noqa: PLC0415 -- half a second that only who wants frames waits for

    return pd.DataFrame(list(rows))


def rows_of(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """The rows of a table; what is missing is None."""
    missing = table.isna()
    found = table.astype(object).where(~missing, None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in found]


def _is_frame(value: Any) -> bool:
    # Who has one has pandas.
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


def _shown(frame: "pd.DataFrame") -> dict[str, Any]:
    if not frame.columns.is_unique or not all(isinstance(name, str) for name in frame.columns):
        raise ValueError("the columns of a cached frame are texts, each once")
    return {
        "index": _series(frame.index.to_series()),
        "name": frame.index.name,
        "columns": {name: _series(frame[name]) for name in frame.columns},
    }


def _series(series: "pd.Series[Any]") -> dict[str, Any]:
    import pandas as pd  # noqa: PLC0415 -- as above

    kind = series.dtype
    if kind.kind in _TIMES:
        missing = series.isna().to_numpy()
        numbers = series.astype("int64").tolist()
        values = [None if gone else one for gone, one in zip(missing, numbers, strict=True)]
    else:
        if kind.kind == "f" and np.isinf(series.to_numpy(np.float64, na_value=np.nan)).any():
            raise ValueError(f"{series.name} holds an infinity, which JSON cannot say")
        values = [None if pd.isna(one) else one for one in series.tolist()]
    return {"type": str(kind), "values": values}


def _frame(shown: Mapping[str, Any]) -> "pd.DataFrame":
    import pandas as pd  # noqa: PLC0415 -- as above

    columns = {name: _values(one) for name, one in shown["columns"].items()}
    index = pd.Index(_values(shown["index"]), name=shown["name"])
    frame = pd.DataFrame(columns, index=range(len(index)))
    return frame.set_axis(index, axis="index")


def _values(shown: Mapping[str, Any]) -> "pd.Series[Any]":
    import pandas as pd  # noqa: PLC0415 -- as above

    kind = pd.api.types.pandas_dtype(shown["type"])
    if kind.kind in _TIMES:  # numbers of its unit; NaT is the least of them
        numbers = [np.iinfo(np.int64).min if one is None else one for one in shown["values"]]
        return pd.Series(np.array(numbers, np.int64)).astype(kind)
    return pd.Series(shown["values"], dtype=kind)
