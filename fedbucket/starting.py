"""The beginning of a federation: its first model, how loud the noise will be on it, and what the parent publishes."""

from pathlib import Path

import numpy as np

from aggregator import rounds
from client.privacy.floor import noise_in_words, refuse_unreachable_tolerance
from client.privacy.plan import make_plan, refuse_impossible_release
from exchange import keys, tensors
from exchange.errors import DifferentContent, InvalidTensorFile, SettingsError
from exchange.spec import FederationSettings
from exchange.stores import Store


def given_model(path: Path, settings: FederationSettings) -> bytes:
    """Return global model 0 with the weights in the file at `path`; raises InvalidTensorFile, OSError."""
    try:
        weights = tensors.load(path.read_bytes())
    except InvalidTensorFile as error:
        raise InvalidTensorFile(f"{path}: expected a safetensors file to start from: {error}") from error
    if unfit := [name for name, tensor in sorted(weights.items()) if not np.isfinite(tensor).all()]:
        raise InvalidTensorFile(f"{path}: expected finite weights to start from, got others in {unfit}")
    return tensors.dump(weights, {"federation": settings.name, "round": "0"})


def first_model(task: Path, settings: FederationSettings) -> bytes:
    """Return global model 0 as the task module at `task` initialises it, from the settings' seed.

    Raises:
        TaskError: the task is not sound.
        SettingsError: torch is not installed here.
    """
    try:
        from client.learn import initial_model  # imports torch, which no other command of the parent's needs
        from client.task import load_task
    except ModuleNotFoundError as error:
        missing = f"{error.name} is missing: pip install 'fedbucket[client]', or start from weights with --init"
        raise SettingsError(str(task), [missing]) from error
    return initial_model(load_task(task), settings)


def noise_of(settings: FederationSettings, model: bytes) -> str | None:
    """Say how loud the noise will be, before any budget is spent on it; None where that is not known.

    Raises:
        PrivacyError: no client could release so many weights under these settings.
        SettingsError: stop.tolerance lies below what noise alone moves the model by.
    """
    weights = tensors.load(model)
    for client in settings.roster:
        if (plan := make_plan(settings, client)) is not None:
            refuse_impossible_release(plan, weights)
    refuse_unreachable_tolerance(settings, weights)
    return noise_in_words(settings, tensors.count_floating(weights))


def start(store: Store, settings: FederationSettings, model: bytes) -> list[str]:
    """Begin the federation, or find it begun in the same way; return the keys that were published.

    Raises:
        DifferentContent: the bucket holds another federation of that name; nothing of it was changed.
    """
    try:
        rounds.start(store, settings, model)
    except DifferentContent as error:
        raise DifferentContent(
            f"{error}: {settings.name} was begun with other settings or another first model than these (settings: "
            f"SHA-256 {settings.sha256}); a federation is never changed: give this one another name"
        ) from error
    return [str(keys.Settings(settings.name)), str(keys.Model(settings.name, 0))]
