"""Kafka's side of `prices`: the log, and the consumer group with its rebalances."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from agents.ports import Arrived
from schemas.arrivals import Message
from tests.simulation.faults import Faults
from tests.simulation.invariants import check_acknowledged
from tests.simulation.loop import Process

_FETCHED: Final = 12  # messages of a partition at once, at most

Note = Callable[..., None]


class Member:
    """One life of a worker in the group, and the messages it has fetched."""

    def __init__(self, process: Process, faults: Faults) -> None:
        self.process = process
        self.assigned: tuple[int, ...] = ()
        self.positions: dict[int, int] = {}
        self.fetched: deque[Arrived] = deque()
        self.dealt: set[int] = set()
        self.wake: Callable[[], object] = bool  # set by the source
        self._faults = faults

    def revoked(self) -> None:
        """Notice that everything was taken away; a message on its way through Faust may survive."""
        self.dealt.update(self.assigned)
        if self.fetched and self._faults.hits("stale"):
            survivor = self.fetched[0]
            self.fetched.clear()
            self.fetched.append(survivor)
        else:
            self.fetched.clear()
        self.assigned = ()

    def gets(self, positions: Mapping[int, int]) -> None:
        """Notice a new assignment."""
        self.assigned = tuple(positions)
        self.positions = dict(positions)
        self.dealt.update(self.assigned)
        self.wake()


class Group:
    """The messages, who reads them, and how far the group has acknowledged."""

    def __init__(
        self, log: Sequence[Sequence[Message]], faults: Faults, marks: Callable[[int], int]
    ) -> None:
        self.log = log
        self.visible = [0] * len(log)
        self.committed = [0] * len(log)
        self._faults = faults
        self._marks = marks
        self._members: list[Member] = []

    def publish(self, partition: int) -> None:
        """Make the next message of a partition visible."""
        self.visible[partition] += 1
        for member in self._members:
            if partition in member.assigned:
                member.wake()

    def read(self, partition: int, low: int, high: int) -> Sequence[Arrived]:
        """The visible messages with low <= offset < high."""
        end = min(high, self.visible[partition])
        return [
            Arrived(partition, b"key", message)
            for message in self.log[partition][max(low, 0) : end]
        ]

    def fetch(self, member: Member) -> None:
        """Give a member some of the messages that come next; a zombie is told nothing new."""
        if member not in self._members:
            return
        chance = self._faults.chance
        waiting = [p for p in member.assigned if member.positions[p] < self.visible[p]]
        chance.shuffle(waiting)
        for partition in waiting:
            low = member.positions[partition]
            found = self.read(partition, low, low + chance.randint(1, _FETCHED))
            member.positions[partition] = low + len(found)
            for one in found:
                member.fetched.append(one)
                if self._faults.hits("repeat"):
                    member.fetched.append(one)

    def join(self, member: Member, before: Member | None) -> None:
        """A worker (re)starts: as a static member it may get what it had, without a rebalance."""
        if before in self._members and before is not None:
            self._members.remove(before)
            if self._faults.chance.random() < 1 / 2:
                self._members.append(member)
                member.gets(self._positions(before.assigned))
                return
        self._members.append(member)
        self.rebalance()

    def leave(self, member: Member) -> None:
        """A member went silent for the length of a session: the others get its partitions."""
        if member in self._members:
            self._members.remove(member)
            self.rebalance()

    def rebalance(self) -> None:
        """Take everything from everyone and deal it anew; who stands still is left out."""
        self._members = [m for m in self._members if not (m.process.frozen or m.process.dead)]
        for member in self._members:
            member.revoked()
        if not self._members:
            return
        dealt: dict[int, list[int]] = {i: [] for i in range(len(self._members))}
        for partition in range(len(self.log)):
            dealt[self._faults.chance.randrange(len(self._members))].append(partition)
        for i, member in enumerate(self._members):
            member.gets(self._positions(dealt[i]))

    def knows(self, member: Member) -> bool:
        """Whether a member is still one."""
        return member in self._members

    def commit(self, member: Member, offsets: Mapping[int, int]) -> bool:
        """Take acknowledgements of partitions that are the member's; refuse those of a zombie."""
        if member not in self._members:
            return False
        for partition, offset in offsets.items():
            if partition in member.assigned and offset > self.committed[partition]:
                self.committed[partition] = offset
                check_acknowledged(partition, offset, self._marks(partition))
        return True

    def _positions(self, partitions: Sequence[int]) -> dict[int, int]:
        """Where reading begins: at the committed offset, or behind it by a fault of the client."""
        found = {}
        for partition in partitions:
            start = self.committed[partition]
            if self._faults.hits("skip") and start + 1 < len(self.log[partition]):
                start += 1
            found[partition] = start
        return found
