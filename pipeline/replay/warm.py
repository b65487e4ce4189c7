"""The first start on a machine: compile the kernels on two cores, once per version of them."""

import contextlib
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np
from numba import config

from pipeline.bus.decoding import scan
from pipeline.bus.encoding import block_bytes, row_bytes
from pipeline.kernels.selection import INT_STATE, held
from pipeline.kernels.trees import predict
from pipeline.stages.bars import Bars
from pipeline.stages.base import Block
from pipeline.stages.boosted import Speaker, nobody
from pipeline.stages.chain import ChainSettings
from pipeline.stages.equity import Equity
from pipeline.stages.features import Features
from pipeline.stages.fills import Fills
from pipeline.stages.predictions import Predictions
from pipeline.stages.regimes import Regimes
from pipeline.stages.signals import Signals
from pipeline.stages.ticks import Ticks
from pipeline.store.copy import copy_pieces
from schemas.blocks import STAGES, empty
from schemas.codec import Decoder

_MARK: Final = "compiled"
_LONGEST: Final = 120.0


def warm() -> None:
    """Have all kernels compiled in the user's cache; at once when they are there already.

    The features take about as long as most others together: a process beside compiles them, the
    fills and the equity.
    Whatever goes wrong here is no harm: a kernel is compiled at its first call at the latest.
    """
    mark = Path(vars(config)["CACHE_DIR"]) / _MARK
    if mark.exists():
        return
    child = subprocess.Popen(
        [sys.executable, "-m", "pipeline.replay.warm"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    settings = ChainSettings()
    stages = (
        Ticks(settings.guard),
        Bars(settings.bars),
        Regimes(settings.regimes),
        Predictions(settings.predictions),
        Signals(settings.signals),
    )
    scan((), {})
    trees()
    block = _nothing()
    for stage in stages:
        block = stage.step(block)
    _write()
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        if child.wait(_LONGEST) == 0:
            mark.touch()


def trees() -> None:
    """Have the walk of trees compiled and loaded: no row asks for it until a version is active."""
    none = nobody()
    Speaker(none).say({}, {}, 0, np.empty(0))
    codes = np.empty(0, np.int32)
    held(1, codes, codes, codes, np.empty((0, INT_STATE), np.int64), codes)
    predict(none.trees, np.empty((0, 0)))


def _write() -> None:
    """Write a row to nowhere: of no rows no kernel is asked."""
    row = empty("signals", 1)
    block_bytes(row)
    row_bytes(row)
    copy_pieces(row, date.min, 1)


def _nothing() -> Block:
    came, _ = Decoder(0).decode(())
    return Block(came, {stage: empty(stage) for stage in STAGES})


def _beside() -> None:
    settings = ChainSettings()
    stages = (Features(settings.features), Fills(settings.fills), Equity(settings.equity))
    for stage in stages:
        stage.step(_nothing())


if __name__ == "__main__":
    _beside()
