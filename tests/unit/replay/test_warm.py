"""What is compiled before work begins."""

from pipeline.kernels.documents import documents
from pipeline.kernels.packing import pack
from pipeline.kernels.streaming import stream
from pipeline.replay.warm import _write


def test_writers_are_compiled() -> None:
    """The kernels that write rows are ready, each for the arrays that live work gives it."""
    _write()
    assert [len(vars(kernel)["overloads"]) for kernel in (stream, documents, pack)] == [1, 1, 1]
