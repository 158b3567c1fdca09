"""NVFlare's own aggregation, from the payloads that its cells send each other to those of the model."""

import logging

import numpy as np

from benchmarks.aggregation_task import Prepared, Task, Vector


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
