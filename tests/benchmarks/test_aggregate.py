"""The aggregator's benchmarks run, agree with their peers, and measure what the documents say. Nothing is timed."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks import aggregate, memory
from benchmarks.aggregate import Contender, Task, run

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "benchmarks"


def test_one_run_of_ours_gives_the_figures_of_a_row() -> None:
    found = run(Contender("fedbucket", Path(sys.executable), threads=2), Task(3, 1000, 2, "median"))
    assert found.keys() == {"seconds", "cpu_seconds", "peak_mib"}
    assert all(value >= 0 for value in found.values())


@pytest.mark.slow
@pytest.mark.parametrize("rule", aggregate.RULES)
def test_all_aggregators_agree_and_a_row_is_written_for_each(rule: str, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    arguments = ["--clients", "7", "--parameters", "50000", "--runs", "1", "--rule", rule, "--json", str(out)]
    done = CliRunner().invoke(aggregate.main, [*arguments, "--cache", str(CACHE)], catch_exceptions=False)
    assert done.exit_code == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    names = [(row["name"], row["threads"]) for row in found["rows"]]
    assert names[:2] == [("fedbucket", 1), ("fedbucket", 2)]
    assert len(names) == (6 if rule == "mean" else 4)
    figures = {"name", "threads", "seconds", "cpu_seconds", "peak_mib", "ratio_to_fedbucket"}
    assert all(row.keys() >= figures for row in found["rows"])
    assert found["conditions"]["clients"] == 7


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked",
    [
        {"clients": 10, "megabytes": 100},
        {"clients": 100, "megabytes": 10, "workers": 2},
        {"clients": 3, "megabytes": 40, "tensors": 2000},
        {"clients": 3, "megabytes": 40, "tensors": 10_000},
        *({"clients": 10, "megabytes": 40, "strategy": name} for name in memory.STRATEGIES),
        {"clients": 50, "megabytes": 10, "strategy": "multi-krum"},
    ],
    ids=str,
)
def test_aggregating_takes_no_more_memory_than_is_computed(asked: dict[str, Any]) -> None:
    options = [part for name, value in asked.items() for part in (f"--{name}", str(value))]
    done = CliRunner().invoke(memory.main, options, catch_exceptions=False)
    found = json.loads(done.output)
    assert found["imported_mib"] < found["peak_mib"] <= found["computed_mib"]
