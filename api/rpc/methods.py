"""The methods of the service; each asks the reader that GraphQL asks."""

import asyncio
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, Final

import grpc

from api.arguments import checked, page_of_names
from api.context import Context
from api.errors import ApiError, Code
from api.names import FOLLOWED
from api.operations import checked_services
from api.pagination import read_page, read_window
from api.resolvers import read_history
from api.rpc.calls import Gate, Stream
from api.rpc.messages import STAGE_OF, row_message, symbol_message
from api.subscriptions import listening
from api.topics import FILLS
from pipeline.store.keys import Role
from schemas.blocks import STAGES
from schemas.proto import tickstream_pb2 as pb

SERVICE: Final = pb.DESCRIPTOR.services_by_name["Tickstream"].full_name
OWNED: Final[Mapping[str, Collection[str]]] = {
    "all": STAGES,
    "feature": ("ticks", "bars", "features", "regimes"),
    "prediction": ("predictions", "signals"),
    "trading": ("fills", "equity"),
}
"""The stages of each service."""
ROLES: Final = {
    "ListSymbols": Role.READER,
    "GetLatest": Role.READER,
    "ListRows": Role.READER,
    "Follow": Role.READER,
    "ListServices": Role.ADMIN,
}
"""Which role each method takes; one without a rule is not served."""


class Methods:
    """What is answered, for some stages."""

    def __init__(self, stages: Collection[str]) -> None:
        self._stages = tuple(stage for stage in STAGES if stage in stages)

    async def list_symbols(
        self, context: Context, request: pb.ListSymbolsRequest
    ) -> pb.ListSymbolsResponse:
        """A page of names."""
        first = request.first if request.HasField("first") else None
        names = await page_of_names(context, None, first, request.after or None)
        return pb.ListSymbolsResponse(symbols=names)

    async def get_latest(
        self, context: Context, request: pb.GetLatestRequest
    ) -> pb.GetLatestResponse:
        """The latest rows of the symbols that are known."""
        page_max = context.services.settings.api.page_max
        if not 0 < len(request.symbols) <= page_max:
            raise ApiError(Code.BAD_INPUT, f"give 1 to {page_max} symbols")
        asked = dict.fromkeys(checked(name) for name in request.symbols)
        stages = tuple(dict.fromkeys(map(self._stage, request.stages))) or self._stages
        known = set(await context.services.symbols(asked))
        names = [name for name in asked if name in known]
        rows = await asyncio.gather(
            *(context.latest.wait(stage, name) for name in names for stage in stages)
        )
        staleness = context.services.mirror.staleness()
        found = [
            symbol_message(name, staleness, dict(zip(stages, part, strict=True)))
            for name, part in zip(names, _parts(rows, len(stages)), strict=True)
        ]
        return pb.GetLatestResponse(symbols=found, cache_unavailable=context.latest.cache_away)

    async def list_rows(self, context: Context, request: pb.ListRowsRequest) -> pb.ListRowsResponse:
        """A page of history."""
        stage = self._stage(request.stage)
        window = read_window(_arguments(request), context.services.settings.api.page_max)
        symbol = checked(request.symbol)
        page = await read_page(
            window, partial(read_history, context, stage, symbol, known=window.known)
        )
        return pb.ListRowsResponse(
            rows=[row_message(stage, row) for row in page.rows],
            has_next_page=await page.has_next_page(None),
            has_previous_page=await page.has_previous_page(None),
            start_cursor=page.start_cursor or "",
            end_cursor=page.end_cursor or "",
        )

    async def follow(self, context: Context, request: pb.FollowRequest, stream: Stream) -> None:
        """Rows of a stage from now on."""
        stage = self._stage(request.stage)
        if stage != FILLS and stage not in FOLLOWED:
            told = ", ".join((*FOLLOWED, FILLS))
            raise ApiError(Code.BAD_INPUT, f"{stage} cannot be followed: one of {told} can")
        async with listening(context, stage, request.symbols or None) as listener:
            while True:
                row = row_message(stage, await listener.take())
                await stream.send(pb.FollowResponse(row=row, dropped=listener.dropped))

    async def list_services(
        self, context: Context, _: pb.ListServicesRequest
    ) -> pb.ListServicesResponse:
        """Whether each server answers."""
        found = await checked_services(context)
        return pb.ListServicesResponse(
            services=[
                pb.Service(
                    name=one["name"],
                    ok=one["ok"],
                    seconds=one["seconds"],
                    error=one["error"] or "",
                )
                for one in found
            ]
        )

    def _stage(self, number: int) -> str:
        stage = STAGE_OF.get(number)
        if stage is None:
            raise ApiError(Code.BAD_INPUT, "give a stage")
        if stage not in self._stages:
            told = ", ".join(self._stages)
            raise ApiError(Code.BAD_INPUT, f"this server has only {told}")
        return stage


def _arguments(request: pb.ListRowsRequest) -> dict[str, Any]:
    """As a history field of GraphQL takes them."""
    names = {"from_ts": "from", "to_ts": "to"}
    given = ("from_ts", "to_ts", "first", "last", "after", "before")
    found: dict[str, Any] = {
        names.get(name, name): getattr(request, name) for name in given if request.HasField(name)
    }
    moment = {
        name: getattr(request.as_of, name)
        for name in ("event_time", "known_at")
        if request.as_of.HasField(name)
    }
    return {**found, "as_of": moment}


def _parts(rows: list[Any], size: int) -> list[list[Any]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def handlers(gate: Gate, stages: Collection[str]) -> grpc.GenericRpcHandler:
    """The service, every method of its description by its rule.

    Raises:
        KeyError: a method has no rule, or is not answered.
    """
    methods = Methods(stages)
    unary: dict[str, Any] = {
        "ListSymbols": methods.list_symbols,
        "GetLatest": methods.get_latest,
        "ListRows": methods.list_rows,
        "ListServices": methods.list_services,
    }
    found: dict[str, Any] = {}
    for method in pb.DESCRIPTOR.services_by_name["Tickstream"].methods:
        role, kind = ROLES[method.name], getattr(pb, method.input_type.name)
        give: Any = getattr(pb, method.output_type.name).SerializeToString
        # Requests come as bytes: who is not let in has none of them read.
        found[method.name] = (
            grpc.unary_stream_rpc_method_handler(
                gate.streaming(role, kind, methods.follow), None, give
            )
            if method.server_streaming
            else grpc.unary_unary_rpc_method_handler(
                gate.unary(role, kind, unary[method.name]), None, give
            )
        )
    return grpc.method_handlers_generic_handler(SERVICE, found)
