"""What Prometheus reads of the API, over real stores."""

from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from pipeline.settings import Settings, StoreSettings
from pipeline.store.keys import Role, create_key
from pipeline.store.pool import open_pool
from pipeline.telemetry.metrics import FIGURES
from tests.integration.api.conftest import Feed, ask, make_rows, served


async def read(client: httpx.AsyncClient) -> dict[tuple[str, ...], float]:
    """Values by name and the values of labels."""
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_every_figure_is_told(settings: Settings, repository: Path) -> None:
    """Those that are declared, by their names, no other; the README names their families."""
    async with served(settings) as client:
        found = await read(client)
    assert {name for name, *_ in found} == set(FIGURES)
    readme = (repository / "README.md").read_text()
    assert all(f"`{name.rsplit('_', len(name.split('_')) - 2)[0]}_`" in readme for name in FIGURES)


async def test_figures_grow_with_what_is_asked(settings: Settings, feed: Feed) -> None:
    """Hits, misses and absences by kind; statements and connections of Postgres."""
    await feed.commit({"bars": make_rows("bars", "A", 2)}, ["A"])
    api = settings.api.model_copy(update={"copied_symbols": 0})
    query = '{ symbols(names: ["A"]) { bar { close } fill { price } } }'
    async with served(settings.model_copy(update={"api": api})) as client:
        before = await read(client)
        for _ in range(3):
            assert "errors" not in await ask(client, query)
        after = await read(client)
    grown = {place: after[place] - before[place] for place in after}
    assert grown["tickstream_cache_misses_total", "bar"] == 1
    assert grown["tickstream_cache_hits_total", "bar"] == 2
    assert grown["tickstream_cache_hits_total", "fill"] == 2
    assert grown["tickstream_cache_absences_total", "fill"] == 2
    assert grown["tickstream_cache_hits_total", "price"] == 0
    assert grown["tickstream_postgres_statements_total",] >= 2
    assert after["tickstream_postgres_connections", "idle"] >= 1
    assert after["tickstream_postgres_wait_seconds_total",] > 0


async def test_the_cache_goes(settings: Settings) -> None:
    """Failures are counted, and the page itself needs no server."""
    away = settings.model_copy(update={"redis": "redis://127.0.0.1:1/0"})
    async with served(away) as client:
        await ask(client, "{ modelVersions { version } }")
        assert (await read(client))["tickstream_cache_failures_total",] >= 1


async def test_who_may_read_it(settings: Settings) -> None:
    """Where keys are demanded, one of any role."""
    assert settings.postgres is not None
    pool = await open_pool(settings.postgres, StoreSettings())
    key = (await create_key(pool, "k", Role.READER, None)).text
    await pool.close()
    api = settings.api.model_copy(update={"auth": True})
    async with served(settings.model_copy(update={"api": api})) as client:
        answer = await client.get("/metrics")
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        headers = {"authorization": f"Bearer {key}"}
        assert (await client.get("/metrics", headers=headers)).status_code == 200
