"""Symbols and sides that come as codes into a dictionary."""

import numpy as np
import pyarrow as pa

from schemas.arrivals import arrivals, from_table


def test_codes_name_what_texts_would() -> None:
    """Words that no row has, a word twice, and nulls by index or in the dictionary itself."""
    words = pa.array(["unused", "A", "B", "A", None])
    codes = pa.array([2, 1, 3, 4, None, 2], pa.int8())
    coded = pa.DictionaryArray.from_arrays(codes, words)
    full = pa.DictionaryArray.from_arrays(codes.take([0, 1, 2, 4, 5]), words.slice(0, 4))
    for symbol in (coded, full, pa.DictionaryArray.from_arrays(codes.take([0, 1]), words[:3])):
        n = len(symbol)
        table = {"ts": np.arange(n) + 10**18, "price": np.ones(n)}
        side = pa.array(["buy", "sell", None, "", "up", "buy"][:n])
        named = []
        for texts in (symbol, symbol.cast(pa.utf8())):
            index: dict[str, int] = {}
            chosen = side.dictionary_encode() if texts is symbol else side
            parts = from_table(pa.table({**table, "symbol": texts, "side": chosen}), index)
            found = arrivals(0, {**parts, "offset": parts["id"], "index": parts["side"]}, [*index])
            seen = [found.symbols[code] for code in found["symbol"].tolist()]
            named.append((seen, found["side"].tolist(), sorted(index)))
        assert named[0] == named[1]
        assert "unused" not in named[0][2]
