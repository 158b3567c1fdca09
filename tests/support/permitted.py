"""Buckets as somebody with few rights meets them: what a deployment grants, enforced."""

from exchange import keys
from exchange.errors import StoreError
from exchange.stores import Store
from tests.support.watched import WatchedStore

_CREATING = ("create", "begin", "write", "commit")


class Forbidden(StoreError):
    """The answer 403."""


def permitted(store: Store, read: tuple[str, ...], create: tuple[str, ...]) -> Store:
    """Return `store` for somebody who may create, and read or list, keys that begin so, and nothing else."""

    def before(call: str) -> int:
        method, _, key = call.partition(" ")
        if not key.startswith(create if method in _CREATING else read):
            raise Forbidden(f"403: {call}; granted are read {read}, create {create}")
        return 0

    return WatchedStore(store, before, lambda number: None)


def parent_bucket_of_client(store: Store, client: str, federation: str = "orchard") -> Store:
    """Return the parent bucket as a client has it."""
    own = keys.updates(federation, client)
    return permitted(store, read=(f"{federation}/public/", own), create=(own,))


def parent_bucket_of_parent(store: Store, federation: str = "orchard") -> Store:
    """Return the parent bucket as the parent's functions have it, which also list all federations in it."""
    return permitted(store, read=("",), create=(f"{federation}/public/", f"{federation}/rounds/"))


def inbox_of_client(store: Store, federation: str = "orchard") -> Store:
    """Return a client's bucket for tickets as its functions have it."""
    return permitted(store, read=(f"{federation}/inbox/",), create=())


def inbox_of_parent(store: Store, federation: str = "orchard") -> Store:
    """Return a client's bucket for tickets as the parent's functions have it."""
    return permitted(store, read=(f"{federation}/inbox/",), create=(f"{federation}/inbox/",))
