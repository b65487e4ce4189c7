"""When another version of a model may speak on a partition."""

from collections.abc import Sequence

from agents.ports import Arrived, Owned
from pipeline.models.following import Offer


def offer_for(owned: Owned, messages: Sequence[Arrived], newest: Offer | None) -> Offer | None:
    """The versions that are to speak from these new messages on, if they are others than now.

    Not where an older owner may have published already, nor before what is planned.
    """
    if newest is None or not messages:
        return None
    known, first = owned.activation, messages[0].message.offset
    if known is not None:
        is_known = known.model == newest.model and known.generation >= newest.generation
        if is_known or known.offset >= first:
            return None
    return newest if first >= owned.published else None
