"""Replays schedules by their seeds: `python -m tests.simulation SEED...`."""

import sys
import traceback

from tests.simulation.quiet import quiet
from tests.simulation.schedule import run


def main() -> int:
    """Print the trace of each seed; 1 if one broke a promise."""
    broken = 0
    for seed in map(int, sys.argv[1:]):
        lines: list[str] = []
        try:
            with quiet():
                outcome = run(seed, trace=lines)
        except AssertionError:
            broken = 1
            traceback.print_exc(file=sys.stdout)
            end = "BROKEN"
        else:
            end = f"held: {outcome.messages} messages, {outcome.workers} workers"
        sys.stdout.write("\n".join([*lines, f"seed {seed} {end}\n"]))
    return broken


if __name__ == "__main__":
    sys.exit(main())
