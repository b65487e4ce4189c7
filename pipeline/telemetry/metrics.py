"""Every figure that a process tells of itself, by name and labels, as Prometheus reads it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
# By name, and by the values of its labels.
Values = Mapping[str, Mapping[tuple[str, ...], float]]


@dataclass(frozen=True, slots=True)
class Figure:
    """What a name stands for.

    Args:
        kind: a `counter` only grows, from 0 at the start of the process; a `gauge` is as it is now.
        labels: their values come from closed lists, never from outside.
    """

    kind: Literal["counter", "gauge"]
    text: str
    labels: tuple[str, ...] = ()


FIGURES: Final[Mapping[str, Figure]] = {
    "tickstream_cache_hits_total": Figure(
        "counter", "Values that the cache had, known absences among them.", ("kind",)
    ),
    "tickstream_cache_misses_total": Figure(
        "counter", "Values that the cache had not, or could not give.", ("kind",)
    ),
    "tickstream_cache_absences_total": Figure(
        "counter", "Hits that said that there is nothing.", ("kind",)
    ),
    "tickstream_cache_loads_total": Figure(
        "counter", "Values that were read from where they come from.", ("kind",)
    ),
    "tickstream_cache_shared_total": Figure(
        "counter", "Times that the reading of another was waited for instead.", ("kind",)
    ),
    "tickstream_cache_failures_total": Figure(
        "counter", "Times that the cache was away, or too slow."
    ),
    "tickstream_postgres_acquired_total": Figure("counter", "Connections lent by the pool."),
    "tickstream_postgres_wait_seconds_total": Figure(
        "counter", "Seconds that borrowers waited for a connection, in all."
    ),
    "tickstream_postgres_longest_wait_seconds": Figure(
        "gauge", "Seconds of the longest of these waits."
    ),
    "tickstream_postgres_refused_total": Figure(
        "counter", "Times that no connection came free in time."
    ),
    "tickstream_postgres_failures_total": Figure(
        "counter", "Times that Postgres was away or went away meanwhile."
    ),
    "tickstream_postgres_statements_total": Figure("counter", "Statements that the pool ran."),
    "tickstream_postgres_connections": Figure(
        "gauge", "Connections of the pool that are open now, lent or idle.", ("state",)
    ),
    "tickstream_api_subscriptions": Figure("gauge", "Subscriptions that are open."),
    "tickstream_api_dropped_total": Figure(
        "counter", "Rows that subscribers who read too slowly lost."
    ),
    "tickstream_api_copied_symbols": Figure(
        "gauge", "Symbols whose latest rows this process has by itself."
    ),
    "tickstream_api_staleness_seconds": Figure(
        "gauge", "Age of these rows; 0 where they are read when they are asked for."
    ),
}


def exposition(values: Values) -> bytes:
    """The text that Prometheus reads.

    Raises:
        KeyError: a name is not declared here.
    """
    registry = CollectorRegistry()
    registry.register(_Told(values))
    return generate_latest(registry)


class _Told(Collector):
    def __init__(self, values: Values) -> None:
        self._values = values

    def collect(self) -> Iterator[Metric]:
        """Each figure with its values."""
        for name, by_label in self._values.items():
            figure = FIGURES[name]
            made = CounterMetricFamily if figure.kind == "counter" else GaugeMetricFamily
            family = made(name, figure.text, labels=figure.labels)
            for labels, value in by_label.items():
                family.add_metric(labels, value)
            yield family
