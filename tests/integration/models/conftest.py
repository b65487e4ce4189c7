"""What the tests of models on real servers share."""

import os

import pytest

from pipeline.bus.topics import ensure_topics
from pipeline.servers import Addresses
from pipeline.settings import TopicSettings


@pytest.fixture
async def kafka(addresses: Addresses) -> str:
    """A broker with all topics."""
    await ensure_topics(addresses.kafka, TopicSettings())
    return addresses.kafka


@pytest.fixture
def model() -> str:
    """A model of this test's own: the topic is everybody's."""
    return f"m{os.urandom(6).hex()}"
