"""What the buckets tell of while an emulated federation runs."""

import time
from collections import defaultdict
from threading import Condition

from exchange import keys
from exchange.events import ObjectCreated
from fedbucket.local.progress import Progress


class Watch:
    """Sees each object of the parent bucket when it is created, from any thread.

    Args:
        bucket: the parent bucket, as events name it.
        progress: is told how far the run has come.

    Attributes:
        created: by key, when the object was created, in seconds since any time.
    """

    def __init__(self, bucket: str, progress: Progress) -> None:
        self.created: dict[str, float] = {}
        self._bucket = bucket
        self._progress = progress
        self._answers: defaultdict[int, set[str]] = defaultdict(set)
        self._changed = Condition()

    def saw(self, event: ObjectCreated) -> None:
        """Take notice of an object."""
        if event.bucket != self._bucket:
            return
        with self._changed:
            self.created.setdefault(event.key, time.monotonic())
            self._show(keys.parse(event.key))
            self._changed.notify_all()

    def wait_for(self, key: str, patience: float) -> bool:
        """Wait until `key` was created; return False if for `patience` seconds nothing at all was."""
        with self._changed:
            while key not in self.created:
                if not self._changed.wait(patience):
                    return False
        return True

    def _show(self, key: keys.Key | None) -> None:
        match key:
            case keys.Model(_, round_) if round_ > 0:
                self._progress.evaluated(round_ - 1, {})
            case keys.Receipt(_, round_, client):
                self._answers[round_].add(client)
                self._progress.answered(round_, self._answers[round_])
