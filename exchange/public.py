"""What anyone in a federation may read: its settings, its newest model, and whether it is over."""

from exchange import keys
from exchange.blocks import WeightFile, open_weights
from exchange.spec import FederationSettings
from exchange.stores import Store
from exchange.tensors import Alike

FINAL = "final"  # metadata of the model that ends a run: the reason


def read_settings(store: Store, federation: str) -> FederationSettings:
    """Return the settings that the parent published; raises NotFound, InvalidDocument."""
    key = str(keys.Settings(federation))
    return FederationSettings.from_bytes(store.read(key), f"{key} in {store.url}")


def newest_model(store: Store, federation: str) -> int | None:
    """Return the number of the newest global model; None before the first."""
    found = [keys.parse(info.key) for info in store.list(keys.models(federation))]
    return max((key.round for key in found if isinstance(key, keys.Model)), default=None)


def open_model(store: Store, federation: str, round_: int, alike: Alike | None = None) -> WeightFile:
    """Return global model `round_`, pinned; `alike` as in `tensors.read_layout`; raises NotFound, InvalidTensorFile."""
    return open_weights(store, str(keys.Model(federation, round_)), alike=alike)


def final_reason(model: WeightFile) -> str | None:
    """Return why the run ended with this model; None if it goes on."""
    return model.layout.metadata.get(FINAL)
