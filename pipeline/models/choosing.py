"""Which version to select for which volatility regime, by how all of a model do on a replay."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import MisuseError, RefusedError
from pipeline.kernels.trees import predict
from pipeline.models import registry
from pipeline.models.announce import Announced
from pipeline.models.comparison import Comparison
from pipeline.models.regimes import compared, rows_by_regime
from pipeline.models.registry import FeatureSetOf, check_features
from pipeline.models.samples import Samples, inputs_of, read_samples
from pipeline.models.selection import Selection, announced
from pipeline.store.pool import Pool
from schemas.blocks import VOL_REGIMES, Array
from schemas.gbdt import Gbdt


@dataclass(frozen=True, slots=True)
class Choice:
    """The version of least log loss in a regime, held against the active one there.

    None where no other can be held against it. It is chosen if the comparison says that it is
    better.
    """

    version: str | None
    comparison: Comparison | None

    @property
    def chosen(self) -> str | None:
        """The version that is to speak there; None: the active one."""
        better = self.comparison is not None and self.comparison.better
        return self.version if better else None


async def choices(pool: Pool, model: str, directory: Path) -> dict[str, Choice]:
    """For each regime the best version of a model on a replay, whether it is chosen or not.

    All are judged on the same rows, younger than what any of them was trained on. Versions of other
    features or of another horizon than the active one's in this replay are left out. The best of
    many is flattered by having been chosen: the rule holds for each by itself.

    Raises:
        MisuseError: none is active, the directory is no replay's, or it has no such rows.
        RefusedError: the active version is damaged.
    """
    rows = await registry.versions(pool, model)
    active = next((row for row in rows if row["is_active"]), None)
    if active is None:
        raise MisuseError(f"{model}: none is active, which speaks where none is selected")
    champion = await registry.load(pool, active["artifact"])
    others = []
    for row in rows:
        if row is not active and row["horizon"] == active["horizon"]:
            try:
                others.append(await registry.load(pool, row["artifact"]))
            except RefusedError:  # it cannot be selected
                continue
    return await asyncio.to_thread(_judged, champion, others, directory)


def best_in(
    regimes: Sequence[str], directory: Path, told: Callable[[str, Choice], None]
) -> Announced[Selection]:
    """A change that selects what is chosen in these regimes, in all if none, and tells the stream.

    `told` hears of each regime before anything is changed. It raises what `choices` raises, and as
    `selection.speaking_in`.
    """

    async def change(
        pool: Pool, kafka: str, model: str, feature_set_of: FeatureSetOf, reason: str = ""
    ) -> Selection:
        found = await choices(pool, model, directory)
        asked = [regime for regime in VOL_REGIMES if regime in regimes or not regimes]
        for regime in asked:
            told(regime, found[regime])
        chosen = {regime: found[regime].chosen for regime in asked}
        return await announced(pool, kafka, model, chosen, feature_set_of, reason)

    return change


def _judged(champion: Gbdt, others: Sequence[Gbdt], directory: Path) -> dict[str, Choice]:
    samples = read_samples(directory, champion.features, champion.horizon)
    try:
        check_features(champion, samples.chain.feature_set)
    except RefusedError as error:
        raise MisuseError(str(error)) from error
    said = {champion.version: predict(champion.trees, samples.x)[1]}
    fitting = [champion]
    for one in others:
        try:
            check_features(one, samples.chain.feature_set)
        except RefusedError:
            continue
        said[one.version] = predict(one.trees, inputs_of(samples, directory, one.features))[1]
        fitting.append(one)
    last = max(one.data.last_ts for one in fitting)
    held = samples.known & (samples.ts > last)
    if not held.any():
        raise MisuseError(
            f"{directory}: no row with an outcome is younger than every version that fits"
        )
    found = dict.fromkeys(VOL_REGIMES, Choice(None, None))
    for regime, inside in rows_by_regime(samples, held):
        found[regime] = _best(samples, inside, champion.version, said)
    return found


def _best(samples: Samples, rows: Array, champion: str, said: Mapping[str, Array]) -> Choice:
    """Of all that were asked the one that loses least on these rows, the first of equals."""
    against = {
        name: compared(samples, rows, p, said[champion])
        for name, p in said.items()
        if name != champion
    }
    if not against:
        return Choice(None, None)
    names = list(against)
    best = names[int(np.argmin([against[name].challenger for name in names]))]
    return Choice(best, against[best])
