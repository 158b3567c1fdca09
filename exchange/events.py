"""What wakes a function: an object was created."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ObjectCreated:
    """One notification; may come twice, late, or out of order.

    Attributes:
        bucket: the store's name for the bucket.
        key: the object's key.
        id: the platform's id of the event; a redelivery bears the same.
        version: the object's version, where the platform tells it.
    """

    bucket: str
    key: str
    id: str
    version: str | None = None
