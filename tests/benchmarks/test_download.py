"""The benchmark of downloads: it runs, and names all that it compares."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_downloads_and_the_mean_over_them_are_measured_beside_the_sdks(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    options = ("--megabytes", "1", "--members", "2", "--repeats", "1", "--json", str(out))
    subprocess.run([sys.executable, "-m", "benchmarks.download", *options], cwd=ROOT, check=True)
    figures = json.loads(out.read_text())
    assert figures["conditions"]["bytes"] == 1_000_000
    ours, theirs = ["gs://", "az://", "s3://"], ["google-cloud-storage", "azure-storage-blob", "boto3", "http.client"]
    assert [row["name"] for row in figures["downloads"]] == ours + theirs
    assert [(row["name"], row["workers"]) for row in figures["mean"]] == [
        (name, workers) for workers in (1, 2) for name in ("fetch", "fetch and fold")
    ]
