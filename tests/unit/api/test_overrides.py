"""Settings that a client may give a replay: checked before anything is stored, no file is read."""

import json
from pathlib import Path

import pytest

from api.errors import ApiError, Code
from api.overrides import MOST, overridden
from pipeline.settings import load_settings
from pipeline.stages.chain import ChainSettings

BASE = load_settings(["fills.taker_bp=5", "bars.clock=ticks:7"]).chain


def test_they_stand_in_the_place_of_those_of_the_server() -> None:
    """Given ones change, the others stay: the same as the command line makes of them."""
    found = overridden(BASE, ["fills.sizing=volatility", "guard.mode=plain"], "time:10s")
    wanted = load_settings(
        ["fills.taker_bp=5", "fills.sizing=volatility", "guard.mode=plain", "bars.clock=time:10s"]
    ).chain
    assert found == wanted
    assert found.fingerprint() == wanted.fingerprint() != BASE.fingerprint()
    assert overridden(BASE, [], None) == BASE


@pytest.mark.parametrize(
    "one",
    [
        "",
        "nothing",
        "fills.nothing=1",
        "fills.taker_bp=much",
        "fills.taker_bp=-1",
        "fills=1",
        "user.features=[]",
        'user={"features": []}',
        "postgres=postgresql://x",
        "api.auth=false",
        "jobs.directory=/",
        "fills.taker_bp=1\n",
        "fills.taker_bp=1\0",
        "guard.mode=" + "[" * 480,
        "guard.mode=" + "x" * 500,
        "bars.clock=never",
    ],
)
def test_what_does_not_fit_is_refused(one: str) -> None:
    """Unknown ones, values of a wrong kind, and all that is no setting of the chain."""
    with pytest.raises(ApiError) as refused:
        overridden(BASE, [one], None)
    assert refused.value.code is Code.BAD_INPUT


def test_no_file_is_read(tmp_path: Path) -> None:
    """The path of a model is refused, whether there is one or not, in every way to write it."""
    path = tmp_path / "hmm.json"
    path.write_text("{}")
    for one in (
        f"regimes.hmm={path}",
        f"regimes.hmm={json.dumps(str(path))}",
        f"regimes={json.dumps({'hmm': str(path)})}",
    ):
        with pytest.raises(ApiError, match=r"setting regimes\.hmm") as refused:
            overridden(ChainSettings(), [one], None)
        assert refused.value.code is Code.BAD_INPUT


def test_too_many_and_a_bad_clock_are_refused() -> None:
    """As many as are allowed pass, one more does not."""
    one = "fills.taker_bp=1"
    overridden(BASE, [one] * MOST, None)
    for settings, bar in (([one] * (MOST + 1), None), ([], "time:0s"), ([], "x" * 600)):
        with pytest.raises(ApiError):
            overridden(BASE, settings, bar)
