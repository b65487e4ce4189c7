"""The gRPC server: bounded, on loopback unless keys are demanded, with health and reflection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection

from api.backing import Backing
from api.entry import say, shown
from api.guard import is_loopback, refuse_strangers
from api.health import is_ready
from api.rpc.calls import Gate
from api.rpc.methods import OWNED, SERVICE, handlers
from pipeline.errors import UnavailableError
from pipeline.waiting import ended

_GRACE: Final = 5.0  # seconds for calls under way at the end
_REQUEST_MAX: Final = 256 * 1024  # bytes
_ANSWER_MAX: Final = 32 * 1024 * 1024  # bytes
_LOOK: Final = 1.0  # seconds between looks at what stands behind
_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),  # a second server on the port would take half of the calls, unseen
    ("grpc.max_receive_message_length", _REQUEST_MAX),
    ("grpc.max_send_message_length", _ANSWER_MAX),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 2),
    ("grpc.keepalive_time_ms", 30_000),  # who has gone without a word is found out
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 300_000),
)


@asynccontextmanager
async def serving(backing: Backing, service: str = "all") -> AsyncIterator[int]:
    """Serve for the length of a block; the port.

    Raises:
        MisuseError: others could reach it, and nobody would ask them for a key.
        UnavailableError: the port is taken.
    """
    settings = backing.services.settings
    refuse_strangers(settings.rpc.host, "gRPC", auth=settings.api.auth)
    server = grpc.aio.server(
        options=[*_OPTIONS, ("grpc.max_concurrent_streams", settings.rpc.streams_max)],
        maximum_concurrent_rpcs=settings.rpc.calls_max,
    )
    server.add_generic_rpc_handlers((handlers(Gate(backing), OWNED[service]),))
    state = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    development = settings.api.development
    if is_loopback(settings.rpc.host) if development is None else development:
        names = (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
        reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), server)
    host = settings.rpc.host
    try:
        port = server.add_insecure_port(f"{shown(host)}:{settings.rpc.port}")
    except RuntimeError as error:
        raise UnavailableError(
            f"port {settings.rpc.port} on {host} cannot be had for gRPC: free it, or choose "
            "another by --set rpc.port=PORT (0: a free one)"
        ) from error
    await server.start()
    say("rpc", f"serving {shown(host)}:{port}")
    looking = asyncio.create_task(_tell_health(backing, state))
    try:
        yield port
    finally:
        await ended(looking)
        await server.stop(_GRACE)


async def _tell_health(backing: Backing, state: health.HealthServicer) -> None:
    """Keep the standard health service in step with `/readyz`."""
    while True:
        ready = await is_ready(backing.services, backing.access)
        statuses = health_pb2.HealthCheckResponse.ServingStatus
        status = statuses.Value("SERVING" if ready else "NOT_SERVING")
        for name in ("", SERVICE):
            await state.set(name, status)
        await asyncio.sleep(_LOOK)
