"""A flood at the parent: what comes of it, whatever time that takes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLAT = 16  # MiB; what the garbage collector has yet to look at, and no more


@pytest.mark.slow
def test_a_thousand_events_in_ten_seconds_are_acknowledged_and_make_one_model_in_flat_memory(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    subprocess.run([sys.executable, "-m", "benchmarks.load", "--json", str(out)], cwd=ROOT, check=True)
    figures = json.loads(out.read_text())
    assert (figures["events"], figures["acknowledged"], figures["dead_letters"]) == (1000, 1000, 0)
    assert figures["aggregations_begun"] == figures["models_made"] == 1
    assert figures["model"] == figures["model_of_a_parent_told_once"]
    memory = figures["mib_of_a_function_process"]
    assert memory["peak"] < memory["warm"] + FLAT
