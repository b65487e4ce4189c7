"""The fast path of the decoder against the general one, which is held to the contract elsewhere."""

import random

import numpy as np
import pytest

from pipeline.bus.decoding import new_decoder, scan
from schemas.arrivals import Arrivals, Message
from schemas.codec import Decoder

RECEIVED = 1_750_000_000_000_000_000
OPTIONAL = (
    *("size", "bid", "ask", "bid_size", "ask_size", "open", "high", "low"),
    *("factor", "volume_factor", "recv_ts", "id", "side", "foo", "was"),
)
ODD_NUMBERS = ("-0", "0", "-0.0", "1.5E+3", "00", "1.", "null", '"x"', "1e400", ".5", "true")
ODD_SYMBOLS = ("A", "x" * 40, "a b", "é", "q\\u0041", "")
IDS = ("7", '"abc"', "null", "-1", str(2**63 - 1), str(2**63), str(2**64), "1.0")


def number(r: random.Random) -> str:
    """A number as feeds, people and enemies write it."""
    return r.choice(
        (
            str(r.randint(-5, 10 ** r.randint(1, 18))),
            repr(round(r.uniform(0, 10 ** r.randint(0, 6)), r.randint(0, 9))),
            repr(r.random()),
            f"{r.randint(1, 999)}e{r.randint(-30, 30)}",
            r.choice(ODD_NUMBERS),
        )
    )


def value(r: random.Random, key: str) -> str:
    """A value for a key, mostly a good one."""
    if key == "symbol":
        return f'"{r.choice(ODD_SYMBOLS if r.random() < 0.2 else ("A", "BTCUSDT", "ETH"))}"'
    if key in {"ts", "recv_ts"}:
        good = str(1_700_000_000 * 10 ** r.choice((0, 3, 6, 9)) + r.randint(0, 999))
        return good if r.random() < 0.95 else r.choice(('"2024-01-01T00:00:00Z"', "1.5", "null"))
    if key == "id":
        return r.choice(IDS)
    if key == "side":
        return r.choice(('"buy"', '"sell"', "null", '"x"', "1"))
    return {"foo": "{}", "was": '"OLD"'}.get(key) or number(r)


def tick(r: random.Random) -> str:
    """A tick, with keys in any order, sometimes one twice or missing, and blanks anywhere."""
    keys = ["symbol", "ts", "price", *(key for key in OPTIONAL if r.random() < 0.2)]
    r.shuffle(keys)
    if r.random() < 0.03:
        keys.append(r.choice(keys))
    if r.random() < 0.03:
        keys.remove(r.choice(keys))

    def blank() -> str:
        return r.choice(("", "", " ", "\n"))

    pairs = (f'{blank()}"{k}"{blank()}:{blank()}{value(r, k)}{blank()}' for k in keys)
    return "{" + ",".join(pairs) + "}"


def usual(r: random.Random) -> str:
    """A tick of the usual form."""
    price, size = round(r.uniform(1, 1e5), 4), round(r.random(), 3)
    ts = 1_700_000_000_000_000_000 + r.randint(0, 99)
    return f'{{"symbol":"{r.choice("ABC")}","ts":{ts},"price":{price!r},"size":{size!r}}}'


def message(r: random.Random) -> bytes:
    """A message: a tick, an array, or something broken."""
    make = usual if r.random() < 0.6 else tick
    text = r.choice(
        (
            make(r),
            *["[" + ",".join(make(r) for _ in range(r.randint(0, 4))) + "]"] * 3,
            r.choice(("", "x", "[", "[{}]", "{}", " [ ] ", "[1]", usual(r) + "x", usual(r)[:-1])),
        )
    ).encode()
    if text and r.random() < 0.05:
        text = text[: r.randint(0, len(text))]
    if text and r.random() < 0.05:
        damaged = bytearray(text)
        damaged[r.randrange(len(damaged))] = r.randrange(256)
        text = bytes(damaged)
    return text


def names(came: Arrivals, column: str) -> list[str | None]:
    """Codes as the symbols that they stand for."""
    return [came.symbols[code] if code >= 0 else None for code in came[column]]


@pytest.mark.parametrize("seed", range(8))
def test_it_equals_the_general_decoder_to_the_bit(seed: int) -> None:
    """Same ticks, same order, same places, same rejects, whatever is in the messages."""
    r = random.Random(seed)  # noqa: S311 -- inputs of a test
    for _ in range(100):
        texts = [message(r) for _ in range(r.randint(0, 6))]
        messages = [Message(3 * i, RECEIVED, text) for i, text in enumerate(texts)]
        came, rejects = Decoder(0).decode(messages)
        fast, fast_rejects = new_decoder(0).decode(messages)
        assert rejects == fast_rejects
        assert came.columns.keys() == fast.columns.keys()
        for name, column in came.columns.items():
            if name in {"symbol", "was"}:
                assert names(came, name) == names(fast, name)
            else:
                assert column.dtype == fast[name].dtype
                assert column.tobytes() == fast[name].tobytes(), (name, texts)


def test_usual_ticks_take_the_fast_path() -> None:
    """What exchanges send is read by the scan itself: nanoseconds, decimals, exponents, nulls."""
    r = random.Random(1)  # noqa: S311 -- inputs of a test
    texts = [usual(r), '{"symbol":"A","ts":1700000000,"price":5.853e-05,"bid":null,"side":"buy"}']
    columns, counts = scan([text.encode() for text in texts], {})
    assert counts.tolist() == [1, 1]
    assert columns["price"][1] == 5.853e-05
    assert np.isnan(columns["bid"][1])
    assert columns["side"].tolist() == [-1, 0]


@pytest.mark.parametrize(
    "text", ['{"symbol":"A","ts":1,"price":0.30000000000000004}', '{"symbol":"A","ts":1}', "[1]"]
)
def test_the_unusual_is_left_alone(text: str) -> None:
    """Digits that a double does not hold exactly, missing keys, other things: not for the scan."""
    _, counts = scan([text.encode()], {})
    assert counts.tolist() == [-1]
