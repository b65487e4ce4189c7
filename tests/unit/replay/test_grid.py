"""The parameters of a sweep: combinations, samples, files, and slips."""

from pathlib import Path

import pytest

from pipeline.errors import MisuseError
from pipeline.replay.grid import Range, combinations, read_grid, vary_option


def test_every_combination_in_order() -> None:
    """The last key varies fastest; values are read as --set reads them."""
    grid = vary_option(["signals.cost_bp=0.1,0.25", "bars.clock=time:10s,row", "a.b=[[1],[1,2]]"])
    found = combinations(grid)
    assert len(found) == 8
    assert found[0] == {"signals.cost_bp": 0.1, "bars.clock": "time:10s", "a.b": [1]}
    assert found[1]["a.b"] == [1, 2]
    assert found[-1] == {"signals.cost_bp": 0.25, "bars.clock": "row", "a.b": [1, 2]}


def test_a_sample_is_drawn_by_its_seed() -> None:
    """Different combinations, the same ones for the same seed, all of them if there are fewer."""
    grid = {"a.x": list(range(50)), "a.y": list(range(40))}
    every = combinations(grid)
    some = combinations(grid, 100, 7)
    assert some == combinations(grid, 100, 7) != combinations(grid, 100, 8)
    places = [every.index(one) for one in some]
    assert len(set(places)) == 100
    assert places == sorted(places)
    assert combinations(grid, 5000, 7) == every


def test_ranges_are_drawn_from() -> None:
    """Whole numbers between whole ends, both among them; others anywhere between."""
    grid = vary_option(["a.n=3..5", "a.x=-0.5..1e0", "a.w=u,v"])
    assert grid["a.n"] == Range(3, 5)
    found = combinations(grid, 200, 1)
    assert {one["a.n"] for one in found} == {3, 4, 5}
    assert all(-0.5 <= one["a.x"] < 1.0 for one in found)
    assert {one["a.w"] for one in found} == {"u", "v"}
    with pytest.raises(MisuseError, match=r"a\.n is a range: say with --sample"):
        combinations(grid)


def test_files(tmp_path: Path) -> None:
    """TOML and JSON, nested or with dots, say the same."""
    toml, other = tmp_path / "grid.toml", tmp_path / "grid.json"
    toml.write_text(
        '"bars.clock" = ["row"]\n[signals]\ncost_bp = [1, 2]\n[user.parameters]\n'
        "short = {low = 2, high = 9}\n"
    )
    other.write_text(
        '{"bars": {"clock": ["row"]}, "signals.cost_bp": [1, 2],'
        ' "user": {"parameters.short": {"low": 2, "high": 9}}}'
    )
    assert read_grid(toml) == read_grid(other)
    assert read_grid(toml)["user.parameters.short"] == Range(2, 9)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a.x", "--vary takes"),
        ("=1,2", "--vary takes"),
        ("a.x=", "--vary takes"),
        ("a.x=1,1", "comes twice"),
        ("a.x=[1,", "not a JSON list"),
        ("a.x=[]", "no value"),
        ("a.x=5..2", "the lower one first"),
    ],
)
def test_slips_of_options(text: str, told: str) -> None:
    """Each is told by what is wrong."""
    with pytest.raises(MisuseError, match=told):
        combinations(vary_option([text]))


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.toml", "x = [", "not readable"),
        ("a.json", "[1]", "a grid is a table"),
        ("a.json", '{"a": 5}', "a is no list of values"),
        ("a.json", '{"a.b": [1], "a": {"b": [2]}}', "a.b comes twice"),
        ("a.json", '{"a": {"low": "x", "high": 2}}', "two numbers"),
        ("a.json", "{}", "nothing is varied"),
    ],
)
def test_slips_of_files(tmp_path: Path, name: str, text: str, told: str) -> None:
    """The same for files, and for one that is not there."""
    (tmp_path / name).write_text(text)
    with pytest.raises(MisuseError, match=told):
        combinations(read_grid(tmp_path / name))
    with pytest.raises(MisuseError, match="cannot be read"):
        read_grid(tmp_path / "none.json")


def test_bounds() -> None:
    """A grid that nobody can wait for is refused, and a key that comes twice."""
    with pytest.raises(MisuseError, match="more than 100,000 runs"):
        combinations({"a": range(1000), "b": range(1000)})
    with pytest.raises(MisuseError, match=r"names a\.x twice"):
        vary_option(["a.x=1", "a.x=2"])
