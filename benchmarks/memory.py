"""What aggregating takes in memory, whatever the model's size and the number of clients.

    python -m benchmarks.memory --clients 100 --megabytes 100 --json OUT
    python -m benchmarks.memory --clients 10 --megabytes 4000 --strategy fedavg

Makes a parent bucket in a folder, with a frozen cohort, and lets a process of its own `commit` the round, as a cloud
function would; prints that process's greatest resident memory, all of Python and NumPy included, and the sum that
docs/architecture.md computes for it. One file, full of holes, stands in for the model and for every update.
"""

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from aggregator.mean import STRIPE_ELEMENTS
from aggregator.next_model import commit
from aggregator.robust import GATHERED
from exchange import keys, tensors
from exchange.documents import sha256
from exchange.records import Cohort, StoredUpdate
from exchange.spec import FederationSettings, validate
from exchange.stores.file import FileStore

STRATEGIES: dict[str, dict[str, Any]] = {
    "fedavg": {"name": "fedavg"},
    "fedadam": {"name": "fedadam", "learning_rate": 0.1},
    "median": {"name": "median"},
    "trimmed-mean": {"name": "trimmed-mean", "byzantine": 1},
    "multi-krum": {"name": "multi-krum", "byzantine": 1},
}
MIB = 2**20
_ROUNDED = 4  # MiB: of differences rounded to whole numbers, at a time
_HANDLER = 4  # MiB: records, headers, the store, a result on its way
_TENSOR = 2000 / MIB  # while a header is parsed; once for all files that are laid out alike


def prepare(bucket: FileStore, settings: FederationSettings, megabytes: int, count: int) -> None:
    """Fill the bucket up to the frozen cohort of round 0."""
    shapes = {f"layer.{number:05d}": ("F32", (megabytes * 250_000 // count,)) for number in range(count)}
    header = tensors.encode_header(shapes, {"federation": settings.name, "round": "0"})
    bucket.create(str(keys.Settings(settings.name)), settings.to_bytes())
    model = bucket.root / str(keys.Model(settings.name, 0))
    model.parent.mkdir(parents=True, exist_ok=True)
    model.write_bytes(header)
    os.truncate(model, tensors.size_of(header))
    members = [_member(bucket, settings, client, model) for client in settings.roster]
    cohort = Cohort(
        federation=settings.name,
        round=0,
        members=tuple(members),
        void=False,
        rejected={},
        withdrawn=(),
        absent=(),
        frozen_by="a benchmark",
    )
    bucket.create(str(keys.Cohort(settings.name, 0)), cohort.to_bytes())


def _member(bucket: FileStore, settings: FederationSettings, client: str, file: Path) -> StoredUpdate:
    key = str(keys.Update(settings.name, client, 0))
    (bucket.root / key).parent.mkdir(parents=True)
    (bucket.root / key).hardlink_to(file)
    info = bucket.stat(key)
    return StoredUpdate(
        client=client, key=key, version=info.version, size=info.size, sha256=sha256(b""), num_examples=100, norm=0.0
    )


def work(root: Path, workers: int) -> dict[str, float]:
    """Commit round 0; return the seconds that it took and this process's peak."""
    bucket = FileStore(root)
    settings = FederationSettings.from_bytes(bucket.read("memory/public/federation.json"), "federation.json")
    cohort = Cohort.from_bytes(bucket.read(str(keys.Cohort("memory", 0))), "cohort.json")
    imported = peak_mib()
    begun = time.perf_counter()
    commit(bucket, settings, cohort, workers)
    return {"seconds": round(time.perf_counter() - begun, 2), "imported_mib": imported, "peak_mib": peak_mib()}


def peak_mib() -> float:
    """Return the greatest resident memory of this process so far.

    From /proc: what getrusage says, a process inherits from whoever started it.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return round(int(status.partition("VmHWM:")[2].split()[0]) / 1024, 1)


def computed_mib(strategy: str, clients: int, workers: int) -> float:
    """Return what docs/architecture.md computes for float32: what the stripes at work take, without the imports."""
    stripe, gathered = 8 * STRIPE_ELEMENTS / MIB, 4 * GATHERED / MIB
    each = GATHERED / clients / MIB  # elements of each update that are gathered, in units of 2²⁰
    mean = workers * (2.5 * stripe + 1)
    match strategy:
        case "fedavg":
            return mean
        case "fedadam":
            return workers * 14 * stripe / 2 + 1
        case "multi-krum":
            return workers * (gathered + _ROUNDED + 12 * each) + mean  # what threads held, they keep for themselves
        case _:
            return workers * (gathered + 20 * each + 2)


@click.command()
@click.option("--clients", default=100, show_default=True)
@click.option("--megabytes", default=100, show_default=True, help="Of each weight file, float32.")
@click.option("--tensors", "count", default=20, show_default=True)
@click.option("--strategy", type=click.Choice(list(STRATEGIES)), default="fedavg", show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where the bucket is made; by default a temporary one.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Also write the JSON there.")
@click.option("--worker", "root", type=click.Path(path_type=Path), hidden=True)
def main(
    clients: int,
    megabytes: int,
    count: int,
    strategy: str,
    workers: int,
    folder: Path | None,
    out: Path | None,
    root: Path | None,
) -> None:
    """Measure, and print."""
    if root is not None:
        print(json.dumps(work(root, workers)))
        return
    content = {
        "name": "memory",
        "rounds": 1,
        "round": {"quorum": clients, "deadline": "1d"},
        "train": {"learning_rate": 1.0},
        "strategy": STRATEGIES[strategy],
        "privacy": {"mechanism": "none"},
        "client": [{"id": f"client-{number:04d}", "examples": 100} for number in range(clients)],
    }
    with TemporaryDirectory(dir=folder) as made:
        bucket = FileStore(Path(made) / "bucket")
        prepare(bucket, validate(FederationSettings, content, "benchmark"), megabytes, count)
        command = [sys.executable, "-m", "benchmarks.memory", "--worker", str(bucket.root), "--workers", str(workers)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    asked = {"clients": clients, "megabytes": megabytes, "tensors": count, "strategy": strategy, "workers": workers}
    machine = {"python": platform.python_version(), "cores": os.cpu_count(), "store": "file://"}
    found = asked | machine | json.loads(done.stdout)
    found["computed_mib"] = round(
        found["imported_mib"] + computed_mib(strategy, clients, workers) + _HANDLER + count * _TENSOR, 1
    )
    text = json.dumps(found, indent=2)
    click.echo(text)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
