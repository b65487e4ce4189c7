"""Outcomes on disk: as they were, complete or not there, one process at a time."""

from pathlib import Path

import pytest

from pipeline.disk import MANIFEST
from pipeline.errors import MisuseError, TickstreamError
from pipeline.replay.kept_trials import KEPT, KeptTrials, finished, unfinished
from pipeline.replay.trial import Told
from pipeline.replay.trial_figures import Outcome

TOLD = Told(
    "hash", [Outcome({"sharpe": 0.1 + 0.2, "auc": None, "trades": 3}, [1, 2], [0.1, 1e300])]
)


def test_an_outcome_comes_back_as_it_was(tmp_path: Path) -> None:
    """To the last bit; nothing half-written is left beside it."""
    kept = KeptTrials(tmp_path)
    assert kept.get("a") is None
    kept.put("a", TOLD)
    assert kept.get("a") == TOLD
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("text", ["", '{"settings_hash": "x"', "[]", '{"outcomes": [{"a": 1}]}'])
def test_a_damaged_one_is_computed_anew(tmp_path: Path, text: str) -> None:
    """As if it was not there."""
    (tmp_path / "a.json").write_text(text)
    assert KeptTrials(tmp_path).get("a") is None


def test_a_finished_sweep_lends_its_outcomes(tmp_path: Path) -> None:
    """They are taken over; what is not asked for any more goes."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    KeptTrials(tmp_path / "old").put("a", TOLD)
    kept = KeptTrials(tmp_path / "new", tmp_path / "old")
    kept.put("b", TOLD)
    assert kept.get("a") == TOLD
    kept.only(["a"])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]
    assert (tmp_path / "old" / "a.json").exists()


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """What cannot be kept ends the sweep."""
    with pytest.raises(TickstreamError, match="cannot be written"):
        KeptTrials(tmp_path / "none").put("a", TOLD)


def test_an_output_grows_beside_its_name(tmp_path: Path) -> None:
    """It stays when interrupted, is owned by one, goes under its name when finished."""
    out = tmp_path / "out"
    with unfinished(out) as folder:
        KeptTrials(folder / KEPT).put("a", TOLD)
        with pytest.raises(MisuseError, match="another process works on it"), unfinished(out):
            pass
    assert not out.exists()
    with unfinished(out) as folder:
        assert KeptTrials(folder / KEPT).get("a") == TOLD
        (folder / MANIFEST).write_text("{}")
        finished(folder, out)
    assert {path.name for path in out.iterdir()} == {KEPT, MANIFEST}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_nothing_kept_leaves_nothing(tmp_path: Path) -> None:
    """A slip before the first run leaves no trace; another's directory stays as it is."""
    with pytest.raises(RuntimeError), unfinished(tmp_path / "out"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(MisuseError, match="not the output"), unfinished(tmp_path / "mine"):
        pass
