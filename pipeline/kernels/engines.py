"""Engines that are rules: a score for each bar, above zero where it speaks for a rise."""

import math
from typing import Final

from pipeline.kernels.hot import loop
from schemas.blocks import Array

MOMENTUM, MEAN_REVERSION, BREAKOUT, LAST_SIGN = range(4)  # rows of the scores
RULES: Final = ("momentum", "mean_reversion", "breakout", "last_sign")  # their names
# Features that they look at, in the order of the arguments of `scores`.
INPUTS: Final = (
    "bar_ret_1", "bar_ret_20", "bar_ewma_vol", "boll_z_20", "vwap_dev_20", "donchian_pos_20",
    "realized_vol_20",
)  # fmt: skip
FARTHEST: Final = 8.0  # of a mean reversion, in standard deviations
WIDEST: Final = 3.0  # of an expansion
_BARS: Final = math.sqrt(20.0)


@loop
def scores(
    symbol: Array,
    signs: Array,
    out: Array,
    ret_1: Array,
    ret_20: Array,
    vol: Array,
    boll_z: Array,
    vwap_dev: Array,
    donchian: Array,
    realized: Array,
) -> None:
    """Scores of bars of shape (n,) into `out` (4 or more, n or more); NaN where a rule is silent.

    momentum: the mean of the sign of the return over 20 bars and of the close's place in their
    range, -1..1. mean_reversion: the mean of -z of the close and of its distance from the vwap in
    units of the volatility; of z alone without volume. breakout: the sign of a close that is the
    highest or the lowest of 20, times the present volatility over that of the 20 bars; otherwise
    silent. last_sign: the sign of the last return that was not zero, kept in `signs` (s,); a null
    return, as the first of an instrument is, ends it.
    """
    for i in range(symbol.shape[0]):
        s = symbol[i]
        place = donchian[i]
        ret = ret_20[i]
        sign = 1.0 if ret > 0.0 else (-1.0 if ret < 0.0 else ret)  # zero and null stay
        out[MOMENTUM, i] = 0.5 * (sign + 2.0 * place - 1.0)

        score = -boll_z[i]
        if vol[i] > 0.0 and not math.isnan(vwap_dev[i]):
            score = 0.5 * (score - vwap_dev[i] / (vol[i] * _BARS))
        if score > FARTHEST:
            score = FARTHEST
        elif score < -FARTHEST:
            score = -FARTHEST
        out[MEAN_REVERSION, i] = score

        out[BREAKOUT, i] = math.nan
        if (place >= 1.0 or place <= 0.0) and realized[i] > 0.0 and vol[i] > 0.0:
            wide = min(vol[i] * _BARS / realized[i], WIDEST)
            out[BREAKOUT, i] = wide if place >= 1.0 else -wide

        last = ret_1[i]
        if math.isnan(last):
            signs[s] = 0.0
        elif last != 0.0:
            signs[s] = 1.0 if last > 0.0 else -1.0
        out[LAST_SIGN, i] = math.nan if math.isnan(last) else signs[s]
