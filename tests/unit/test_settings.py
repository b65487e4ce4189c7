"""Settings from `--set` and the environment; every mistake is one line."""

import json
from pathlib import Path

import pytest

from pipeline.errors import MisuseError
from pipeline.settings import Settings, load_settings, samples_directory
from pipeline.stages.chain import ChainSettings
from schemas.models import HmmParameters, hmm_artifact
from tests.fixtures.regimes import SPX


def test_the_defaults_are_those_of_the_chain() -> None:
    """Without anything set the chain runs with its own defaults."""
    assert load_settings().chain == ChainSettings()


def test_set_reaches_any_setting() -> None:
    """KEY=VALUE with dots; the value as JSON where it is some, else as text."""
    found = load_settings(
        [
            "guard.mode=plain",
            "replay.block=7",
            "bars.clock=ticks:100",
            "features.reference_symbol=BTC=USD",
            "signals.cost_bp=1e-3",
            'predictions={"horizon": 9}',
            " worker.batch = 3",
            "kafka=localhost:1",
            "api.development=false",
        ]
    )
    assert found.guard.mode == "plain"
    assert found.replay.block == 7
    assert found.bars.clock == "ticks:100"
    assert found.features.reference_symbol == "BTC=USD"
    assert found.signals.cost_bp == 1e-3
    assert found.predictions.horizon == 9
    assert found.worker.batch == 3
    assert found.kafka == "localhost:1"
    assert found.api.development is False
    assert found.chain.guard.mode == "plain"


def test_the_last_assignment_wins() -> None:
    """As on any command line."""
    assert load_settings(["replay.block=1", "replay.block=2"]).replay.block == 2


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """TICKSTREAM_GROUP__NAME, and `--set` goes before it."""
    monkeypatch.setenv("TICKSTREAM_GUARD__MODE", "plain")
    monkeypatch.setenv("TICKSTREAM_REPLAY__BLOCK", "5")
    monkeypatch.setenv("TICKSTREAM_KAFKA", "broker:9092")
    found = load_settings()
    assert (found.guard.mode, found.replay.block, found.kafka) == ("plain", 5, "broker:9092")
    assert load_settings(["replay.block=6"]).replay.block == 6
    assert load_settings(["replay.row_group=9"]).replay.block == 5


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("guard.mood=plain", "guard.mood"),
        ("nothing=1", "nothing"),
        ("guard.mode=loud", "guard.mode"),
        ("replay.block=0", "replay.block"),
        ("replay.block=many", "replay.block"),
        ("bars.clock=time:0s", "bars.clock"),
        ("guard", "KEY=VALUE"),
        ("=1", "KEY=VALUE"),
        ("guard.=1", "KEY=VALUE"),
        (".mode=1", "KEY=VALUE"),
        ("guard=plain", "guard"),
        ("features.zone=Mars/Olympus", "features.zone"),
        ("regimes.hmm=nowhere.json", "nowhere.json cannot be read: No such file"),
        ("regimes.hmm=.", "cannot be read: Is a directory"),
        (f"regimes.hmm={__file__}", "test_settings.py: no JSON"),
        ('regimes.hmm={"transition": [[1]], "mean": [0], "variance": [1]}', "regimes.hmm"),
        ("regimes.cusum.threshold=0", "regimes.cusum.threshold"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(assignment: str, words: str) -> None:
    """Unknown keys, values that do not fit, no assignment at all."""
    with pytest.raises(MisuseError) as caught:
        load_settings([assignment])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_value_cannot_be_a_group_as_well() -> None:
    """Both guard=1 and guard.mode=plain cannot be meant."""
    with pytest.raises(MisuseError, match="not a group"):
        load_settings(["guard=1", "guard.mode=plain"])


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("TICKSTREAM_GUARD__MODE", "loud", "guard.mode"),
        ("TICKSTREAM_GUARD__MOOD", "plain", "guard.mood"),
        ("TICKSTREAM_REPLAY__BLOCK", "x", "replay.block"),
        ("TICKSTREAM_GUARD", "plain", "guard"),
    ],
)
def test_a_mistake_in_the_environment_is_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    """A wrong variable is said like a wrong `--set`."""
    monkeypatch.setenv(name, value)
    with pytest.raises(MisuseError) as caught:
        load_settings()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_is_named_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From `--set` and from the environment, where parameters may stand themselves as well."""
    path = tmp_path / "model.json"
    parameters = {"*": HmmParameters.model_validate(SPX)}
    path.write_text(json.dumps(hmm_artifact(parameters, {"input": "spx"}, {}), indent=1))
    named = load_settings([f"regimes.hmm={path}"]).regimes.hmm
    assert named is not None
    assert named.symbols == parameters
    monkeypatch.setenv("TICKSTREAM_REGIMES__HMM", str(path))
    assert load_settings().regimes.hmm == named
    monkeypatch.setenv("TICKSTREAM_REGIMES__HMM", json.dumps(SPX))
    inline = load_settings().regimes.hmm
    assert inline is not None
    assert (inline.version, inline.symbols) == ("inline", parameters)
    path.write_text(path.read_text().replace("0.468043", "0.468044"))
    with pytest.raises(MisuseError, match=r"model\.json: damaged"):
        load_settings([f"regimes.hmm={path}"])


def test_only_what_decides_numbers_is_in_the_fingerprint() -> None:
    """Pools, topics and blocks may change without a new state; a horizon may not."""
    first = load_settings().chain.fingerprint()
    same = load_settings(["replay.block=1", "worker.batch=9", "kafka=x:1", "store.pool_max=3"])
    assert same.chain.fingerprint() == first
    assert load_settings(["predictions.horizon=6"]).chain.fingerprint() != first


def test_settings_cannot_be_changed_later() -> None:
    """A run has the settings it was started with."""
    with pytest.raises(ValueError, match="frozen"):
        Settings().kafka = "other"  # type: ignore[misc]  # that is the point


def test_the_samples_are_where_they_are_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """TICKSTREAM_SAMPLES or nowhere."""
    monkeypatch.setenv("TICKSTREAM_SAMPLES", "/some/where")
    assert str(samples_directory()) == "/some/where"
    monkeypatch.delenv("TICKSTREAM_SAMPLES")
    assert samples_directory() is None


def test_webhooks_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one document or a variable each; neither address nor secret is shown or repeated."""
    secret = "whsec_" + "QUFB" * 8
    monkeypatch.setenv("TICKSTREAM_WEBHOOKS", '{"ops": {"url": "https://a/xyzzy"}}')
    monkeypatch.setenv("TICKSTREAM_WEBHOOKS__DESK__URL", "https://b/xyzzy")
    monkeypatch.setenv("TICKSTREAM_WEBHOOKS__OPS__SECRETS", f'["{secret}"]')
    found = load_settings(['webhooks.desk.kinds=["drift"]'])
    assert set(found.webhooks) == {"ops", "desk"}
    assert found.webhooks["ops"].keys == (b"AAA" * 8,)
    assert found.webhooks["desk"].kinds == ("drift",)
    for told in (repr(found), str(found), found.model_dump_json()):
        assert "xyzzy" not in told
        assert "QUFB" not in told
    for bad in ("xyzzy", "whsec_xyzzy"):
        monkeypatch.setenv("TICKSTREAM_WEBHOOKS__OPS__SECRETS", f'["{bad}"]')
        with pytest.raises(MisuseError, match="24 to 64") as caught:
            load_settings()
        assert "xyzzy" not in str(caught.value)
    monkeypatch.delenv("TICKSTREAM_WEBHOOKS__OPS__SECRETS")
    with pytest.raises(MisuseError, match=r"webhooks\.A B"):
        load_settings(["webhooks.A B.url=https://a/"])
