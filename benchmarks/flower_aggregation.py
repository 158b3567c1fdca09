"""Flower's own aggregation, from the bodies that its grid pulls objects out of to those that it pushes them in."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.aggregation_task import Prepared, Task, Vector


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
