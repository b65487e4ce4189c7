"""Documents drawn from the schema: byte for byte what graphql-core's own executor answers."""

from dataclasses import replace
from inspect import isawaitable
from typing import Any, Final, cast

from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLObjectType,
    execute,
    get_named_type,
    is_leaf_type,
    parse,
    validate,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from api import execution
from api.context import Context
from api.encoding import encode
from api.execution import RowExecutor
from api.latest import LatestLoader
from api.mirror import Mirror
from api.names import LATEST
from api.principals import LOCAL, Principal
from api.services import Services
from pipeline.errors import UnavailableError
from pipeline.store.keys import Role
from schemas.blocks import STAGES
from tests.unit.api import test_execution
from tests.unit.api.conftest import FakeLives, FakeServices
from tests.unit.api.test_execution import SCHEMA, VALUES, whole

NAMES: Final = ("A", "B", "C")  # of B the mirror has nothing, D is unknown
VARIABLES: Final = ({"t": True, "f": False}, {"t": False, "f": True}, {"t": True, "f": True})
HEAD: Final = '($t: Boolean!, $f: Boolean = true, $n: [String!] = ["A", "B", "C"])'
# Each response name always stands for the same field, so that selections may be merged.
_ALIASES: Final = ("", "x_{}: ", "y_{}: ")
ROW_KEYS: Final = frozenset(test_execution.ROW_KEYS)
Row = dict[str, Any]
_DIRECTIVES: Final = (
    *("",) * 6,
    "@include(if: true)", "@skip(if: true)", "@include(if: $t)", "@skip(if: $t)",
    "@skip(if: $f)", "@include(if: $f) @skip(if: $t)",
)  # fmt: skip


@st.composite
def selections(draw: st.DrawFn, kind: GraphQLObjectType, depth: int = 0) -> str:
    """What is asked of an object: fields under any name, fragments, conditions."""
    parts = []
    fields = {name: one for name, one in kind.fields.items() if not one.args}
    for _ in range(draw(st.integers(1, 5))):
        when = draw(st.sampled_from(_DIRECTIVES))
        what = draw(st.integers(0, 11))
        if what == 0 and depth < 4:
            on = draw(st.sampled_from(["", f"on {kind.name}"]))
            parts.append(f"... {on} {when} {{ {draw(selections(kind, depth + 1))} }}")
        elif what == 1:
            parts.append(f"{draw(st.sampled_from(['', 'type: ']))}__typename {when}")
        elif what == 2 and kind.name in {"Symbol", "Price", "Signal"}:
            parts.append(f"...F{kind.name} {when}")
        else:
            name = draw(st.sampled_from(sorted(fields)))
            alias = draw(st.sampled_from(_ALIASES)).format(name)
            below = get_named_type(fields[name].type)
            if is_leaf_type(below):
                parts.append(f"{alias}{name} {when}")
            elif isinstance(below, GraphQLObjectType) and depth < 4:
                inner = draw(selections(below, depth + 1))
                parts.append(f"{alias}{name} {when} {{ {inner} }}")
    return " ".join(parts) or "__typename"


def kind_of(name: str) -> GraphQLObjectType:
    """A type of the schema."""
    return cast("GraphQLObjectType", SCHEMA.type_map[name])


@st.composite
def documents(draw: st.DrawFn) -> str:
    """A query for the latest state, valid by the schema."""
    roots = []
    for number in range(draw(st.integers(1, 3))):
        asked = draw(st.sampled_from(
            ["symbols(names: $n)", "symbols(first: 2)", 'symbol(name: "A")', 'symbol(name: "B")',
             'symbol(name: "D")', "symbols(first: -1)"]
        ))  # fmt: skip
        when = draw(st.sampled_from(_DIRECTIVES))
        roots.append(f"r{number}: {asked} {when} {{ {draw(selections(kind_of('Symbol')))} }}")
    price, signal = draw(selections(kind_of("Price"), 4)), draw(selections(kind_of("Signal"), 4))
    # No fragment of a fragment: a circle would not be valid.
    price, signal = price.replace("...FPrice", "ts"), signal.replace("...FSignal", "ts")
    once = f"price {{ ...FPrice }} signal {{ ...FSignal }} {draw(st.sampled_from(LATESTS))}"
    return (
        f"query Q{HEAD} {{ {' '.join(roots)} again: __typename @include(if: $t) "
        f"used: __typename @skip(if: $f) all: symbols(names: $n) {{ ...FSymbol }} }}\n"
        f"fragment FPrice on Price {{ {price} }}\nfragment FSignal on Signal {{ {signal} }}\n"
        f"fragment FSymbol on Symbol {{ name {once} }}"
    )


LATESTS: Final = [f"{name} {{ ts }}" for name in LATEST.values()]


@st.composite
def stored(draw: st.DrawFn) -> dict[tuple[str, str], Row | None]:
    """Rows of A and C by stage and symbol, some missing, some with what no column may hold."""
    found: dict[tuple[str, str], Row | None] = {}
    for stage in STAGES:
        for symbol in "AC":
            row: Row | None = {**whole(stage), "symbol": symbol}
            fate = draw(st.integers(0, 9))
            if fate == 0:
                continue  # not known: it is read
            if fate == 1:
                row = None
            elif fate < 6 and row is not None:
                for name in draw(
                    st.lists(st.sampled_from(sorted(set(row) - ROW_KEYS)), max_size=9)
                ):
                    row[name] = draw(st.sampled_from(VALUES))
            elif fate == 6 and row is not None:
                row.pop(draw(st.sampled_from(sorted(set(row) - ROW_KEYS))))
            found[stage, symbol] = row
    return found


def context_of(rows: dict[tuple[str, str], Row | None], *, away: bool) -> Context:
    """A request where the mirror has these rows; the rest is read, or cannot be."""
    services = FakeServices()
    lives = FakeLives()
    lives.lives, lives.seconds = dict.fromkeys(STAGES, 1), 0.1
    services.mirror = Mirror(lives, symbols=10)
    services.cache_away = away
    services.postgres_fails = UnavailableError("away") if away else None
    services.known_symbols = (  # type: ignore[method-assign]  # of this test
        lambda names=None: [name for name in NAMES if names is None or name in names]
    )

    async def symbols(_names: Any = None) -> list[str]:
        return []

    services.symbols = symbols  # type: ignore[assignment,method-assign]  # of this test
    for (stage, symbol), row in rows.items():
        services.mirror.keep(stage, {symbol: row}, services.mirror.begin(stage), {})
    found = cast("Services", services)
    return Context(found, LatestLoader(found), LOCAL)


async def answer(
    document: DocumentNode, context: Context, variables: Row, executor: Any
) -> tuple[bytes, ExecutionResult]:
    """The body of an answer; errors in the order of their places, as waiting may turn it."""
    found: Any = execute(SCHEMA, document, None, context, variables, executor_class=executor)
    result = await found if isawaitable(found) else found
    errors = sorted(map(repr, (error.formatted for error in result.errors or ())))
    return encode({"data": result.data}) + repr(errors).encode(), result


@settings(max_examples=30, deadline=None)
@given(query=documents(), rows=stored(), away=st.booleans())
async def test_any_document(
    query: str, rows: dict[tuple[str, str], Row | None], away: bool
) -> None:
    """Fresh or kept ready, with these variables or others: the same bytes and the same errors."""
    execution._prepared.clear()
    document = parse(query)
    faults = validate(SCHEMA, document)
    assert not faults, faults
    for variables in (*VARIABLES * 3, {"t": True, "n": ["C", "A"]}, {}, {"t": None}):
        mine, _ = await answer(document, context_of(rows, away=away), dict(variables), RowExecutor)
        theirs, _ = await answer(document, context_of(rows, away=away), dict(variables), None)
        assert mine == theirs, variables


async def test_what_is_kept_ready_asks_for_the_role_again() -> None:
    """Whoever asks what an operator has asked before is judged by the own role."""
    execution._prepared.clear()
    document = parse("{ runs { service } }")
    for role, forbidden in ((Role.OPERATOR, 0), (Role.READER, 1), (Role.OPERATOR, 0)) * 2:
        context = replace(context_of({}, away=False), principal=Principal("someone", role))
        _, result = await answer(document, context, {}, RowExecutor)
        assert sum("takes the role" in error.message for error in result.errors or ()) == forbidden
    assert len(execution._prepared) == 1
