"""Emulators for tests: one process a cloud, started at the first need and shared by all tests of this process."""

import atexit
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache

import pytest

from fedbucket import emulators

_running = ExitStack()
atexit.register(_running.close)


@cache
def environment(cloud: str) -> Mapping[str, str]:
    """Start the emulator of a cloud; return the variables by which it is found."""
    start = {"gcs": emulators.gcs, "azure": emulators.azure, "s3": emulators.s3}[cloud]
    return _running.enter_context(start())


@contextmanager
def running(cloud: str) -> Iterator[str]:
    """Let this process and its children find the emulator; yield the URL of a bucket that is yet to be made."""
    if cloud == "azure" and emulators.find_azurite() is None:
        pytest.skip("Azurite is not installed: make azurite (it needs Node)")
    name = f"test-{uuid.uuid4().hex[:12]}"
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in environment(cloud).items():
            patch.setenv(variable, value)
        yield {"gcs": f"gs://{name}", "azure": f"az://{emulators.ACCOUNT}/{name}", "s3": f"s3://{name}"}[cloud]
