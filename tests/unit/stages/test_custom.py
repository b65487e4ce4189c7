"""A user's own features: what they compute, what they cannot do, and how slips are told."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import MisuseError
from pipeline.settings import load_settings
from pipeline.stages.chain import Chain
from schemas.blocks import COLUMNS
from tests.fixtures.ticks import arrivals_of, walk

SOURCE = '''
from pipeline.stages.custom import feature

@feature(inputs=("close",), periods=20, unit="0..1", name="{name}", compiled={compiled})
def place(close):
    """Where the close lies in the range of the last 20 closes."""
    low, high = close.min(), close.max()
    return (close[-1] - low) / (high - low) if high > low else 0.5
'''


@pytest.mark.parametrize("compiled", [False, True])
def test_a_feature_equals_pandas(tmp_path: Path, compiled: bool) -> None:
    """A window function gives what pandas' rolling gives, for each symbol apart."""
    name = f"place_{compiled}".lower()
    path = tmp_path / "mine.py"
    path.write_text(SOURCE.format(name=name, compiled=compiled))
    settings = load_settings(["bars.clock=ticks:2", f'user.features=["{path}"]'])
    assert settings.chain.user.features[0].source == path.read_text()
    assert name in {column.name for column in COLUMNS["features"]}
    block = Chain(settings.chain).step(arrivals_of(walk(500)))
    bars, found = block.rows["bars"], block.rows["features"][name]
    table = pd.DataFrame({"symbol": bars["symbol"], "close": bars["close"]})
    low = table.groupby("symbol")["close"].transform(lambda x: x.rolling(20).min())
    high = table.groupby("symbol")["close"].transform(lambda x: x.rolling(20).max())
    truth = (table["close"] - low) / (high - low)
    assert np.isfinite(truth).sum() > 100
    np.testing.assert_allclose(found, truth, rtol=1e-12)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("x = 1", "declares no feature"),
        ("def f(:", "SyntaxError"),
        ("import nowhere_at_all", "ModuleNotFoundError"),
        (SOURCE.format(name="rsi_14", compiled=False), "has a column rsi_14 already"),
        (SOURCE.format(name="Bad Name", compiled=False), "lower-case identifier"),
        (SOURCE.replace('"close",', '"nothing",').format(name="n", compiled=False), "nothing"),
        (SOURCE.replace("close.min()", "close.mni()").format(name="m", compiled=False), "mni"),
    ],
)
def test_slips_are_told_in_one_line(tmp_path: Path, body: str, why: str) -> None:
    """A file that cannot be used names what is wrong before the first tick."""
    path = tmp_path / "mine.py"
    path.write_text(body)
    with pytest.raises(MisuseError, match=why) as error:
        load_settings([f'user.features=["{path}"]'])
    assert "\n" not in str(error.value)


def test_a_missing_file_is_told() -> None:
    """So is a file that is not there."""
    with pytest.raises(MisuseError, match="cannot be read"):
        load_settings(['user.features=["/no/such/file.py"]'])


LENGTHS = Path(__file__).parents[2] / "fixtures" / "strategies" / "sma_lengths.py"


def test_parameters_replace_what_a_file_says(tmp_path: Path) -> None:
    """Two lengths by settings give what a file with these lengths gives; others by default."""
    given = ("user.parameters.short=3", "user.parameters.long=12")
    source = LENGTHS.read_text().replace('parameter("short", 20)', "3")
    plain = tmp_path / "plain.py"
    plain.write_text(source.replace('parameter("long", 100)', "12"))
    came = arrivals_of(walk(3000, ("A",)))
    found = []
    for sets in ((f'user.features=["{LENGTHS}"]', *given), (f'user.features=["{plain}"]',)):
        settings = load_settings(sets)
        found.append(Chain(settings.chain).step(came).rows["features"]["sma_lengths"])
    np.testing.assert_array_equal(found[0], found[1])
    assert np.isfinite(found[0]).sum() > 100
    default = load_settings([f'user.features=["{LENGTHS}"]'])
    assert np.isnan(Chain(default.chain).step(came).rows["features"]["sma_lengths"][:99]).all()
    assert default.chain.fingerprint() != settings.chain.fingerprint()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("shrt=5", "user.parameters.shrt: no file of user.features or user.engines asks for it"),
        ("short=5.5", "user.parameters.short: 5.5 is no int, as 20 is"),
        ("short=true", "True is no int"),
        ('short="x"', "'x' is no int"),
    ],
)
def test_slips_of_parameters(given: str, told: str) -> None:
    """A name that nobody asks for, and a value of another kind."""
    with pytest.raises(MisuseError, match=told):
        load_settings([f'user.features=["{LENGTHS}"]', f"user.parameters.{given}"])
