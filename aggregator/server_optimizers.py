"""Optimizers at the server: Δ = (mean of the updates) − (global model) serves as the direction of a step.

Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan, "Adaptive Federated Optimization" (ICLR 2021), algorithm
2, which has no bias correction and starts from m = 0 and v = τ²:

    FedAdagrad, FedAdam, FedYogi    m ← β₁m + (1 − β₁)Δ        x ← x + η·m / (√v + τ)
        FedAdagrad                  v ← v + Δ²
        FedAdam                     v ← β₂v + (1 − β₂)Δ²
        FedYogi                     v ← v − (1 − β₂)Δ²·sign(v − Δ²)
    FedAvgM (Hsu, Qi, Brown 2019)   m ← βm + Δ                 x ← x + η·m

All in float64, element by element. The state is a weight file with the model's floating tensors by the same names, with
one dimension more at the end: m, and v where there is one. It is kept in float32, float64 where the model is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aggregator.stripes import Values, in_order
from exchange import tensors
from exchange.blocks import Piece, WeightFile, read_all
from exchange.spec import FedAdagrad, FedAdaptive, FedAvgM, ServerOptimizer

Moments = NDArray[np.float64]  # elements × 1 (m) or elements × 2 (m, v)


@dataclass(frozen=True)
class Optimizer:
    """One round's step.

    Attributes:
        strategy: which, and its settings.
        model: the round's global model.
        before: the state that the last round with a cohort left; None at the first.
    """

    strategy: ServerOptimizer
    model: WeightFile
    before: WeightFile | None

    def header(self, metadata: Mapping[str, str]) -> bytes:
        """Return the header of the state's file: tensors in the order of the model's."""
        shapes = {
            tensor.name: (_kept_dtype(tensor.dtype), (*tensor.shape, self._moments))
            for tensor in in_order(self.model)
            if tensor.floating
        }
        return tensors.encode_header(shapes, metadata, list(shapes))

    def step(self, pieces: Sequence[Piece], old: Values, mean: Values) -> tuple[Values, bytes]:
        """Return the new values of `pieces`, and the bytes of the state after the step."""
        with np.errstate(over="ignore"):
            moments, direction = _advance(self.strategy, self._read(pieces), mean - old)
            new = old + self.strategy.learning_rate * direction
        dtype = self.model.layout.tensors[pieces[0].name].dtype  # of all of them: a stripe has one
        kept = _kept_dtype(dtype)
        return _finite(new, dtype), tensors.encode(kept, _finite(moments, kept).ravel()).tobytes()

    def _read(self, pieces: Sequence[Piece]) -> Moments:
        if self.before is None:
            return np.tile(_first(self.strategy), (sum(piece.count for piece in pieces), 1))
        each = self._moments
        wide = [Piece(piece.name, piece.start * each, piece.count * each) for piece in pieces]
        return read_all(self.before, wide).reshape(-1, each)

    @property
    def _moments(self) -> int:
        return len(_first(self.strategy))


def _first(strategy: ServerOptimizer) -> list[float]:
    return [0.0] if isinstance(strategy, FedAvgM) else [0.0, strategy.tau * strategy.tau]


def _advance(strategy: ServerOptimizer, before: Moments, delta: Values) -> tuple[Moments, Values]:
    """Return the moments after the step, and its direction."""
    moments = np.empty_like(before)
    if isinstance(strategy, FedAvgM):
        moments[:, 0] = strategy.momentum * before[:, 0] + delta
        return moments, moments[:, 0]
    moments[:, 0] = strategy.beta_1 * before[:, 0] + (1 - strategy.beta_1) * delta
    moments[:, 1] = _second(strategy)(before[:, 1], delta * delta)
    return moments, moments[:, 0] / (np.sqrt(moments[:, 1]) + strategy.tau)


def _second(strategy: FedAdaptive | FedAdagrad) -> Callable[[Values, Values], Values]:
    match strategy:
        case FedAdagrad():
            return lambda v, square: v + square
        case FedAdaptive(name="fedadam", beta_2=beta_2):
            return lambda v, square: beta_2 * v + (1 - beta_2) * square
        case FedAdaptive(beta_2=beta_2):
            return lambda v, square: v - (1 - beta_2) * square * np.sign(v - square)


def _finite(values: NDArray[np.float64], dtype: str) -> NDArray[np.float64]:
    # A step may lead out of the dtype's range. An infinity there would be the last model that anyone can train.
    return np.clip(values, -tensors.LARGEST[dtype], tensors.LARGEST[dtype], out=values)


def _kept_dtype(dtype: str) -> str:
    return "F64" if dtype == "F64" else "F32"
