"""What the examples reach: `python -m benchmarks.examples --seeds 3 --json OUT`, the source of README's table.

Runs every example with and without privacy, once a seed, each as its own command, and prints means. A seed fixes the
split, the initial weights and the batch order; privacy noise is never seeded.
"""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import click

RUNS = {
    "digits, five of ten classes each": ["digits"],
    "digits, five of ten classes each, ε = 2": ["digits", "--epsilon", "2"],
    "digits, five of ten classes each, no noise": ["digits", "--no-privacy"],
    "digits, all classes evenly": ["digits", "--split", "even"],
    "digits, all classes evenly, no noise": ["digits", "--split", "even", "--no-privacy"],
    "digits, each class unevenly": ["digits", "--split", "dirichlet"],
    "digits, each class unevenly, no noise": ["digits", "--split", "dirichlet", "--no-privacy"],
    "breast cancer": ["breast_cancer"],
    "breast cancer, no noise": ["breast_cancer", "--no-privacy"],
    "loans": ["loans"],
    "loans, no noise": ["loans", "--no-privacy"],
    "loans, evenly": ["loans", "--split", "even"],
    "loans, evenly, no noise": ["loans", "--split", "even", "--no-privacy"],
    "CNN": ["cnn"],
    "CNN, no noise": ["cnn", "--no-privacy"],
}
FIGURES = ("federated_accuracy", "alone_accuracy", "pooled_accuracy", "ratio", "seconds")


@click.command()
@click.option("--seeds", default=3, show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path), help="Also write the JSON there.")
def main(seeds: int, out: Path | None) -> None:
    """Run all examples and print what they reach, as JSON."""
    rows = [_row(name, command, seeds) for name, command in RUNS.items()]
    conditions = {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "seeds": list(range(seeds)),
        "delta": 1e-5,
        "unit": "one example, added or removed",
    }
    text = json.dumps({"conditions": conditions, "rows": rows}, indent=2, ensure_ascii=False)
    click.echo(text)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")


def _row(name: str, command: list[str], seeds: int) -> dict[str, Any]:
    summaries = [_run(command, seed) for seed in range(seeds)]
    row: dict[str, Any] = {"name": name, "command": "python -m examples." + " ".join(command)}
    row["epsilon"] = summaries[0]["privacy"].get("epsilon")
    row |= {figure: round(mean(summary[figure] for summary in summaries), 4) for figure in FIGURES}
    row["by_seed"] = [summary["federated_accuracy"] for summary in summaries]
    if "auc" in summaries[0]["metrics"]["federated"]:
        row |= {f"{who}_auc": round(mean(_aucs(summaries, who)), 4) for who in ("federated", "alone", "pooled")}
    click.echo(f"{name}: {row['federated_accuracy']:.3f}, ratio {row['ratio']:.2f}", err=True)
    return row


def _aucs(summaries: list[dict[str, Any]], who: str) -> list[float]:
    """Return the AUC of one model a seed; of all clients' models, for "alone"."""
    found = [summary["metrics"][who] for summary in summaries]
    return [each["auc"] for metrics in found for each in (metrics.values() if who == "alone" else [metrics])]


def _run(command: list[str], seed: int) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        example, *options = command
        arguments = [sys.executable, "-m", f"examples.{example}", *options, "--seed", str(seed), "--out", folder]
        subprocess.run(arguments, check=True, capture_output=True)
        found: dict[str, Any] = json.loads((Path(folder) / "summary.json").read_text(encoding="utf-8"))
        return found


if __name__ == "__main__":
    main()
