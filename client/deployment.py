"""From client.toml to a client that acts: what a cloud function and a machine of one's own have in common.

Nothing here imports torch: it is loaded when there is something to train, and not to find out that there is nothing.
"""

import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from client import rounds
from client.checkpoints import Saves, pace_of_function, pace_of_machine
from client.device import check_device
from client.privacy.noise import system_normals, system_uniforms
from client.privacy.plan import Plan
from client.rounds import Client
from client.update import Learned
from exchange.errors import SettingsError
from exchange.functions import Side
from exchange.spec import Agreement, ClientSettings, FederationSettings, client_from_environment
from exchange.stores import open_store

if TYPE_CHECKING:
    from client.learn import LocalTraining


def deployed(settings: ClientSettings, folder: Path, data: Path, source: str, *, is_function: bool = True) -> Client:
    """Return the client of `settings`, with its buckets.

    Args:
        folder: what paths in the settings are relative to.
        data: a local folder for copies of data that lie in a bucket.
        source: what an error calls the settings.
        is_function: whether it is killed at the time limit, and so has to stop before.

    Raises:
        SettingsError: there is no `state`, or no such device.
    """
    if settings.state is None:
        raise SettingsError(
            source, ['state: is missing: a bucket for private state, such as "file:///var/lib/fedbucket"']
        )
    check_device(settings.device, source)
    opened = cache(lambda url: open_store(url, settings.identity))
    pace = pace_of_function if is_function else pace_of_machine
    return Client(
        settings=settings,
        open_parent=lambda agreement: opened(_parent(agreement, source)),
        inbox=opened(settings.inbox) if settings.inbox is not None else None,
        state=opened(settings.state),
        learn=_Training(settings, folder, data),
        normals=system_normals,
        time_limit=settings.time_limit,
        pace=pace(time.monotonic, settings.time_limit),
    )


def side(environment: Mapping[str, str], folder: Path, data: Path) -> Side:
    """Return what a client's functions do, by the settings in FEDBUCKET_CLIENT; raises SettingsError.

    Args:
        folder: the function's own, beside whose entry point the task lies.
        data: a local folder for copies of data that lie in a bucket.
    """
    client = deployed(client_from_environment(environment), folder, data, "FEDBUCKET_CLIENT")
    return Side(
        client=client.settings.id,
        bucket=client.settings.inbox,
        handle=lambda event: rounds.handle(client, event),
        sweep=lambda _: rounds.sweep(client),
    )


def _parent(agreement: Agreement, source: str) -> str:
    if agreement.parent is None:
        raise SettingsError(source, [f"agreement on {agreement.federation}: parent: is missing: its bucket"])
    return agreement.parent


class _Training:
    """A client's `Learn`, which loads torch when it is first called."""

    def __init__(self, settings: ClientSettings, folder: Path, data: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._data = data
        self._training: LocalTraining | None = None

    def __call__(
        self,
        agreement: Agreement,
        settings: FederationSettings,
        round_: int,
        model: bytes,
        plan: Plan | None,
        saves: Saves,
        /,
    ) -> Learned:
        if self._training is None:
            from client.learn import LocalTraining

            self._training = LocalTraining(self._settings, self._folder, system_normals, system_uniforms, self._data)
        return self._training(agreement, settings, round_, model, plan, saves)
