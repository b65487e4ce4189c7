"""The topic `models` followed by a worker: which versions may speak, each verified beforehand."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import structlog
from pydantic import ValidationError

from pipeline.bus.publisher import Publisher
from pipeline.bus.topics import bounds, partitions_of, reader
from pipeline.clock import monotonic, own_time
from pipeline.errors import RefusedError, UnavailableError
from pipeline.models import registry
from pipeline.models.activations import activated
from pipeline.models.announce import alert
from pipeline.stages.boosted import Activated, Boosted, named
from pipeline.stages.chain import ChainSettings
from pipeline.store.pool import Pool
from schemas.models import Activation, Promotion
from schemas.topics import MODELS

LOG: Final = structlog.get_logger()
_FETCH_MS: Final = 500  # that the broker holds a fetch while nothing comes; news come at once
_PAUSE: Final = 1.0  # seconds between attempts
_KEPT: Final = 8  # versions that are ready to be gone back to
_LOOK: Final = 0.001  # seconds between looks at the event loop meanwhile


@dataclass(frozen=True, slots=True)
class Offer:
    """Versions of one generation of a model, ready to speak."""

    model: str
    generation: int
    active: Boosted | None
    shadow: Boosted | None = None
    selected: Mapping[str, Boosted | None] = field(default_factory=dict)  # by volatility regime

    def at(self, offset: int, index: int = 0) -> Activated:
        """Let them speak from the first tick at or behind a place on."""
        activation = Activation(offset, index, **self.names())
        return Activated(activation, self.active, self.shadow, self.selected)

    def names(self) -> dict[str, Any]:
        """The generation and its versions by their names, as an activation has them."""
        return {
            "model": self.model,
            "generation": self.generation,
            "version": named(self.active),
            "shadow": named(self.shadow),
            "selected": {regime: named(one) for regime, one in self.selected.items()},
        }


class Follower:
    """Hears of promotions, and offers what it could verify; what is refused changes nothing."""

    def __init__(
        self, kafka: str, pool: Pool, publisher: Publisher, model: str, chain: ChainSettings
    ) -> None:
        self._kafka = kafka
        self._pool = pool
        self._publisher = publisher
        self._model = model
        self._chain = chain
        self._known: dict[str, Boosted] = {}  # by artifact, the last used one last
        self._heard = 0  # generation
        self.newest: Offer | None = None
        self.caught_up = asyncio.Event()  # what was on the topic at the start is known

    async def run(self) -> NoReturn:
        """Until cancelled, whatever becomes of the servers."""
        while True:
            try:
                async with reader(self._kafka, _FETCH_MS) as consumer:
                    partitions = await partitions_of(consumer, MODELS)
                    consumer.assign(partitions)
                    edges = await bounds(consumer, partitions)
                    while True:
                        places = [await consumer.position(one) for one in partitions]
                        ends = [edges[one.partition][1] for one in partitions]
                        if all(at >= end for at, end in zip(places, ends, strict=True)):
                            self.caught_up.set()
                        batches = await consumer.getmany(timeout_ms=_FETCH_MS)
                        await self._hear([one.value for part in batches.values() for one in part])
            except UnavailableError as error:
                LOG.warning("models_unheard", error=str(error), pause=_PAUSE)
                await asyncio.sleep(_PAUSE)

    async def activated(self, planned: Sequence[Activation]) -> list[Activated]:
        """Activations that were stored, with their versions.

        Raises:
            StateError: a version cannot be used any more.
            UnavailableError: Postgres does not answer.
        """
        return await activated(self._pool, planned, self._known)

    async def _hear(self, values: Sequence[bytes | None]) -> None:
        """Of the news take the newest of our model."""
        newest: Promotion | None = None
        for value in values:
            try:
                one = Promotion.model_validate_json(value or b"")
            except ValidationError as error:
                LOG.warning("news_unreadable", topic=MODELS, error=error.errors()[0]["msg"])
                continue
            if one.model == self._model and one.generation > self._heard:
                self._heard, newest = one.generation, one
        while newest is not None:
            try:
                await self._take(newest)
            except UnavailableError as error:
                LOG.warning("model_unread", version=newest.version, error=str(error), pause=_PAUSE)
                await asyncio.sleep(_PAUSE)
            else:
                newest = None

    async def _take(self, news: Promotion) -> None:
        """Offer what the news names, or tell why not; if only its shadow is refused, the rest."""
        async with _watched() as watched:
            name, selected = str(news.version), dict[str, Boosted | None]()
            try:
                active = await self._verified(news.version, news.artifact)
                for regime, one in news.selected.items():
                    name = one.version
                    selected[regime] = await self._verified(one.version, one.artifact)
            except RefusedError as error:
                await self._refuse(news.model, name, error)
                return
            try:
                shadow = await self._verified(news.shadow, news.shadow_artifact)
            except RefusedError as error:
                await self._refuse(news.model, str(news.shadow), error)
                shadow = None
        self.newest = Offer(news.model, news.generation, active, shadow, selected)
        LOG.info(
            "model_offered",
            **self.newest.names(),
            seconds=round(watched.seconds, 4),
            held_up=round(watched.longest, 4),
        )

    async def _refuse(self, model: str, version: str, error: RefusedError) -> None:
        LOG.warning("model_refused", model=model, version=version, error=str(error))
        await alert(self._publisher, model, version, str(error))

    async def _verified(self, name: str | None, artifact: str | None) -> Boosted | None:
        """A version that has been found to be what it says, and good for this chain."""
        if name is None or artifact is None:
            return None
        found = self._known.pop(artifact, None)
        if found is None:
            version = await registry.load(self._pool, artifact)
            registry.check_chain(version, self._chain)
            found = Boosted(version.version, version.trees)
        if found.version != name:
            raise RefusedError(f"artifact {artifact[:12]} is {found.version}, not {name}")
        self._known[artifact] = found
        for old in list(self._known)[:-_KEPT]:
            del self._known[old]
        return found


@dataclass(slots=True)
class _Watched:
    """How long something took, and for how long it held up the event loop at most, in seconds.

    What the loop itself was at meanwhile, as the steps of the stream, holds nobody up.
    """

    seconds: float = 0.0
    longest: float = 0.0


@asynccontextmanager
async def _watched() -> AsyncIterator[_Watched]:
    """Watch the event loop meanwhile."""
    found = _Watched()

    async def look() -> None:
        while True:
            began, busy = monotonic(), own_time()
            await asyncio.sleep(_LOOK)
            waited = monotonic() - began - (own_time() - busy)
            found.longest = max(found.longest, waited - _LOOK)

    began = monotonic()
    looking = asyncio.ensure_future(look())
    try:
        yield found
    finally:
        found.seconds = monotonic() - began
        looking.cancel()
