"""What the resolvers of one request share."""

from dataclasses import dataclass, field
from typing import Any

from api.hub import Listener
from api.latest import LatestLoader
from api.principals import Principal
from api.services import Services


@dataclass(frozen=True, slots=True)
class Context:
    """The services of the process, the loader of the request and who it comes from."""

    services: Services
    latest: LatestLoader
    principal: Principal
    memo: dict[str, Any] = field(default_factory=dict)
    """What the request has asked for once, by the name of who keeps it."""
    listeners: list[Listener] = field(default_factory=list)
    """What a subscription waits at."""
