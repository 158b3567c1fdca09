"""Worker processes: they import torch, this process does not; and one that dies is replaced."""

import os
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from fedbucket.local.folder import FederationFolder, RunFolder

if TYPE_CHECKING:
    from fedbucket.local.workers import Outcome


class Pool:
    """At most one worker a core, fewer where there are fewer clients; use it as a context."""

    def __init__(self, federation: FederationFolder, run: RunFolder) -> None:
        self._arguments = (federation, run)
        self._size = max(1, min(os.cpu_count() or 1, len(federation.clients)))
        self._executor = self._begin()

    def submit(self, method: str, *arguments: Any) -> "Future[Outcome]":
        """Call a method of `workers.Worker` in a worker process.

        The future raises BrokenProcessPool if the worker died; the next call starts new ones.
        """
        try:
            return self._executor.submit(_attempt, method, *arguments)
        except BrokenProcessPool:
            self._executor.shutdown(wait=False)
            self._executor = self._begin()
            return self._executor.submit(_attempt, method, *arguments)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown(wait=kind is None, cancel_futures=True)

    def _begin(self) -> ProcessPoolExecutor:
        # spawn: a fork of a process with threads may hang, and spawn is what every platform has.
        return ProcessPoolExecutor(self._size, get_context("spawn"), _begin_worker, self._arguments)


def _begin_worker(federation: FederationFolder, run: RunFolder) -> None:
    from fedbucket.local import workers  # here and not above: it imports torch

    workers.begin(federation, run)


def _attempt(method: str, *arguments: Any) -> "Outcome":
    from fedbucket.local import workers

    return workers.attempt(method, *arguments)
