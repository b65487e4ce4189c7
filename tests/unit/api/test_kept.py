"""What is kept for who asks again."""

from api.kept import ASKED, Kept


def test_what_is_asked_twice_is_kept() -> None:
    """Once is not enough; the one that was not asked for the longest goes."""
    kept: Kept[str, int] = Kept(2)
    assert not kept.wants("a")
    assert kept.wants("a")
    for place, name in enumerate("abac"):
        if kept.get(name) is None:
            kept.put(name, place)
    assert [kept.get(name) for name in "abc"] == [0, None, 3]
    assert len(kept) == 2
    kept.clear()
    assert (len(kept), kept.asked, kept.wants("a")) == (0, 0, False)


def test_what_is_asked_once_takes_no_room() -> None:
    """However many there are."""
    kept: Kept[int, int] = Kept(2)
    assert not any(kept.wants(number) for number in range(3 * ASKED))
    assert kept.asked == ASKED
    assert not kept.wants(0)
    assert kept.wants(3 * ASKED - 1)
