"""The emulators: each ends with whoever started it, and where there is none, a test says so."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from exchange.errors import AlreadyExists
from exchange.stores import open_store
from fedbucket import emulators
from tests.exchange.stores.behind import behind

ROOT = Path(__file__).parents[2]
START = """
import sys
from fedbucket import emulators
with emulators.{cloud}() as environment:
    print(next(value for value in environment.values() if "http://" in value).partition("http://")[2], flush=True)
    sys.stdin.read()
"""


def answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"http://{address}", timeout=5).close()
    except urllib.error.HTTPError as answer:
        answer.close()
    except (urllib.error.URLError, ConnectionError):
        return False
    return True


@pytest.mark.parametrize("cloud", ["gcs", "s3", "azure"])
def test_an_emulator_ends_with_the_process_that_started_it_even_if_that_is_killed(cloud: str) -> None:
    if cloud == "azure" and emulators.find_azurite() is None:
        pytest.skip("Azurite is not installed: make azurite (it needs Node)")
    command = [sys.executable, "-c", START.format(cloud=cloud)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip().rstrip(";")
        assert answers(address)
        process.kill()
    until = time.monotonic() + 20
    while answers(address) and time.monotonic() < until:
        time.sleep(0.05)
    assert not answers(address)


@pytest.mark.parametrize("strict", [False, True])
def test_a_machine_without_node_skips_what_needs_azurite_by_name_or_fails(strict: bool) -> None:
    environment = {**os.environ, "PATH": "", "FEDBUCKET_NO_SKIPS": "1"}
    if not strict:
        del environment["FEDBUCKET_NO_SKIPS"]
    options = ("-q", "-p", "no:cacheprovider", "tests/exchange/stores/test_contract.py", "-k", "read_back and azure")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (1 if strict else 0)
    assert ("1 error" if strict else "1 skipped") in done.stdout
    assert "Azurite is not installed: make azurite" in done.stdout


def test_of_fifty_racers_the_guarded_emulator_lets_one_win_and_no_stale_generation_is_found() -> None:
    with emulators.gcs() as environment:
        url = environment["STORAGE_EMULATOR_HOST"]
        request(url, "POST", "/storage/v1/b?project=p", b'{"name": "bucket"}')
        upload = "/upload/storage/v1/b/bucket/o?uploadType=media&name={}&ifGenerationMatch={}"
        with ThreadPoolExecutor(50) as pool:
            codes = list(pool.map(lambda _: request(url, "POST", upload.format("a", 0), b"x"), range(50)))
        assert sorted(codes) == [200] + [412] * 49
        assert request(url, "GET", "/storage/v1/b/bucket/o/a?generation=1") == 404


@pytest.mark.parametrize("listening", ["nobody", "badly"])
@pytest.mark.parametrize("cloud", ["gcs", "azure"])
def test_an_emulator_goes_on_though_nobody_takes_what_it_tells(
    cloud: str, listening: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cloud == "azure" and emulators.find_azurite() is None:
        pytest.skip("Azurite is not installed: make azurite (it needs Node)")
    start = {"gcs": emulators.gcs, "azure": emulators.azure}[cloud]
    with start(None if listening == "nobody" else refuse) as environment:
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        name = f"test-{uuid.uuid4().hex[:12]}"
        url = f"gs://{name}" if cloud == "gcs" else f"az://{emulators.ACCOUNT}/{name}"
        behind(url).make()
        for number in range(100):  # a line of a kilobyte each, at least: more than a pipe holds
            behind(url).replace(f"{number:03}/{'x' * 800}", b"")
        assert open_store(url).create("it-still-answers", b"")


@pytest.mark.parametrize("cloud", ["gcs", "azure"])
def test_what_an_emulator_with_a_folder_has_acknowledged_is_there_after_it_was_killed(
    cloud: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cloud == "azure" and emulators.find_azurite() is None:
        pytest.skip("Azurite is not installed: make azurite (it needs Node)")
    make = {"gcs": emulators.gcs_emulator, "azure": emulators.azure_emulator}[cloud]
    with make(folder=tmp_path) as emulator:
        for variable, value in emulator.environment.items():
            monkeypatch.setenv(variable, value)
        url = "gs://bucket" if cloud == "gcs" else f"az://{emulators.ACCOUNT}/bucket"
        behind(url).make()
        store = open_store(url)
        for number in range(5):
            store.create(f"removed-{number}", b"gone")
            store.remove(f"removed-{number}")
            store.create(f"key-{number}", bytes(range(number)))
            before = {info.key: (info.version, info.created) for info in store.list("")}
            emulator.restart()  # at once: there is no time in which it could write down later what it said it has
            assert {info.key: (info.version, info.created) for info in store.list("")} == before
        assert [store.read(f"key-{number}") for number in range(5)] == [bytes(range(number)) for number in range(5)]
        with pytest.raises(AlreadyExists):
            store.create("key-0", b"again")


def refuse(payload: object) -> None:
    raise RuntimeError("not now")


def request(url: str, method: str, path: str, body: bytes | None = None) -> int:
    kind = "text/plain" if path.startswith("/upload/") else "application/json"
    asked = urllib.request.Request(url + path, body, {"Content-Type": kind}, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
