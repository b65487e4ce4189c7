"""Who holds which partition in a consumer group, as the broker sees it."""

from typing import Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import KafkaError

from pipeline.errors import UnavailableError

_UUID: Final = 36


async def owners(bootstrap: str, group: str, topic: str) -> dict[int, str]:
    """The static member (`group.instance.id`) that each partition of a topic is assigned to.

    Raises:
        UnavailableError: the broker does not answer.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        (answer,) = await admin.describe_consumer_groups([group])
        found: dict[int, str] = {}
        for _, _, _, _, _, members, *_ in answer.groups:
            for member, _, _, _, assignment in members:
                if not assignment:  # it has just joined
                    continue
                held = ConsumerProtocolMemberAssignment.decode(assignment).assignment
                for name, partitions in held:
                    if name == topic:
                        # A broker calls a static member by its instance, a dash and a UUID.
                        found |= dict.fromkeys(partitions, member[: -_UUID - 1])
    except (KafkaError, OSError) as error:
        raise UnavailableError(f"Kafka at {bootstrap} does not answer: {error}") from error
    finally:
        await admin.close()
    return found
