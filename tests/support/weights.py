"""Weight files in a store, and the models that rules make of them."""

from collections.abc import Sequence

from aggregator.stripes import Change, Rule, model_header, write_data
from exchange.blocks import WeightFile, open_weights
from exchange.stores import Store
from exchange.stores.memory import MemoryStore
from tests.support.arithmetic import Arrays, file_of


def opened(data: bytes, store: Store | None = None, key: str = "file") -> WeightFile:
    """Return a weight file of its own, in memory unless a store is given."""
    store = store or MemoryStore(lambda: 0.0)
    store.create(key, data)
    return open_weights(store, key)


def files_of(members: Sequence[Arrays]) -> list[WeightFile]:
    """Return an opened file for each."""
    return [opened(file_of(arrays, {})) for arrays in members]


def next_file(model: WeightFile, rule: Rule | None, workers: int = 1) -> tuple[bytes, Change]:
    """Return the file of the next model, whose metadata are only that it is that of round 1."""
    parts = [model_header(model, {"round": "1"})]
    change = write_data(model, rule, parts.append, workers)
    return b"".join(parts), change
