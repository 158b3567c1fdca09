"""How long a release takes: noise from the operating system, put on the lattice. Prints JSON.

python -m benchmarks.release --parameters 1000000
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable

import click
import numpy as np

from client.privacy.lattice import release
from client.privacy.noise import system_normals


def milliseconds(action: Callable[[], object], repeats: int) -> list[float]:
    """Return the wall time of each of `repeats` runs, after one that is not counted."""
    action()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(1e3 * (time.perf_counter() - start))
    return times


@click.command()
@click.option("--parameters", default=1_000_000, show_default=True)
@click.option("--repeats", default=15, show_default=True)
def main(parameters: int, repeats: int) -> None:
    """Time one release of so many parameters; it runs on one core."""
    difference = np.zeros(parameters)
    rows = []
    for name, action in {
        "release": lambda: release(difference, 1.0, system_normals),
        "of that, os.urandom": lambda: [os.urandom(8 * (1 << 14)) for _ in range(0, parameters, 1 << 14)],
    }.items():
        times = milliseconds(action, repeats)
        rows.append({"name": name, "median_ms": statistics.median(times), "best_ms": min(times)})
    conditions = {
        "parameters": parameters,
        "repeats": repeats,
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    print(json.dumps({"conditions": conditions, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
