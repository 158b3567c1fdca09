"""How a data set is dealt out to organisations."""

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.intp]


def even(labels: NDArray[np.integer], clients: int, random: np.random.Generator) -> list[Indices]:
    """Deal the examples out at random: every client sees every class."""
    return [np.sort(part) for part in np.array_split(random.permutation(len(labels)), clients)]


def by_class(
    labels: NDArray[np.integer], clients: int, random: np.random.Generator, classes_each: int
) -> list[Indices]:
    """Give each client `classes_each` of the classes, each class to equally many clients, its examples shared evenly.

    `clients` × `classes_each` must be a multiple of the number of classes.
    """
    classes = random.permutation(np.unique(labels))
    holders: dict[int, list[int]] = {int(label): [] for label in classes}
    for client in range(clients):
        for place in range(classes_each):
            holders[int(classes[(client + place) % len(classes)])].append(client)
    parts: list[list[Indices]] = [[] for _ in range(clients)]
    for label, clients_of_it in holders.items():
        examples = random.permutation(np.flatnonzero(labels == label))
        for client, part in zip(clients_of_it, np.array_split(examples, len(clients_of_it)), strict=True):
            parts[client].append(part)
    return [np.sort(np.concatenate(part)) for part in parts]


def dirichlet(
    labels: NDArray[np.integer], clients: int, random: np.random.Generator, concentration: float
) -> list[Indices]:
    """Share each class out by a draw from a symmetric Dirichlet distribution (Hsu et al. 2019); small is uneven.

    Drawn again until every client has at least ten examples.
    """
    while True:
        parts: list[list[Indices]] = [[] for _ in range(clients)]
        for label in np.unique(labels):
            examples = random.permutation(np.flatnonzero(labels == label))
            shares = random.dirichlet(np.full(clients, concentration))
            cuts = (np.cumsum(shares)[:-1] * len(examples)).astype(int)
            for client, part in enumerate(np.split(examples, cuts)):
                parts[client].append(part)
        dealt = [np.sort(np.concatenate(part)) for part in parts]
        if min(map(len, dealt)) >= 10:
            return dealt


def case_mix(
    labels: NDArray[np.integer], shares: list[tuple[float, float]], random: np.random.Generator
) -> list[Indices]:
    """Deal a data set of classes 0 and 1 out to clients of given sizes and shares of class 1, as far as it reaches.

    Args:
        shares: for each client (its share of all examples, the share of class 1 that it should see).
    """
    wanted = np.array([[size * (1 - positive), size * positive] for size, positive in shares])
    parts: list[list[Indices]] = [[] for _ in shares]
    for label in (0, 1):
        examples = random.permutation(np.flatnonzero(labels == label))
        cuts = (np.cumsum(wanted[:, label])[:-1] / wanted[:, label].sum() * len(examples)).round().astype(int)
        for client, part in enumerate(np.split(examples, cuts)):
            parts[client].append(part)
    return [np.sort(np.concatenate(part)) for part in parts]
