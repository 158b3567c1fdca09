"""`make conformance`: the contract, held against somebody's bucket."""

import subprocess
import sys
from pathlib import Path

from exchange.stores import open_store
from tests.exchange.stores import conformance
from tests.exchange.stores.behind import behind
from tests.support.emulators import running

ROOT = Path(__file__).parents[3]


def conform(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", conformance.__name__, url, *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def test_a_sound_bucket_keeps_every_promise_and_is_left_as_it_was() -> None:
    with running("gcs") as url:
        behind(url).make()
        store = open_store(url)
        store.create("mine/a", b"data")
        done = conform(f"{url}/mine", "-k", "not fifty and not eight")
        assert done.returncode == 0, done.stdout
        assert "BROKEN" not in done.stdout
        assert "kept   a replaced object cannot be read at its old version [other]" in done.stdout
        assert f"promises kept by {url}/mine" in done.stdout
        assert [info.key for info in store.list("")] == ["mine/a"]


def test_a_broken_promise_is_named() -> None:
    with running("gcs") as url:
        done = conform(f"{url}/mine", "-k", "read_back")
        assert done.returncode == 1
        assert "BROKEN what was created is read back" in done.stdout
        assert "0 of 1 promises kept" in done.stdout
