"""The parent as it is deployed: from its settings to what its functions do."""

from collections.abc import Mapping
from functools import cache

from aggregator import rounds
from aggregator.rounds import Parent
from exchange.functions import Side
from exchange.spec import ParentSettings, parent_from_environment
from exchange.stores import Store, open_store


def deployed(settings: ParentSettings) -> Parent:
    """Return what the parent's functions work with; raises StoreError, SettingsError."""

    @cache  # of a client's bucket: opening it asks for credentials
    def open_inbox(url: str) -> Store:
        return open_store(url, settings.identity)

    return Parent(open_store(settings.bucket, settings.identity), open_inbox, settings.time_limit, settings.workers)


def side(environment: Mapping[str, str]) -> Side:
    """Return what the parent's functions do, by the settings in FEDBUCKET_PARENT; raises SettingsError."""
    settings = parent_from_environment(environment)
    parent = deployed(settings)
    return Side(
        client=None,
        bucket=settings.bucket,
        handle=lambda event: rounds.handle(parent, event),
        sweep=lambda firing: rounds.sweep(parent, firing),
    )
