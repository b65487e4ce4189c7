"""What may be changed from outside: `BENCH_RUNS=1 BENCH_SECONDS=3 make bench` for a quick look.

The variables do not begin with TICKSTREAM_: tests/conftest.py drops those, so that no setting of
the user's enters a test.

    BENCH_RUNS            3     runs of each configuration, of which the median is told
    BENCH_SECONDS         30    how long the amounts last at the target rate
    BENCH_LATENCY_SECONDS 20    measured seconds of the steady cases
    BENCH_LATENCY_TICKS   10    ticks of a message there
    BENCH_SILENCE         60    seconds of silence before the case after silence
    BENCH_HISTORY_ROWS    24e6  rows that pages of history are read from
    BENCH_SOAK_SECONDS    600
    BENCH_SOAK_RATE       0     ticks a second; 0: half of what is measured first
"""

from pipeline.settings import child_environment

_DEFAULTS = {
    "RUNS": 3.0,
    "SECONDS": 30.0,
    "LATENCY_SECONDS": 20.0,
    "LATENCY_TICKS": 10.0,
    "SILENCE": 60.0,
    "HISTORY_ROWS": 24e6,
    "SOAK_SECONDS": 600.0,
    "SOAK_RATE": 0.0,
}


def knob(name: str) -> float:
    """The value of the variable BENCH_`name`, or its default."""
    return float(child_environment({}).get(f"BENCH_{name}", _DEFAULTS[name]))
