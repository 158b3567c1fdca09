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
import logging
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BYZANTINE = 10  # per cent of the clients, for the rules that are told
Vector = NDArray[np.float32]


def vector(seed: int, parameters: int) -> Vector:
    """Return the weights of client `seed`, from 1, or the global model's, 0."""
    return np.random.default_rng(seed).random(parameters, np.float32) - np.float32(0.5)


def examples(client: int) -> int:
    """Return how many examples client `client` declares."""
    return 100 + 7 * (client % 13)


@dataclass(frozen=True)
class Task:
    """What is to be aggregated.

    Attributes:
        tensors: that the model is cut into, of equal size.
    """

    clients: int
    parameters: int
    tensors: int
    rule: str
    threads: int

    @property
    def received(self) -> Iterator[tuple[dict[str, Vector], int]]:
        """Each client's tensors and examples."""
        for client in range(1, self.clients + 1):
            yield self.parts(client), examples(client)

    @property
    def byzantine(self) -> int:
        """How many may lie, under the rules that are told."""
        return max(1, self.clients * BYZANTINE // 100)

    def parts(self, client: int) -> dict[str, Vector]:
        """Return the tensors of a client, from 1, or of the global model, 0."""
        cut = np.array_split(vector(client, self.parameters), self.tensors)
        return {f"layer.{number:04d}": part for number, part in enumerate(cut)}


class Sink:
    """Memory for a file whose size is known, as a store's writer knows it."""

    def __init__(self, size: int) -> None:
        self.data = np.empty(size, np.uint8)
        self._written = 0

    def write(self, data: bytes | memoryview) -> None:
        self.data[self._written : self._written + len(data)] = np.frombuffer(data, np.uint8)
        self._written += len(data)


Prepared = tuple[Callable[[], Any], Callable[[Any], Vector]]  # what is measured, and what its result holds


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


def flower_aggregate(task: Task) -> Prepared:
    """Flower's `server.strategy`: pulled to arrays, `aggregate…`, and `Parameters` pushed, as its servers do."""
    from flwr.common import Code, FitIns, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
    from flwr.compat.common.recorddict_compat import fitins_to_recorddict, fitres_to_recorddict, recorddict_to_fitres
    from flwr.server.strategy import aggregate as own

    def sent(arrays: dict[str, Vector], count: int) -> Bodies:
        parameters = ndarrays_to_parameters(list(arrays.values()))
        return answers(fitres_to_recorddict(FitRes(Status(Code.OK, ""), parameters, count, {}), keep_input=False))

    received = [sent(*each) for each in task.received]
    clients, liars = task.clients, task.byzantine
    rules: dict[str, Callable[[Any], Any]] = {
        "mean": own.aggregate,
        "median": own.aggregate_median,
        "trimmed-mean": lambda results: own.aggregate_trimmed_avg(results, liars / clients),
        "multi-krum": lambda results: own.aggregate_krum([(each, 1) for each, _ in results], liars, clients - liars),
    }

    def act() -> list[bytes]:
        fitted = [recorddict_to_fitres(pulled(each), keep_input=False) for each in received]
        results = [(parameters_to_ndarrays(each.parameters), each.num_examples) for each in fitted]
        parameters = ndarrays_to_parameters(rules[task.rule](results))
        return pushed(fitins_to_recorddict(FitIns(parameters, {}), keep_input=False))

    return act, values_of


def flower_arrayrecords(task: Task) -> Prepared:
    """Flower's `serverapp.strategy`: pulled to records, whose bytes it decodes on the way, and a record pushed."""
    from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
    from flwr.serverapp.strategy import fedtrimmedavg, multikrum, strategy_utils

    key = "num-examples"

    def sent(arrays: dict[str, Vector], count: int) -> Bodies:
        held = ArrayRecord({name: Array(array) for name, array in arrays.items()})
        return answers(RecordDict({"arrays": held, "metrics": MetricRecord({key: count})}))

    received = [sent(arrays, count if task.rule == "mean" else 1) for arrays, count in task.received]
    clients, liars = task.clients, task.byzantine

    def by_layer(records: list[Any], reduce: Callable[[Any], Any]) -> Any:
        # The loop of FedMedian's and FedTrimmedAvg's aggregate_train, without their messages.
        names = list(records[0]["arrays"])
        layers = {name: [each["arrays"].pop(name).numpy() for each in records] for name in names}
        return ArrayRecord({name: Array(np.asarray(reduce(np.stack(layers.pop(name))))) for name in names})

    rules: dict[str, Callable[[list[Any]], Any]] = {
        "mean": lambda records: strategy_utils.aggregate_arrayrecords(records, key),
        "median": lambda records: by_layer(records, lambda stacked: np.median(stacked, axis=0)),
        "trimmed-mean": lambda records: by_layer(
            records, lambda stacked: fedtrimmedavg.trim_mean(stacked, liars / clients)
        ),
        "multi-krum": lambda records: strategy_utils.aggregate_arrayrecords(
            multikrum.select_multikrum(records, liars, clients - liars), key
        ),
    }

    def act() -> list[bytes]:
        return pushed(RecordDict({"arrays": rules[task.rule]([pulled(each) for each in received])}))

    return act, values_of


@dataclass
class Bodies:
    """The bodies of the answers to Flower's requests for objects, by identifier; `root` is the outermost's."""

    root: str
    by_id: dict[str, bytes]


def answers(record: Any) -> Bodies:
    """Return a message's content as a SuperLink answers with it: objects, an array's bytes in chunks of 5 MiB."""
    from flwr.proto.message_pb2 import PullObjectResponse
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

    def answer(held: Any) -> bytes:
        found = PullObjectResponse(object_found=True, object_available=True, object_content=held.deflate())
        return bytes(found.SerializeToString())

    objects = get_all_nested_objects(record)
    return Bodies(record.object_id, {name: answer(each) for name, each in objects.items()})


def pulled(bodies: Bodies) -> Any:
    """Return the content, made by what Flower's grid makes it by; a body is let go once it is read."""
    from flwr.proto.message_pb2 import PullObjectResponse
    from flwr.proto.node_pb2 import Node
    from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents, pull_objects

    def ask(request: Any) -> Any:
        return PullObjectResponse.FromString(bodies.by_id.pop(request.object_id))

    found = pull_objects(list(bodies.by_id), make_pull_object_fn_protobuf(ask, Node(), 0))
    return inflate_object_from_contents(bodies.root, found)


def pushed(record: Any) -> list[bytes]:
    """Return the bodies of the requests that push a message's content, made by what Flower's grid makes them by."""
    from flwr.proto.message_pb2 import PushObjectResponse
    from flwr.proto.node_pb2 import Node
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, no_object_id_recompute
    from flwr.supercore.inflatable.inflatable_protobuf_utils import make_push_object_fn_protobuf
    from flwr.supercore.inflatable.inflatable_utils import push_objects

    bodies: list[bytes] = []

    def take(request: Any) -> Any:
        bodies.append(request.SerializeToString(deterministic=True))
        return PushObjectResponse(stored=True)

    with no_object_id_recompute():
        push_objects(get_all_nested_objects(record), make_push_object_fn_protobuf(take, Node(), 0, ""))
    return bodies


def values_of(bodies: list[bytes]) -> Vector:
    """Return the model's values that pushed bodies hold."""
    from flwr.proto.message_pb2 import PushObjectRequest
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

    requests = [PushObjectRequest.FromString(body) for body in bodies]
    contents = {each.object_id: each.object_content for each in requests}
    root = next(name for name, content in contents.items() if content.startswith(b"RecordDict"))
    (arrays,) = inflate_object_from_contents(root, contents).array_records.values()
    return np.concatenate([array.numpy() for array in arrays.values()])


def nvflare_in_time(task: Task, downloads: bool) -> Prepared:
    """NVFlare's InTimeAccumulateWeightedAggregator.

    Args:
        downloads: whether its cells download updates and model from each other, as they do unless they are told not to
            (np_download_chunk_size = 0), or have all arrays in one message.
    """
    from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
    from nvflare.apis.fl_constant import ReservedKey
    from nvflare.apis.fl_context import FLContext
    from nvflare.apis.utils.decomposers import flare_decomposers
    from nvflare.app_common.aggregators.intime_accumulate_model_aggregator import InTimeAccumulateWeightedAggregator
    from nvflare.app_common.app_constant import AppConstants
    from nvflare.app_common.decomposers import common_decomposers
    from nvflare.fuel.utils import fobs

    flare_decomposers.register()
    common_decomposers.register()
    aggregator = InTimeAccumulateWeightedAggregator(expected_data_kind=DataKind.WEIGHTS)
    aggregator._initialize({f"client-{client}": 1.0 for client in range(1, task.clients + 1)}, None, DataKind.WEIGHTS)
    logging.disable()  # it misses the engine around it, and says so for every client
    context = FLContext()
    context.set_prop(AppConstants.CURRENT_ROUND, 0)

    def sent(client: int, arrays: dict[str, Vector], count: int) -> tuple[bytes, list[bytes]]:
        within = {} if downloads else arrays
        shareable = DXO(DataKind.WEIGHTS, data=within, meta={MetaKey.NUM_STEPS_CURRENT_ROUND: count}).to_shareable()
        shareable.set_peer_props({ReservedKey.IDENTITY_NAME: f"client-{client}"})
        shareable.add_cookie(AppConstants.CONTRIBUTION_ROUND, 0)
        return bytes(fobs.dumps(shareable)), replies(arrays) if downloads else []

    received = [sent(client, *each) for client, each in enumerate(task.received, start=1)]

    def act() -> list[bytes]:
        while received:
            message, payloads = received.pop(0)
            shareable = fobs.loads(message)
            if downloads:
                update = from_shareable(shareable)
                update.data = downloaded(payloads)
                update.update_shareable(shareable)
            assert aggregator.accept(shareable, context)
        made = aggregator.aggregate(context)
        return replies(from_shareable(made).data) if downloads else [bytes(fobs.dumps(made))]

    def values(out: list[bytes]) -> Vector:
        arrays = downloaded(out) if downloads else from_shareable(fobs.loads(out[0])).data
        return np.concatenate(list(arrays.values()))

    return act, values


def replies(arrays: dict[str, Vector]) -> list[bytes]:
    """Return the payloads with which one of NVFlare's cells answers another that downloads: .npz, 2 MiB a reply."""
    from nvflare.app_common.decomposers.numpy_decomposers import NumpyArrayDecomposer
    from nvflare.fuel.f3.streaming.download_service import ProduceRC
    from nvflare.fuel.utils import fobs

    source, state, made = NumpyArrayDecomposer().to_downloadable(arrays, 2**21, {}), {}, []
    while True:
        status, data, state = source.produce(state, "")
        if status == ProduceRC.EOF:
            return made
        made.append(bytes(fobs.dumps({"status": status, "state": state, "data": data})))


def downloaded(payloads: list[bytes]) -> dict[str, Vector]:
    """Return the arrays, by what NVFlare's cells make them by; a payload is let go once it is read."""
    from nvflare.app_common.np.np_downloader import ArrayConsumer
    from nvflare.fuel.utils import fobs

    consumer = ArrayConsumer(None, {})
    while payloads:
        reply = fobs.loads(payloads.pop(0))
        consumer.consume("", reply["state"], reply["data"])
    arrays: dict[str, Vector] = consumer.result
    return arrays


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
