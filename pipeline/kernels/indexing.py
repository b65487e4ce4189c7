"""Indices of kernels count from the start of an array: compiled without a look from which end.

Python lets -1 mean the last item, so numba asks of every signed index whether it is negative: a
comparison, an addition and a choice for each of some four hundred accesses a tick, a fifth of the
time of the features. Here signed indices of arrays become unsigned ones once types are known, and
nothing is left to ask. A negative number that is written out (`x[-1]`) still counts from the end; a
negative one that is computed is out of bounds, as it would be in C.
"""

import operator
from collections.abc import Iterator
from typing import Any, Final

from numba.core import compiler, compiler_machinery, typed_passes
from numba.core import ir as _ir
from numba.core import types as _types

# numba is typed in parts only.
ir: Final[Any] = _ir
types: Final[Any] = _types
passes: Final[Any] = compiler_machinery
pipelines: Final[Any] = compiler.DefaultPassBuilder

_UNSIGNED: Final = types.uintp


def _counts_from_start(kind: Any) -> bool:
    """Whether a type of an index is a signed integer that no literal makes negative."""
    if isinstance(kind, types.IntegerLiteral):
        return bool(kind.literal_value >= 0)
    return isinstance(kind, types.Integer) and bool(kind.signed)


def _as_unsigned(kind: Any) -> Any:
    """The type that an index is cast to; itself where it stays as it is."""
    if isinstance(kind, types.BaseTuple):
        return types.Tuple([_as_unsigned(part) for part in kind])
    return _UNSIGNED if _counts_from_start(kind) else kind


@passes.register_pass(mutates_CFG=False, analysis_only=False)
class _Unsigned(passes.FunctionPass):  # type: ignore[misc]  # a base without types
    """Casts the indices of arrays in a typed function."""

    _name = "unsigned_indices"

    def __init__(self) -> None:
        passes.FunctionPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        """Rewrite the function in place; whether anything changed."""
        changed = False
        for block in state.func_ir.blocks.values():
            body: list[Any] = []
            for statement in block.body:
                for cast in _casts(state, block.scope, statement):
                    body.append(cast)
                    changed = True
                body.append(statement)
            block.body = body
        return changed


def _casts(state: Any, scope: Any, statement: Any) -> Iterator[Any]:
    """The cast in front of a statement that reads or writes an item of an array."""
    kinds, calls = state.typemap, state.calltypes
    access: Any
    if isinstance(statement, ir.SetItem):
        access, container = statement, statement.target
    elif isinstance(statement, ir.Assign) and getattr(statement.value, "op", "") == "getitem":
        access, container = statement.value, statement.value.value
    else:
        return
    array, index = kinds[container.name], kinds[access.index.name]
    wanted = _as_unsigned(index)
    if not isinstance(array, types.Array) or wanted == index:
        return
    name = scope.redefine("$unsigned", access.loc)
    kinds[name.name] = wanted
    yield ir.Assign(ir.Expr.cast(access.index, access.loc), name, access.loc)
    access.index = name
    former = calls.pop(access)
    if isinstance(access, ir.SetItem):
        calls[access] = state.typingctx.resolve_setitem(array, wanted, former.args[2])
    else:
        read = (array, wanted)
        calls[access] = state.typingctx.resolve_function_type(operator.getitem, read, {})


class FromStart(compiler.CompilerBase):
    """numba's compiler with unsigned indices."""

    def define_pipelines(self) -> list[Any]:
        """One pipeline, numba's own with one more pass."""
        manager = pipelines.define_nopython_pipeline(self.state)
        manager.add_pass_after(_Unsigned, typed_passes.PreLowerStripPhis)
        manager.finalize()
        return [manager]
