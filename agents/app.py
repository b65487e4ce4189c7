"""The Faust application: raw bytes in, one static member a replica, nothing committed unstored."""

import faust

from agents.driver import App
from pipeline.settings import Settings
from schemas.topics import PRICES

# The broker waits this long for a slow request; Faust demands at least the session timeout.
_REQUEST_TIMEOUT = 30.0
_BUNDLES = (
    8  # partitions of a fetch that wait in the queue of the stream; more of them only cost memory
)


def make_app(settings: Settings, bootstrap: str) -> App:
    """An app by the baseline of the Faust notes: memory store, no leader, no declared topics."""
    worker = settings.worker
    return App(
        worker.group,
        broker=f"kafka://{bootstrap}",
        store="memory://",
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=worker.instance,
        broker_session_timeout=worker.session_timeout,
        broker_heartbeat_interval=worker.session_timeout / 4,
        broker_request_timeout=max(_REQUEST_TIMEOUT, worker.session_timeout),
        broker_commit_interval=1.0,
        broker_commit_every=10_000,
        stream_buffer_maxsize=_BUNDLES,
        broker_max_poll_records=worker.batch,
        stream_wait_empty=True,
        consumer_max_fetch_size=4 * 1024 * 1024,
        cython_optimizations=True,
        loghandlers=[],
    )


def prices_of(app: faust.App) -> faust.TopicT:
    """The topic `prices` as raw bytes: what cannot be decoded must not meet a codec of Faust."""
    return app.topic(
        PRICES,
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
        acks=True,
    )
