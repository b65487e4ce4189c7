"""The watchdog's judgement: stuck is lag without progress while the servers answer."""

from collections.abc import Sequence

import pytest

from pipeline.errors import MisuseError
from pipeline.servers.watchdog import Observation, Watch, look, restarted, state, verdict
from pipeline.settings import load_settings

SECONDS = 60.0
AT_WORK = Watch(worked=True)


def seen(at: float, ends: Sequence[int], marks: Sequence[int], epoch: int = 1) -> Observation:
    """A look: the ends of partitions 0, 1, ... and their marks."""
    return Observation(
        at,
        {number: (0, end) for number, end in enumerate(ends)},
        dict(enumerate(marks)),
        dict.fromkeys(range(len(ends)), epoch),
    )


def after(watch: Watch, *looks: Observation | None) -> Watch:
    """The watch after these looks."""
    for one in looks:
        watch = look(watch, one)
    return watch


def standing(until: float, begin: float = 0.0, lag: int = 7) -> list[Observation]:
    """Looks every ten seconds at a partition with a lag and a mark that stands still."""
    return [seen(at, [10 + lag], [9]) for at in range(int(begin), int(until) + 1, 10)]


def test_lag_counts_what_is_there_and_not_stored() -> None:
    """What Kafka's retention has deleted is no lag; a partition without a mark begins at 0."""
    one = Observation(0.0, {0: (0, 10), 1: (8, 10), 2: (10, 10), 3: (0, 4)}, {0: 9, 1: 3, 2: 3}, {})
    assert [one.lag(partition) for partition in range(4)] == [0, 2, 0, 4]
    assert one.lags() == {1: 2, 3: 4}
    assert one.only([0, 1]).lags() == {1: 2}
    assert one.beyond({3: 3}).lags() == {1: 2, 3: 1}
    assert one.beyond({1: 10, 3: 99}).lags() == {3: 4}  # beyond the end: of an older topic


def test_standing_still_with_lag_is_stuck_when_time_is_up() -> None:
    """Not a second before; the verdict names partition, lag and seconds."""
    assert verdict(after(AT_WORK, *standing(50)), SECONDS) is None
    found = verdict(after(AT_WORK, *standing(60)), SECONDS)
    assert found is not None
    assert (found.partition, found.lag, found.seconds) == (0, 7, 60)
    assert str(found) == ("is stuck: partition 0 has a lag of 7 messages and no progress for 60 s")


def test_without_lag_nobody_is_stuck() -> None:
    """A quiet market, for however long."""
    watch = after(Watch(), *(seen(at, [10], [9]) for at in range(0, 4000, 10)))
    assert verdict(watch, SECONDS) is None
    assert watch.idle == 0


def test_time_runs_from_the_first_look_at_the_lag() -> None:
    """The quiet time before a message came is not held against the worker."""
    quiet = [seen(at, [10], [9]) for at in range(0, 100, 10)]
    watch = after(AT_WORK, *quiet, *standing(150, begin=100))
    assert watch.idle == 50
    assert verdict(watch, SECONDS) is None


def test_the_smallest_progress_is_progress() -> None:
    """A slow worker is not a stuck one, however far behind it is."""
    watch = AT_WORK
    for step in range(100):
        watch = look(watch, seen(step * 50, [10_000 + step], [step]))
        assert verdict(watch, SECONDS) is None


def test_any_lagging_partition_that_moves_is_progress() -> None:
    """Partitions are served in turn; a partition without lag proves nothing."""
    turns = [seen(at, [50, 50], [9, at // 10]) for at in range(0, 200, 10)]
    assert verdict(after(AT_WORK, *turns), SECONDS) is None
    idle = [seen(at, [50, at // 10 + 1], [9, at // 10]) for at in range(0, 200, 10)]
    found = verdict(after(AT_WORK, *idle), SECONDS)
    assert found is not None
    assert (found.partition, found.lag) == (0, 40)


def test_the_largest_lag_is_named() -> None:
    """Of several partitions that stand still."""
    found = verdict(
        after(AT_WORK, *(seen(at, [20, 90, 30], [9, 9, 9]) for at in range(0, 70, 10))), SECONDS
    )
    assert found is not None
    assert (found.partition, found.lag) == (1, 80)


def test_the_timer_does_not_run_while_a_server_is_away() -> None:
    """An outage counts for nothing, what stood still before and after it does."""
    outage = after(AT_WORK, *standing(50), *[None] * 100)
    assert verdict(outage, 50) is None  # not while the servers are away
    back = look(outage, seen(1000, [17], [9]))
    assert back.idle == 50
    assert verdict(back, SECONDS) is None
    assert verdict(look(back, seen(1010, [17], [9])), SECONDS) is not None
    assert look(back, seen(1010, [17], [10])).idle == 0
    moved_meanwhile = look(outage, seen(1000, [17], [10]))
    assert moved_meanwhile.idle == 0


def test_a_look_long_after_the_last_counts_little() -> None:
    """A machine that slept has let the worker sleep as well."""
    assert after(AT_WORK, *standing(10), seen(5000, [17], [9])).idle == 25


def test_a_start_takes_its_time() -> None:
    """A process that has not worked yet has half a minute, whatever the setting."""
    assert verdict(after(Watch(), *standing(20)), 5) is None
    assert verdict(after(Watch(), *standing(30)), 5) is not None
    assert verdict(after(AT_WORK, *standing(10)), 5) is not None
    assert verdict(after(Watch(), *standing(50)), SECONDS) is None


def test_a_claim_is_a_sign_of_life() -> None:
    """A raised epoch: the partition is being caught up; it is no work done yet."""
    watch = after(Watch(), *standing(50), seen(60, [17], [9], epoch=2))
    assert watch.idle == 0
    assert not watch.worked


def test_fruitless_restarts_bring_patience() -> None:
    """If a long catch-up was taken for standing still, the next has twice the time, up to four."""
    watch = Watch()
    for patience in (60, 120, 240, 240):
        assert watch.patience(SECONDS) == patience
        assert verdict(after(watch, *standing(patience - 10)), SECONDS) is None
        watch = after(watch, *standing(patience))
        assert verdict(watch, SECONDS) is not None
        watch = restarted(watch, stuck=True)
        assert watch.before is None
    worked = after(watch, seen(0, [17], [9]), seen(10, [17], [10]))
    assert worked.patience(SECONDS) == 60
    assert restarted(worked, stuck=True).patience(SECONDS) == 60
    assert restarted(Watch(), stuck=False).failures == 0


def test_zero_means_never() -> None:
    """The setting that switches it off."""
    assert verdict(after(AT_WORK, *standing(100_000)), 0) is None


def test_readiness_is_a_word_or_two() -> None:
    """For the line of `up`."""
    assert state(Watch(), alive=False) == "down"
    assert state(Watch(), alive=True) == "starting"
    assert state(after(Watch(), seen(0, [10], [9])), alive=True) == "ready"
    assert state(after(Watch(), seen(0, [10], [-1])), alive=True) == "starting"
    assert state(after(Watch(), seen(0, [10], [3]), seen(1, [10], [4])), alive=True) == "ready"
    assert state(after(Watch(), *standing(20)), alive=True) == "no progress for 20 s"


def test_the_setting_is_off_or_some_seconds() -> None:
    """Less than five seconds would call every start stuck."""
    assert load_settings().worker.stuck_seconds == 60
    assert load_settings(["worker.stuck_seconds=0"]).worker.stuck_seconds == 0
    for wrong in ("4.9", "-1"):
        with pytest.raises(MisuseError, match=r"worker\.stuck_seconds"):
            load_settings([f"worker.stuck_seconds={wrong}"])
