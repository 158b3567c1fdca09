"""What is aggregated: the same numbers for all, drawn from a seed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
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


Prepared = tuple[Callable[[], Any], Callable[[Any], Vector]]  # what is measured, and what its result holds
