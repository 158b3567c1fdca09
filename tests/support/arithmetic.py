"""A model of three tensors, local training that is one line of arithmetic, and what must come of a run: computed here
with NumPy and written byte by byte, without the code under test."""

import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.update import Learned
from exchange import tensors
from exchange.records import Metrics
from exchange.spec import Agreement, FederationSettings

Arrays = Mapping[str, NDArray[Any]]

FIRST: Arrays = {
    "layer.weight": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
    "layer.bias": np.array([0.5, -0.25, 3.0], np.float32),
    "steps": np.array(12, np.int64),
}
_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64"}


def drift(client: str, round_: int, shape: tuple[int, ...], times: int = 0) -> NDArray[np.float32]:
    """Return what a client's data add in a round: numbers that look random and depend on all of the arguments."""
    seed = int.from_bytes(sha256(f"{client} {round_} {times}".encode()).digest()[:8], "big")
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def difference(model: Arrays, client: str, round_: int, times: int = 0) -> dict[str, NDArray[np.float64]]:
    """Return how far a client's training moves the floating tensors of a global model, in float64."""
    return {
        name: -0.5 * array.astype(np.float64) + drift(client, round_, array.shape, times)
        for name, array in model.items()
        if array.dtype.kind == "f"
    }


def trained(model: Arrays, client: str, round_: int) -> dict[str, NDArray[Any]]:
    """Return the weights that a client uploads, without noise."""
    moved = difference(model, client, round_)
    return {name: (model[name].astype(np.float64) + moved[name]).astype(model[name].dtype) for name in moved}


class Learner:
    """A client's `Learn`.

    Args:
        noisy: no two calls give the same, as with privacy noise; otherwise a pure function of client, round and model.
        metrics: round → what is shared of the global model's evaluation.

    Attributes:
        calls: the rounds that it was asked to train for.
    """

    def __init__(self, client: str, noisy: bool = False, metrics: Callable[[int], Metrics] | None = None) -> None:
        self.calls: list[int] = []
        self._client = client
        self._noisy = noisy
        self._metrics = metrics

    def __call__(
        self,
        agreement: Agreement,
        settings: FederationSettings,
        round_: int,
        model: bytes,
        plan: object = None,
        saves: object = None,
    ) -> Learned:
        self.calls.append(round_)
        times = len(self.calls) if self._noisy else 0
        moved = difference(tensors.load(model), self._client, round_, times)
        return Learned(moved, self._metrics(round_) if self._metrics else {})


def mean(members: Sequence[tuple[Arrays, int]], like: Arrays) -> dict[str, NDArray[Any]]:
    """Return Σ n_k w_k / Σ n_k in float64, rounded to the dtypes of `like`, whose integer tensors are kept.

    Args:
        members: (weights, n_k), sorted by client.
    """
    found = dict(like)
    for name, array in like.items():
        if array.dtype.kind == "f":
            total = np.zeros(array.shape, np.float64)
            for weights, num_examples in members:
                total = total + weights[name].astype(np.float64) * num_examples
            found[name] = (total / sum(num_examples for _, num_examples in members)).astype(array.dtype)
    return found


def file_of(arrays: Arrays, metadata: Mapping[str, str], order: Sequence[str] | None = None) -> bytes:
    """Return a weight file, written by hand: wide elements first, then by name, unless `order` is given."""
    names = order or sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name in names:
        begin, end = end, end + prod(arrays[name].shape) * arrays[name].dtype.itemsize
        dtype = _DTYPES[arrays[name].dtype.name]
        header[name] = {"dtype": dtype, "shape": list(arrays[name].shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    return len(text).to_bytes(8, "little") + text + b"".join(arrays[name].tobytes() for name in names)


def model_file(settings: FederationSettings, round_: int, arrays: Arrays, final: str | None = None) -> bytes:
    """Return the file of a global model."""
    metadata = {"federation": settings.name, "round": str(round_)} | ({"final": final} if final else {})
    return file_of(arrays, metadata)


def update_file(arrays: Arrays, client: str, round_: int, **metadata: str) -> bytes:
    """Return the file of an update to "orchard"; `metadata` goes over the usual."""
    return file_of(arrays, {"federation": "orchard", "round": str(round_), "client": client} | metadata)


def reference(settings: FederationSettings, cohorts: Sequence[Sequence[str]]) -> list[bytes]:
    """Return the files of all global models of a run that ends with its last round.

    Args:
        cohorts: for each round, the clients that are averaged; none for a void round.
    """
    model: Arrays = FIRST
    files = [model_file(settings, 0, model)]
    for round_, clients in enumerate(cohorts):
        members = [(trained(model, client, round_), _examples(settings, client)) for client in sorted(clients)]
        model = mean(members, model) if members else model
        files.append(model_file(settings, round_ + 1, model, "rounds" if round_ + 1 == settings.rounds else None))
    return files


def _examples(settings: FederationSettings, client: str) -> int:
    return next(entry.examples for entry in settings.client if entry.id == client)
