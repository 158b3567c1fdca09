"""One round of many clients, from their last upload to the global model: `python -m benchmarks.round --clients 100`.

The parent's package runs in its host on a GCS emulator, woken by events; updates are made and uploaded here. Prints
JSON: seconds, the peak memory of the function's processes, requests and bytes at the bucket. All share this machine's
cores; an emulator is not a cloud.
"""

import json
import os
import platform
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Condition
from typing import Any
from urllib.request import urlopen
from zipfile import ZipFile

import click
import numpy as np

from aggregator import rounds
from exchange import keys, tensors
from exchange.spec import FederationSettings, validate
from exchange.stores import Store, open_store
from fedbucket.emulated.results import read_log
from fedbucket.emulators import Eventarc, Router, gcp_function, gcs
from fedbucket.emulators.buckets import make_bucket
from fedbucket.packaging import package

NAME, BUCKET = "round", "parent"
WIDTH = 1000  # of the one matrix, which with its bias makes about as many parameters as asked for


class Created:
    """When each object was created; give `saw` to the emulator."""

    def __init__(self) -> None:
        self.when: dict[str, float] = {}
        self._changed = Condition()

    def saw(self, key: str) -> None:
        """Take notice of an object."""
        with self._changed:
            self.when.setdefault(key, time.perf_counter())
            self._changed.notify_all()

    def wait(self, prefix: str, count: int) -> None:
        """Wait until so many keys begin so."""
        with self._changed:
            self._changed.wait_for(lambda: sum(key.startswith(prefix) for key in self.when) >= count)


@click.command()
@click.option("--clients", default=100, show_default=True)
@click.option("--parameters", default=6_600_000, show_default=True, help="float32: four bytes each.")
@click.option("--instances", default=2, show_default=True, help="Processes of the parent's function.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Also write the JSON there.")
def main(clients: int, parameters: int, instances: int, out: Path | None) -> None:
    """Measure one round."""
    with TemporaryDirectory() as folder, ExitStack() as running:
        created = Created()
        router = running.enter_context(Router())

        def tell(resource: Mapping[str, Any]) -> None:
            router.gcs_object(resource)
            created.saw(resource["name"])

        environment = dict(running.enter_context(gcs(tell)))
        os.environ.update(environment)
        make_bucket(f"gs://{BUCKET}")
        environment["FEDBUCKET_PARENT"] = f'bucket = "gs://{BUCKET}"\n'
        source, logs = unpacked(Path(folder)), Path(folder) / "logs"
        logs.mkdir()
        host = running.enter_context(
            gcp_function(source, "on_object", environment, logs / "parent.log", instances=instances)
        )
        router.subscribe(Eventarc(BUCKET, host))
        before, seconds = _round(open_store(f"gs://{BUCKET}"), clients, parameters, created, environment)
        after = _served(environment)
        result = {
            "conditions": conditions(clients, parameters, instances),
            "last_upload_to_model_seconds": round(seconds, 3),
            "steps": _steps(logs, clients),
            "peak_mib_of_a_function_process": round(max(memory(host.pid or 0, "VmHWM")), 1),
            "parent_requests": after["requests"] - before["requests"],
            "whole_round": after,
        }
    text = json.dumps(result, indent=2)
    print(text)
    if out is not None:
        out.write_text(text + "\n")


def _round(
    store: Store, clients: int, parameters: int, created: Created, environment: Mapping[str, str]
) -> tuple[dict[str, int], float]:
    """Upload everything; return what was served before the last upload, and the seconds from it to the next model."""
    random = np.random.default_rng(0)
    weights = {"weight": random.normal(size=(parameters // WIDTH, WIDTH)).astype(np.float32)}
    rounds.start(store, settings(clients), tensors.dump(weights, {"federation": NAME, "round": "0"}))
    for number in range(clients):
        if number == clients - 1:  # the others have been recorded: what is timed is the last one's way
            created.wait(keys.receipts(NAME, 0), clients - 1)
            before = _served(environment)
        client = client_id(number)
        weights["weight"] += np.float32(0.001)
        key = str(keys.Update(NAME, client, 0))
        store.create(key, tensors.dump(weights, {"federation": NAME, "round": "0", "client": client}))
    model = str(keys.Model(NAME, 1))
    created.wait(model, 1)
    return before, created.when[model] - created.when[key]


def settings(clients: int) -> FederationSettings:
    """Return the settings of a federation of so many clients, each of another weight."""
    content = {
        "name": NAME,
        "rounds": 10,
        "round": {"quorum": clients, "deadline": 3600},
        "train": {"learning_rate": 0.1},
        "privacy": {"mechanism": "none"},
        "client": [{"id": client_id(number), "examples": 100 + number} for number in range(clients)],
    }
    return validate(FederationSettings, content, "benchmark")


def client_id(number: int) -> str:
    """Return a client's name."""
    return f"client-{number:04d}"


def unpacked(folder: Path) -> Path:
    """Return a folder with the parent's package for Google Cloud, unpacked below `folder`."""
    (zip_,) = package("gcp", folder, [])
    with ZipFile(zip_) as content:
        content.extractall(folder / "parent")
    return folder / "parent"


def _served(environment: Mapping[str, str]) -> dict[str, int]:
    with urlopen(environment["STORAGE_EMULATOR_HOST"] + "/emulator/served") as answer:
        found: dict[str, int] = json.load(answer)
    return found


def _steps(logs: Path, clients: int) -> dict[str, Any]:
    """Return the seconds of the last update's record and of the aggregation, from the function's own log."""
    done = [line for line in read_log(logs) if line.get("outcome") == "done"]
    last = [line["seconds"] for line in done if line["step"] == "record" and line["client"] == client_id(clients - 1)]
    return {
        "record_of_the_last_update": last[0] if last else None,
        "aggregate": max((line["seconds"] for line in done if line["step"] == "aggregate"), default=None),
    }


def memory(group: int, field: str) -> list[float]:
    """Return the memory of each process of a group, in MiB: its peak (VmHWM), or what it has now (VmRSS)."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if os.getpgid(int(status.parent.name)) == group:
                lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
                found.append(int(lines[field].split()[0]) / 1024)
        except (OSError, KeyError):
            continue  # it has ended
    return found


def conditions(clients: int, parameters: int, instances: int) -> dict[str, Any]:
    """Return what the figures were taken under."""
    return {
        "clients": clients,
        "parameters": parameters // WIDTH * WIDTH,
        "mb_each": round(parameters // WIDTH * WIDTH * 4 / 1e6, 1),
        "instances": instances,
        "cores": os.cpu_count(),
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "storage": "an emulator of GCS in memory, on the same cores",
        "updates": "made by a script; each other than the rest",
    }


if __name__ == "__main__":
    main()
