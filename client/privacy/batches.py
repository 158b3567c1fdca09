"""Batches of one shape, whoever is there: kernels choose by it in which order they sum, and so how they round."""

import math

import torch
from torch import Tensor

DEFAULT_MICRO_BATCH = 64  # on CPUs the fastest for small networks: more leave the cache, fewer wait for Python
_LANES = 16  # rows that kernels take together; a whole number of them leaves no rest, which may be summed otherwise


def enough_for(examples: float, micro_batch: int) -> int:
    """Return how many examples to hold at a time where so many are expected: all batches are filled to that number.

    Args:
        examples: a public number: the batch's shape is not to hang on who is there.
        micro_batch: the most.
    """
    return min(micro_batch, _LANES * math.ceil(examples / _LANES))


def filled(examples: Tensor, micro_batch: int) -> Tensor:
    """Return `examples` and so many zeros that they are a whole micro-batch.

    Kernels choose their order of summation by the shape: in batches of other shapes, one example's absence would change
    how others are rounded off.
    """
    missing = micro_batch - len(examples)
    return torch.cat([examples, examples.new_zeros((missing, *examples.shape[1:]))]) if missing else examples
