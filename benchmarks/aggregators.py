"""One aggregator, once, in a process of its own: from the received bytes to the bytes of the global model.

`python -m benchmarks.aggregators NAME …` prints one line of JSON. It runs in our environment for ours, in Flower's for
Flower's and in NVFlare's for NVFlare's (`benchmarks.environments`); all take the same numbers, drawn from a seed. Each
is handed the bytes as they come out of HTTP, or what else carries them, and hands over bytes that can go there again:
weight files in a store here, the bodies of the answers from which Flower's grid pulls objects and of the requests with
which it pushes them, the payloads of what NVFlare's cells say to each other. What is received is made before the clock
starts and does not count into the memory.
"""

import argparse
import json
import resource
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.aggregation_task import Prepared, Task, examples
from benchmarks.flower_aggregation import flower_aggregate, flower_arrayrecords
from benchmarks.nvflare_aggregation import nvflare_in_time


class Sink:
    """Memory for a file whose size is known, as a store's writer knows it."""

    def __init__(self, size: int) -> None:
        self.data = np.empty(size, np.uint8)
        self._written = 0

    def write(self, data: bytes | memoryview) -> None:
        self.data[self._written : self._written + len(data)] = np.frombuffer(data, np.uint8)
        self._written += len(data)


def fedbucket(task: Task) -> Prepared:
    """Ours: from a store in memory, whose reads are copies, to the next model's file."""
    from aggregator.krum import nearest
    from aggregator.mean import mean_of
    from aggregator.robust import median_of, trimmed_mean_of
    from aggregator.stripes import model_header, write_data
    from exchange import tensors
    from exchange.blocks import open_weights
    from exchange.stores.memory import MemoryStore
    from exchange.tensors import Alike

    class Received(MemoryStore):
        def read_into(self, key: str, offset: int, buffer: memoryview, version: str | None = None) -> None:
            # NumPy copies without the interpreter's lock, as reading from a socket does.
            data = self.read(key, version, sys.maxsize)
            np.frombuffer(buffer, np.uint8)[:] = np.frombuffer(data, np.uint8, len(buffer), offset)

    store = Received(lambda: 0.0)
    store.create("model", tensors.dump(task.parts(0), {}))
    for client, (arrays, _) in enumerate(task.received, start=1):
        store.create(str(client), tensors.dump(arrays, {"client": str(client)}))
    counts = [examples(client) for client in range(1, task.clients + 1)]

    def act() -> NDArray[np.uint8]:
        model, alike = open_weights(store, "model"), Alike()
        files = [open_weights(store, str(client), alike=alike) for client in range(1, task.clients + 1)]
        clients, liars = task.clients, task.byzantine
        match task.rule:
            case "mean":
                made = mean_of(list(zip(files, counts, strict=True)))
            case "median":
                made = median_of(files)
            case "trimmed-mean":
                made = trimmed_mean_of(files, liars)
            case _:
                # `record` has the norms from the pass that it makes over every update anyway.
                norms = [float(task.parameters) ** 0.5] * clients
                chosen = nearest(model, files, norms, liars, clients - liars, task.threads)
                made = mean_of([(files[place], 1) for place in chosen])
        sink = Sink(model.layout.size)
        sink.write(model_header(model, {}))
        write_data(model, made, sink.write, task.threads)
        return sink.data

    return act, lambda out: np.concatenate(list(tensors.load(out.tobytes()).values()))


AGGREGATORS: dict[str, Callable[[Task], Prepared]] = {
    "fedbucket": fedbucket,
    "Flower aggregate": flower_aggregate,
    "Flower aggregate_arrayrecords": flower_arrayrecords,
    "NVFlare in-time accumulation": partial(nvflare_in_time, downloads=True),
    "NVFlare in-time accumulation, one message": partial(nvflare_in_time, downloads=False),
}


class Peak:
    """The resident memory at its greatest while something runs, looked at every few milliseconds."""

    def __init__(self) -> None:
        self.before = self.highest = _resident()
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Peak":
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.highest = max(self.highest, _resident())

    @property
    def mib(self) -> float:
        """What was added to what the process held before."""
        return max(self.highest, _resident()) - self.before


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=AGGREGATORS)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--parameters", type=int, required=True)
    parser.add_argument("--tensors", type=int, required=True)
    parser.add_argument("--rule", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--result", type=Path, help="Also write the result there, as .npy.")
    asked = parser.parse_args()
    task = Task(asked.clients, asked.parameters, asked.tensors, asked.rule, asked.threads)
    act, values = AGGREGATORS[asked.name](task)
    with Peak() as peak:
        wall, cpu = time.perf_counter(), time.process_time()
        out = act()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if asked.result is not None:
        np.save(asked.result, values(out))
    json.dump({"seconds": wall, "cpu_seconds": cpu, "peak_mib": peak.mib}, sys.stdout)


if __name__ == "__main__":
    main()
