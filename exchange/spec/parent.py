"""What the parent's functions need to know."""

from exchange.documents import Document
from exchange.spec.fields import Count, Seconds, WatchedUrl
from exchange.spec.identity import Identity


class ParentSettings(Document):
    """The parent's own settings."""

    bucket: WatchedUrl
    """The parent bucket; one set of functions serves all federations in it."""
    time_limit: Seconds = 540
    """How long one of its functions may run; what one has begun, another leaves to it for so long."""
    workers: Count = 1
    """Threads of the mean: as many as the function has cores."""
    identity: tuple[Identity, ...] = ()
    """Who the functions are in another cloud, for the clients' buckets there."""
