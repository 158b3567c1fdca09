"""Flower's strategies on given numbers, in Flower's own environment; `tests/benchmarks/test_flower.py` compares.

`python -m benchmarks.flower_rules IN.npz OUT.npz`: IN holds `model`, `updates` (rounds × clients × elements) and
`examples`; OUT holds, for each rule, the model after each round. Flower's strategies are driven through their own
`aggregate_train`, or, where that wants a running server's messages, through the functions that it calls.

Three of its choices are set to the paper's (Reddi et al. 2021, algorithm 2), which are ours: v starts at τ² and not at
0, FedAdam's bias correction is taken out of its learning rate, and FedAdagrad's β₁ is given.
"""

import sys
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.server.strategy import aggregate as functions
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedYogi
from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
from numpy.typing import NDArray

Vector = NDArray[np.float32]
ETA, MOMENTUM, BETA_1, BETA_2, TAU = 0.3, 0.8, 0.8, 0.9, 0.05
BYZANTINE = 2


def record(values: Vector) -> ArrayRecord:
    """Return a model of one tensor."""
    return ArrayRecord({"w": Array(values)})


def stepped(strategy: Any, model: Vector, means: list[Vector]) -> list[Vector]:
    """Return the models that a server optimizer makes of these means, one a round."""
    found = []
    for round_, mean in enumerate(means, start=1):
        # What configure_train keeps, and what FedAvg.aggregate_train returns, without messages and their replies.
        if isinstance(strategy, FedAvgM):
            strategy.current_arrays = strategy.current_arrays or record(model)
        else:
            strategy.current_arrays = {"w": model}
            strategy.v_t = strategy.v_t or {"w": np.full_like(model, TAU**2)}
        if isinstance(strategy, FedAdam):
            strategy.eta = ETA * (1 - BETA_1 ** (round_ + 1)) / np.sqrt(1 - BETA_2 ** (round_ + 1))
        FedAvg.aggregate_train = lambda *_, mean=mean: (record(mean), None)
        arrays, _ = strategy.aggregate_train(round_, [])
        model = arrays["w"].numpy()
        found.append(model)
    return found


def main() -> None:
    with np.load(sys.argv[1]) as given:
        model, updates, examples = given["model"], given["updates"], given["examples"].tolist()
    rounds = [[([row], count) for row, count in zip(each, examples, strict=True)] for each in updates]
    liars, clients = BYZANTINE, len(examples)
    means = [functions.aggregate(each)[0] for each in rounds]
    uniform = [[(weights, 1) for weights, _ in each] for each in rounds]
    found = {
        "fedavg": means,
        "median": [functions.aggregate_median(each)[0] for each in rounds],
        "trimmed-mean": [trim_mean(each, liars / clients) for each in updates],
        "multi-krum": [functions.aggregate_krum(each, liars, clients - liars)[0] for each in uniform],
        "krum": [functions.aggregate_krum(each, liars, 0)[0] for each in uniform],
        "fedavgm": stepped(FedAvgM(server_learning_rate=ETA, server_momentum=MOMENTUM), model, means),
        "fedadam": stepped(FedAdam(eta=ETA, beta_1=BETA_1, beta_2=BETA_2, tau=TAU), model, means),
        "fedyogi": stepped(FedYogi(eta=ETA, beta_1=BETA_1, beta_2=BETA_2, tau=TAU), model, means),
    }
    adagrad = FedAdagrad(eta=ETA, tau=TAU)
    adagrad.beta_1 = BETA_1
    found["fedadagrad"] = stepped(adagrad, model, means)
    np.savez(sys.argv[2], **{name: np.stack(models) for name, models in found.items()})


if __name__ == "__main__":
    main()
