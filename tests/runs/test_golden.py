"""The golden loss curve on the starter: see tests/golden/README.md."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
GOLDEN = ROOT / "tests" / "golden"


def curve(tmp_path: Path) -> list[str]:
    """The losses of the golden run, as printed."""
    words = [sys.executable, "-m", "lorakiln", "train", str(GOLDEN / "starter_20_steps.toml"), "--json", "--overwrite"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*words, "--set", f"runs={tmp_path}"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return [repr(event["loss"]) for event in events if event["event"] == "step"]


def test_the_curve_is_the_golden_one_and_repeats_to_the_last_bit(tmp_path):
    golden = [float(line) for line in (GOLDEN / "starter_20_steps.txt").read_text().split()]
    first = curve(tmp_path / "first")
    assert len(golden) == 20
    assert [float(loss) for loss in first] == pytest.approx(golden, rel=1e-4)
    assert curve(tmp_path / "second") == first
