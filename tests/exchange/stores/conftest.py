"""Each test of the contract runs once a backend."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.exchange.stores.backends import BACKENDS, Bucket


@pytest.fixture(params=BACKENDS)
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bucket]:
    with BACKENDS[request.param].open(tmp_path) as opened:
        yield opened


@pytest.fixture(params=[name for name, backend in BACKENDS.items() if backend.shared])
def shared_bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bucket]:
    with BACKENDS[request.param].open(tmp_path) as opened:
        yield opened


@pytest.fixture(params=[name for name, backend in BACKENDS.items() if backend.ticks])
def ticking_bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bucket]:
    with BACKENDS[request.param].open(tmp_path) as opened:
        yield opened
