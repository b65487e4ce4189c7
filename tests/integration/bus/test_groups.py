"""Who holds a partition, asked of a real broker."""

import os

from aiokafka import AIOKafkaConsumer

from pipeline.bus.groups import owners
from pipeline.bus.topics import ensure_topics
from pipeline.servers import Addresses
from pipeline.settings import TopicSettings
from schemas.topics import PRICES


async def test_the_holder_is_the_static_member(addresses: Addresses) -> None:
    """By the name of its instance, dashes included; nobody holds anything in an unknown group."""
    await ensure_topics(addresses.kafka, TopicSettings())
    group = f"group-{os.urandom(6).hex()}"
    consumer = AIOKafkaConsumer(
        PRICES,
        bootstrap_servers=addresses.kafka,
        group_id=group,
        group_instance_id="worker-1",
    )
    await consumer.start()
    try:
        held = {place.partition for place in consumer.assignment()}
        assert held
        assert await owners(addresses.kafka, group, PRICES) == dict.fromkeys(held, "worker-1")
        assert await owners(addresses.kafka, group, "signals") == {}
        # Only now: a broker that never had a group says for a while that it knows no coordinator.
        assert await owners(addresses.kafka, f"{group}-other", PRICES) == {}
    finally:
        await consumer.stop()
