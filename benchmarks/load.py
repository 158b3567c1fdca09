"""A flood of events at the parent: `python -m benchmarks.load --clients 100 --duplicates 10 --seconds 10`.

All clients have uploaded. Then the event of each upload comes ten times, in any order, evenly over ten seconds; the
parent's package runs in its host on a GCS emulator, with as many instances as asked for, and what they have no time for
waits. Prints JSON: whether every event was acknowledged, how many aggregations began, whether the one model is that of
a parent that was told once of each upload, and the memory of the function's processes on the way. All share this
machine's cores; an emulator is not a cloud.
"""

import json
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from threading import Condition
from typing import Any

import click
import numpy as np

from aggregator import rounds
from benchmarks.round import BUCKET, NAME, client_id, conditions, memory, settings, unpacked
from exchange import keys, tensors
from exchange.stores import Store, open_store
from exchange.stores.memory import MemoryStore
from fedbucket.emulated.results import read_log
from fedbucket.emulators import Attempt, Eventarc, Host, Router, gcp_function, gcs
from fedbucket.emulators.buckets import make_bucket

WARM = 1 / 10  # of the events: after these each process has loaded what it needs, and memory should be flat


class Flood:
    """Holds the events of updates back, and counts those that were acknowledged."""

    def __init__(self) -> None:
        self.uploads: dict[str, Mapping[str, Any]] = {}
        self.acknowledged = 0
        self.failed_attempts = 0
        self._changed = Condition()

    def holds(self, resource: Mapping[str, Any]) -> bool:
        """Return whether the object is an update: its event is then kept for later."""
        if not isinstance(keys.parse(resource["name"]), keys.Update):
            return False
        with self._changed:
            self.uploads[resource["name"]] = resource
            self._changed.notify_all()
        return True

    def tell(self, attempt: Attempt) -> None:
        """Take notice of an attempt."""
        with self._changed:
            self.failed_attempts += attempt.outcome != "done"
            self.acknowledged += attempt.outcome == "done" and attempt.created.key in self.uploads
            self._changed.notify_all()

    def wait_for_uploads(self, count: int) -> None:
        """Wait until so many updates were seen."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.uploads) >= count)

    def wait_for_acknowledged(self, count: int) -> None:
        """Wait until so many events of updates were acknowledged."""
        with self._changed:
            self._changed.wait_for(lambda: self.acknowledged >= count)

    def run(self, router: Router, duplicates: int, seconds: float) -> int:
        """Send each held event so many times; return how many that were in all."""
        events = [resource for _, resource in sorted(self.uploads.items())] * duplicates
        Random(0).shuffle(events)
        began = time.monotonic()
        for number, resource in enumerate(events):
            time.sleep(max(0.0, began + seconds * number / len(events) - time.monotonic()))
            router.gcs_object(resource)
        return len(events)


@click.command()
@click.option("--clients", default=100, show_default=True)
@click.option("--duplicates", default=10, show_default=True, help="Times that each upload's event comes.")
@click.option("--seconds", default=10.0, show_default=True, help="In which all events come.")
@click.option("--parameters", default=100_000, show_default=True, help="float32: four bytes each.")
@click.option("--instances", default=2, show_default=True, help="Processes of the parent's function.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Also write the JSON there.")
def main(clients: int, duplicates: int, seconds: float, parameters: int, instances: int, out: Path | None) -> None:
    """Flood the parent."""
    with TemporaryDirectory() as folder, ExitStack() as running:
        flood = Flood()
        router = running.enter_context(Router(tell=flood.tell))

        def created(resource: Mapping[str, Any]) -> None:
            if not flood.holds(resource):
                router.gcs_object(resource)

        environment = dict(running.enter_context(gcs(created)))
        os.environ.update(environment)
        make_bucket(f"gs://{BUCKET}")
        environment["FEDBUCKET_PARENT"] = f'bucket = "gs://{BUCKET}"\n'
        source, logs = unpacked(Path(folder)), Path(folder) / "logs"
        logs.mkdir()
        host = running.enter_context(
            gcp_function(source, "on_object", environment, logs / "parent.log", instances=instances)
        )
        router.subscribe(Eventarc(BUCKET, host))
        store = open_store(f"gs://{BUCKET}")
        expected = _upload(store, clients, parameters)
        flood.wait_for_uploads(clients)
        result = {
            "conditions": {**conditions(clients, parameters, instances), "duplicates": duplicates, "in_s": seconds},
            **_measured(flood, router, host, duplicates, seconds),
            "dead_letters": len(router.dead_letters),
            **_outcome(store, logs, expected),
        }
    text = json.dumps(result, indent=2)
    print(text)
    if out is not None:
        out.write_text(text + "\n")


def _measured(flood: Flood, router: Router, host: Host, duplicates: int, seconds: float) -> dict[str, Any]:
    """Let it come; return what was acknowledged, when, and the memory of the largest process on the way."""
    began = time.monotonic()
    sent = flood.run(router, duplicates, seconds)
    sending = time.monotonic() - began
    # By then long past, if the processes are quick; but no later than that many are.
    flood.wait_for_acknowledged(int(WARM * sent))
    warm = max(memory(host.pid or 0, "VmRSS"))
    flood.wait_for_acknowledged(sent)
    while not router.idle:  # the receipts' events, and the model's
        time.sleep(0.1)
    return {
        "events": sent,
        "sent_in_seconds": round(sending, 1),
        "acknowledged": flood.acknowledged,
        "all_acknowledged_after_seconds": round(time.monotonic() - began, 1),
        "failed_attempts": flood.failed_attempts,
        "mib_of_a_function_process": {
            "warm": round(warm, 1),
            "at_the_end": round(max(memory(host.pid or 0, "VmRSS")), 1),
            "peak": round(max(memory(host.pid or 0, "VmHWM")), 1),
        },
    }


def _outcome(store: Store, logs: Path, expected: str) -> dict[str, Any]:
    models = [info.key for info in store.list(f"{NAME}/public/models/")]
    (made,) = [key for key in models if key != str(keys.Model(NAME, 0))]
    return {
        "aggregations_begun": sum("the mean of" in line.get("message", "") for line in read_log(logs)),
        "models_made": len(models) - 1,
        "model": sha256(store.read(made)).hexdigest(),
        "model_of_a_parent_told_once": expected,
    }


def _upload(store: Store, clients: int, parameters: int) -> str:
    """Upload all updates; return the SHA-256 of the model that comes of them in this process, told once of each."""
    agreed, told_once = settings(clients), MemoryStore(time.time)
    parent = rounds.Parent(told_once, lambda _: told_once, time_limit=0)
    weights = {"weight": np.random.default_rng(0).normal(size=parameters).astype(np.float32)}
    first = tensors.dump(weights, {"federation": NAME, "round": "0"})
    for each in (store, told_once):
        rounds.start(each, agreed, first)
    for number in range(clients):
        weights["weight"] += np.float32(0.001)
        client = client_id(number)
        key = keys.Update(NAME, client, 0)
        update = tensors.dump(weights, {"federation": NAME, "round": "0", "client": client})
        for each in (store, told_once):
            each.create(str(key), update)
        rounds.record(parent, key)
    rounds.aggregate(parent, NAME, 0, "once")
    return sha256(told_once.read(str(keys.Model(NAME, 1)))).hexdigest()


if __name__ == "__main__":
    main()
