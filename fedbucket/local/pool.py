"""Worker processes: they import torch, this process does not; and one that dies is replaced."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from exchange.errors import RunStopped
from fedbucket.local.folder import FederationFolder, RunFolder

if TYPE_CHECKING:
    from fedbucket.local.workers import Outcome


class Pool:
    """At most one worker a core, fewer where there are fewer clients; use it as a context."""

    def __init__(self, federation: FederationFolder, run: RunFolder) -> None:
        self._arguments = (federation, run)
        self._size = max(1, min(_cores(), len(federation.clients)))
        self._executor = self._begin()

    def submit(self, method: str, *arguments: Any) -> "Future[Outcome]":
        """Call a method of `workers.Worker` in a worker process.

        The future raises BrokenProcessPool if the worker died; the next call starts new ones.
        """
        with _deaf_to_ctrl_c():  # a worker may be started here, and stays so: this process decides when it ends
            try:
                return self._executor.submit(_attempt, method, *arguments)
            except BrokenProcessPool:
                self._executor.shutdown(wait=False)
                self._executor = self._begin()
                return self._executor.submit(_attempt, method, *arguments)

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of `workers.Worker`, and return what it returns.

        Raises:
            RunStopped: it failed, or its worker process died.
        """
        return value_of(self.submit(method, *arguments))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        interrupted = kind is KeyboardInterrupt
        if interrupted:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one, while workers end, would leave some behind
        self._executor.shutdown(wait=kind is None, cancel_futures=True)
        if interrupted:
            for worker in active_children():  # whoever presses Ctrl-C does not wait for a training to end
                worker.terminate()

    def _begin(self) -> ProcessPoolExecutor:
        with _deaf_to_ctrl_c():  # it imports much, and a Ctrl-C amid an import may be lost
            # spawn: a fork of a process with threads may hang, and spawn is what every platform has.
            return ProcessPoolExecutor(self._size, get_context("spawn"), _begin_worker, self._arguments)


def _cores() -> int:
    """Return how many cores this process may use: fewer than there are, in a container or under `taskset`."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Hold Ctrl-C back; a process that is started meanwhile never hears of it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def value_of(future: "Future[Outcome]") -> Any:
    """Return what a job returned; raises RunStopped if it failed, or its worker process died."""
    try:
        outcome = future.result()
    except BrokenProcessPool as error:
        raise RunStopped("a worker process died; the same command goes on from here") from error
    if outcome.error is not None:
        raise RunStopped(outcome.error)
    return outcome.value


def _begin_worker(federation: FederationFolder, run: RunFolder) -> None:
    os.dup2(2, 1)  # what a task prints is no result: `fedbucket run --json` writes JSON and nothing else
    from fedbucket.local import workers  # here and not above: it imports torch

    workers.begin(federation, run)


def _attempt(method: str, *arguments: Any) -> "Outcome":
    from fedbucket.local import workers

    return workers.attempt(method, *arguments)
