"""What starting a function costs: `python -m benchmarks.cold_start`, JSON on standard output.

Of each unpacked zip, in processes of their own: the seconds and the memory that the entry point's import takes beyond
the bare interpreter, and then, with the bucket's SDK, what the first object that wakes something finds open. The
clients' `train` also imports torch.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZipFile

import click

from fedbucket.packaging import package

ENTRY = {"gcp": "main", "azure": "function_app"}
TASK = Path(__file__).parents[1] / "examples/digits/task.py"
STORES = {"gcp": "exchange.stores.gcs", "azure": "exchange.stores.azure"}
MEASURE = """
import json, resource, sys, time
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
rows, began, bare = [], time.perf_counter(), peak()
for module in sys.argv[1:]:
    __import__(module)
    rows.append([time.perf_counter() - began, peak() - bare, "torch" in sys.modules])
print(json.dumps(rows))
"""


@click.command()
@click.option("--repeats", default=7, show_default=True, help="Medians are of so many.")
def main(repeats: int) -> None:
    """Measure all four entry points."""
    with TemporaryDirectory() as folder:
        rows = [row for cloud in ENTRY for side in ("parent", "client") for row in _rows(cloud, side, folder, repeats)]
    conditions = {
        "repeats": repeats,
        "cores": os.cpu_count(),
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "bytecode": "compiled before, as the clouds' builds leave it",
    }
    print(json.dumps({"conditions": conditions, "rows": rows}, indent=2))


def _rows(cloud: str, side: str, folder: str, repeats: int) -> list[dict[str, Any]]:
    place = Path(folder) / f"{cloud}-{side}"
    with ZipFile(next(path for path in package(cloud, Path(folder), [TASK]) if path.stem == place.name)) as content:
        content.extractall(place)
    steps = {
        "entry point": ENTRY[cloud],
        "first event": "aggregator.deployment" if side == "parent" else "client.deployment",
    }
    steps["its bucket's SDK"] = STORES[cloud]
    if side == "client":
        steps["train"] = "client.learn"
    _measure(place, list(steps.values()))  # compiles
    runs = [_measure(place, list(steps.values())) for _ in range(repeats)]
    return [
        {
            "function": f"{cloud}_function/{side}",
            "until": step,
            "seconds": round(statistics.median(run[number][0] for run in runs), 3),
            "mib": round(statistics.median(run[number][1] for run in runs), 1),
            "torch": runs[0][number][2],
        }
        for number, step in enumerate(steps)
    ]


def _measure(place: Path, modules: list[str]) -> list[list[Any]]:
    """Return, after each module's import, seconds, MiB and whether torch is there; all since the interpreter began."""
    environment = {**os.environ, "PYTHONPATH": str(place)}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *modules],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    rows: list[list[Any]] = json.loads(done.stdout)
    return rows


if __name__ == "__main__":
    main()
