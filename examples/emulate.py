"""`python -m examples.emulate`: the digits across two emulated clouds and a machine of a client's own.

Three runs: the parent in Google Cloud, the parent in Azure, and once with privacy. Without noise each must make the
very model that a run in one process makes; with noise, one that is as good.
"""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

RUNS = {
    "runs/emulate": ["--no-privacy", "--emulators", "gcp"],
    "runs/emulate-azure": ["--no-privacy", "--emulators", "azure"],
    "runs/emulate-privacy": ["--emulators", "gcp"],
}


def main() -> None:
    """Run all and say what came of it; exit status 1 if a model that should be the same is not."""
    summaries = {out: _run(out, options) for out, options in RUNS.items()}
    for out, summary in summaries.items():
        print(f"{out}: {_in_words(summary)}")
    if any(summary["same_model_as_embedded"] is False for summary in summaries.values()):
        raise SystemExit(1)


def _run(out: str, options: list[str]) -> dict[str, Any]:
    subprocess.run([sys.executable, "-m", "examples.digits", "--out", out, *options], check=True)
    summary: dict[str, Any] = json.loads(Path(out, "summary.json").read_text(encoding="utf-8"))
    return summary


def _in_words(summary: dict[str, Any]) -> str:
    wait = median(summary["last_upload_to_model_seconds"])
    same = {True: "the same bytes as", False: "NOT the same bytes as", None: "noise of its own, beside"}
    compared = f"{same[summary['same_model_as_embedded']]} the run in one process ({summary['embedded_accuracy']:.3f})"
    return (
        f"parent in {summary['emulated']['parent']}, {summary['rounds']} rounds, "
        f"accuracy {summary['federated_accuracy']:.3f}; {compared}; last upload to model {wait:.2f} s (median)"
    )


if __name__ == "__main__":
    main()
