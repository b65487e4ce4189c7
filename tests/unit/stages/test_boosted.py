"""The engine gbdt in the chain: LightGBM's own bits, whatever the blocks, restarts and swaps."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest

from pipeline.errors import MisuseError
from pipeline.kernels.learners import CLIP
from pipeline.models.samples import default_inputs
from pipeline.stages.base import Block
from pipeline.stages.boosted import Activated, Boosted
from pipeline.stages.chain import Chain
from pipeline.stages.predictions import Predictions, PredictionsSettings
from schemas.blocks import Array, Rows
from schemas.models import Activation
from schemas.trees import TreeModel, read_trees
from tests.fixtures.boosted import activated
from tests.fixtures.predicting import bars_of, predict
from tests.fixtures.ticks import arrivals_of, bits, frame, settings_of, walk

TICKS = 4000
SETTINGS = settings_of(bars={"clock": "ticks:1"}, guard={"mode": "plain"})
Swaps = Mapping[int, tuple[Boosted | None, Boosted | None]]


@lru_cache
def bars() -> pd.DataFrame:
    """All columns of bars and features of the ticks."""
    rows = Chain(SETTINGS).step(arrivals_of(ticks())).rows
    both = frame(rows["bars"]).drop(columns="symbol"), frame(rows["features"])
    return pd.concat(both, axis=1).loc[:, lambda table: ~table.columns.duplicated()]


@lru_cache
def ticks() -> pd.DataFrame:
    """Of three symbols, with missing sizes and quotes: features are null again and again."""
    return walk(TICKS, ("A", "B", "C"))


@lru_cache
def trained(seed: int) -> tuple[Any, Boosted]:
    """A model that LightGBM trains on these very bars: thresholds lie at values that occur."""
    names = [*default_inputs(), "close", "volume"]
    rng = np.random.default_rng(seed)
    data = lightgbm.Dataset(
        bars()[names].to_numpy(), rng.random(TICKS) < 0.5, feature_name=names, free_raw_data=False
    )
    told = {"objective": "binary", "verbose": -1, "num_threads": 1, "num_leaves": 15, "seed": seed}
    told["learning_rate"] = 0.5  # far from one half
    model = lightgbm.train(told, data, 40)
    return model, Boosted(f"gbdt-{seed}", read_trees(model.model_to_string().encode()))


def truth(seed: int) -> Array:
    """What LightGBM says of all bars, within the bounds of every engine."""
    model, boosted = trained(seed)
    said = model.predict(bars()[list(boosted.trees.features)].to_numpy())
    clipped: Array = np.clip(said, CLIP, 1.0 - CLIP)
    return clipped


def stepped(
    swaps: Swaps, cuts: Sequence[int] = (), *, restart: bool = False
) -> list[Mapping[str, Rows]]:
    """The chain over the ticks, with these versions from these ticks on, planned at the start."""
    came, found, left = arrivals_of(ticks()), [], {}
    for at, versions in swaps.items():
        place = int(came["offset"][at]), int(came["index"][at])
        left[at] = activated(*versions, *place)
    chain = Chain(SETTINGS)
    for low, high in pairwise(sorted({0, *cuts, TICKS})):
        done = chain.activation.place if chain.activation else (-1, 0)
        for one in left.values():
            if one.activation.place > done:
                chain.plan(one)
        found.append(chain.step(came.slice(low, high)).rows)
        if restart:
            data = chain.snapshot()
            chain = Chain(SETTINGS)
            chain.restore(data)
    return found


def column(rows: Sequence[Mapping[str, Rows]], name: str) -> Array:
    """A column of the predictions."""
    return np.concatenate([part["predictions"][name] for part in rows])


def test_it_says_what_lightgbm_says() -> None:
    """Bit for bit on every row of a replay, nulls among its features, by two versions in turn."""
    one, two = trained(1)[1], trained(2)[1]
    found = column(stepped({0: (one, None), 1500: (two, None)}), "p_gbdt")
    expected = np.concatenate([truth(1)[:1500], truth(2)[1500:]])
    assert bars()[list(one.trees.features)].isna().to_numpy().mean() > 0.02
    assert found.tobytes() == expected.tobytes()
    assert len(np.unique(found)) > TICKS / 2


@pytest.mark.parametrize("restart", [False, True])
def test_blocks_and_restarts_leave_no_trace(*, restart: bool) -> None:
    """Versions come, change and go between ticks: the rows are the same whatever the blocks."""
    one, two = trained(1)[1], trained(2)[1]
    swaps = {100: (one, None), 1500: (two, one), 2200: (one, None), 3000: (None, two)}
    cuts = np.random.default_rng(4).integers(1, TICKS, 60).tolist()
    whole, parts = stepped(swaps), stepped(swaps, [*cuts, 101, 1499], restart=restart)
    assert bits(parts) == bits(whole)


def test_without_a_version_it_sleeps() -> None:
    """Null, weight 0, and the others speak as they do when a version says nothing of stale bars."""
    found = stepped({2000: (trained(1)[1], None)})
    p, w, up = (column(found, name) for name in ("p_gbdt", "w_gbdt", "p_up"))
    assert np.isnan(p[:2000]).all()
    assert (w[:2000] == 0.0).all()
    assert np.isfinite(up[50:]).all()
    assert np.isfinite(p[2000:]).all()
    assert (w[2000:] > 0.0).all()
    left_out = predict(bars_of(500, 3), versions={0: trained(1)[1]}, engines=["base_rate"])
    assert left_out["p_gbdt"].isna().all()


def test_a_stale_bar_is_not_predicted() -> None:
    """Nor by the shadow."""
    columns = bars_of(500, 3)
    stale = columns["stale"] == 1
    assert stale.any()
    found = predict(columns, versions={0: trained(1)[1]})
    assert (found["p_gbdt"].isna() == stale).all()
    stage = Predictions(PredictionsSettings())
    stage.activate(activated(None, trained(1)[1]))
    block = Block(arrivals_of(ticks()).slice(0, 0), Chain(SETTINGS).step(arrivals_of(ticks())).rows)
    assert stage.step(block).rows["predictions"]["shadow_p"].tobytes() == truth(1).tobytes()
    block.rows["bars"].columns["stale"][::2] = 1
    said = stage.step(block).rows["predictions"]["shadow_p"]
    assert np.isnan(said[::2]).all()
    assert np.isfinite(said[1::2]).all()


def test_a_shadow_moves_nothing() -> None:
    """It says what it would say in the other's place; no other bit of any stage is another one."""
    one, two = trained(1)[1], trained(2)[1]
    plain = bits(stepped({0: (one, None)}))
    beside = bits(stepped({0: (one, two)}))
    assert plain["predictions"].pop("shadow_p") == np.full(TICKS, np.nan).tobytes()
    assert beside["predictions"].pop("shadow_p") == truth(2).tobytes()
    assert beside == plain


def test_a_snapshot_knows_the_versions() -> None:
    """Restored where another version is active, or none, those of the snapshot speak."""
    one, two = trained(1)[1], trained(2)[1]
    chain, other = Chain(SETTINGS), Chain(SETTINGS)
    chain.predictions.activate(activated(one, two, 7, 3, generation=5))
    other.predictions.activate(activated(two))
    other.restore(chain.snapshot())
    assert other.activation == Activation(7, 3, "gbdt", 5, "gbdt-1", "gbdt-2")
    other.restore(Chain(SETTINGS).snapshot())
    assert other.activation is None
    assert np.isnan(column([other.step(arrivals_of(ticks())).rows], "p_gbdt")).all()


def test_what_is_planned_is_not_in_a_snapshot() -> None:
    """Who goes on from it plans anew; and plans stand in the order of their places."""
    one, two = trained(1)[1], trained(2)[1]
    chain, other = Chain(SETTINGS), Chain(SETTINGS)
    chain.plan(activated(one, None, 3))
    chain.plan(activated(two, None, 3, 1))
    with pytest.raises(ValueError, match="is not behind"):
        chain.plan(activated(one, None, 3, 1))
    other.plan(activated(one))
    other.restore(chain.snapshot())
    assert other.activation is None
    assert chain.activation == activated(two, None, 3, 1).activation
    with pytest.raises(ValueError, match="other versions"):
        Activated(Activation(1, 0, "gbdt", 1, "gbdt-2"), one)


def test_a_version_of_unknown_columns_is_refused() -> None:
    """The one before goes on, and the shadow."""
    stage = Predictions(PredictionsSettings())
    one = trained(1)[1]
    stage.activate(activated(one, one))
    strange = Boosted("gbdt-x", TreeModel(("nonsense",), 1.0, one.trees.trees))
    for active, shadow in ((strange, None), (one, strange)):
        with pytest.raises(MisuseError, match=r"gbdt-x: .* nonsense"):
            stage.activate(activated(active, shadow, generation=2))
        assert stage.activation == activated(one, one).activation
