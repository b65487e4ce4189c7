"""The first start without a network."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

FIRST_START = """
import sys
from pathlib import Path
from pipeline.servers import start_servers
from pipeline.errors import UnavailableError
try:
    start_servers(Path(sys.argv[1]), timeout=30)
except UnavailableError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_no_network_and_no_cache_is_one_line(tmp_path: Path) -> None:
    """With empty caches and a dead proxy the real resolver fails, and we name the way out."""
    dead = "http://127.0.0.1:9"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FIRST_START, str(tmp_path / "data")],
        cwd=ROOT,
        env={"PATH": os.defpath, "HOME": str(tmp_path), "https_proxy": dead, "http_proxy": dead},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("\n") == 1
    assert "Kafka jars cannot be had" in done.stdout
    assert "TICKSTREAM_KAFKA" in done.stdout
    assert not done.stderr
