"""What a downloaded gigabyte costs, ours beside the SDKs', and what the mean adds: `python -m benchmarks.download`.

Every reader reads one object in ranges from a local server (`benchmarks.range_server`, a process of its own), in turns
with the others; http.client, straight into the buffer, shows what the machine itself takes. The mean reads the same
file as its model and as each of its members, by way of `gs://`; fetching alone repeats exactly its reads.
"""

import base64
import http.client
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import numpy as np

from aggregator.mean import mean_of
from aggregator.stripes import discard, write_data
from exchange import tensors
from exchange.blocks import open_weights
from exchange.stores import ObjectInfo, Store, open_store

GB = 1e9
PART = 2**23  # bytes asked for at a time, as the SDKs' transfers in parts do
Read = Callable[[int, memoryview], object]


@dataclass
class Watched:
    """A store that notes what is read of it."""

    store: Store
    reads: list[tuple[str, int, int, str | None]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.store.url

    def stat(self, key: str) -> ObjectInfo:
        return self.store.stat(key)

    def read_into(self, key: str, offset: int, buffer: memoryview, version: str | None = None) -> None:
        self.reads.append((key, offset, len(buffer), version))
        self.store.read_into(key, offset, buffer, version)


@contextmanager
def serving(file: Path) -> Iterator[str]:
    """Let this process's SDKs find the range server; yield its address."""
    command = [sys.executable, "-m", "benchmarks.range_server", str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        key = base64.b64encode(bytes(32)).decode()
        os.environ |= {
            "STORAGE_EMULATOR_HOST": url,
            "AZURE_STORAGE_CONNECTION_STRING": f"AccountName=emulator;AccountKey={key};BlobEndpoint={url}/emulator",
            "AWS_ENDPOINT_URL": url,
            "AWS_DEFAULT_REGION": "us-east-1",
            **dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "none"),
        }
        try:
            yield urlsplit(url).netloc
        finally:
            server.kill()


def readers(address: str) -> dict[str, Read]:
    """Return how each reads a range; the SDKs by what their documentation shows, out of the very same clients."""
    stores = {scheme: open_store(f"{scheme}://{path}") for scheme, path in PATHS.items()}
    gcs, azure, s3 = (vars(stores[scheme]) for scheme in PATHS)
    connection = http.client.HTTPConnection(address)

    def plain(offset: int, buffer: memoryview) -> None:
        connection.request("GET", "/object", headers={"Range": _bounds(offset, buffer)})
        answer = connection.getresponse()
        while len(buffer):
            buffer = buffer[answer.readinto(buffer) :]
        answer.read()

    def google_sdk(offset: int, buffer: memoryview) -> Any:
        return gcs["_bucket"].blob("object").download_as_bytes(start=offset, end=offset + len(buffer) - 1)

    def azure_sdk(offset: int, buffer: memoryview) -> Any:
        return azure["_container"].get_blob_client("object").download_blob(offset, len(buffer)).readall()

    def amazon_sdk(offset: int, buffer: memoryview) -> Any:
        return s3["_client"].get_object(Bucket="bucket", Key="object", Range=_bounds(offset, buffer))["Body"].read()

    def ours(store: Store) -> Read:
        return lambda offset, buffer: store.read_into("object", offset, buffer, "1")

    sdks = {"google-cloud-storage": google_sdk, "azure-storage-blob": azure_sdk, "boto3": amazon_sdk}
    return {**{f"{scheme}://": ours(store) for scheme, store in stores.items()}, **sdks, "http.client": plain}


PATHS = {"gs": "bucket", "az": "emulator/container", "s3": "bucket"}


def _bounds(offset: int, buffer: memoryview) -> str:
    return f"bytes={offset}-{offset + len(buffer) - 1}"


def in_turns(actions: dict[str, Callable[[], object]], repeats: int) -> dict[str, tuple[float, float]]:
    """Return the median wall and CPU seconds of each action; the first round is not counted."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in actions}
    for _ in range(repeats + 1):
        for name, action in actions.items():
            wall, cpu = time.perf_counter(), time.process_time()
            action()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: _medians(found[1:]) for name, found in times.items()}


def _medians(found: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return statistics.median(wall for wall, _ in found), statistics.median(cpu for _, cpu in found)


def download_rows(address: str, size: int, repeats: int) -> list[dict[str, object]]:
    """Return a row a reader, for reading the whole object once, one range after the other."""
    buffer = memoryview(bytearray(PART))

    def whole(read: Read) -> None:
        for offset in range(0, size, PART):
            read(offset, buffer[: min(PART, size - offset)])

    found = in_turns({name: lambda read=read: whole(read) for name, read in readers(address).items()}, repeats)
    return [
        {"name": name, "cpu_seconds_per_gb": round(cpu * GB / size, 3), "gb_per_second": round(size / GB / wall, 3)}
        for name, (wall, cpu) in found.items()
    ]


def fold_rows(members: int, workers: int, repeats: int) -> list[dict[str, object]]:
    """Return a row for the mean and one for its reads alone."""
    store: Any = Watched(open_store("gs://bucket"))
    file = open_weights(store, "object")
    store.reads.clear()

    def mean() -> None:
        write_data(file, mean_of([(file, 1 + each) for each in range(members)]), discard, workers)

    mean()
    reads = list(store.reads)
    buffers = [memoryview(bytearray(max(length for _, _, length, _ in reads))) for _ in range(workers)]

    def some(worker: int) -> None:
        for key, offset, length, version in reads[worker::workers]:
            store.store.read_into(key, offset, buffers[worker][:length], version)

    def fetch() -> None:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(some, range(workers)))

    size = sum(length for _, _, length, _ in reads)
    found = in_turns({"fetch": fetch, "fetch and fold": mean}, repeats)
    return [
        {
            "name": name,
            "workers": workers,
            "seconds": round(wall, 3),
            "gb_per_second": round(size / GB / wall, 3),
            "cpu_seconds_per_gb": round(cpu * GB / size, 3),
            "ratio_to_fetch": round(wall / found["fetch"][0], 3),
        }
        for name, (wall, cpu) in found.items()
    ]


@click.command()
@click.option("--megabytes", default=100, show_default=True, help="Size of the object.")
@click.option("--members", default=4, show_default=True, help="Updates of the mean.")
@click.option("--repeats", default=7, show_default=True, help="Counted rounds; the figures are medians.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the figures there instead.")
def main(megabytes: int, members: int, repeats: int, out: Path | None) -> None:
    """Measure downloads, and the mean over them, with one worker and with two."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "object"
        values = np.random.default_rng(0).standard_normal(megabytes * 250_000, dtype=np.float32)
        file.write_bytes(tensors.encode_header({"weight": ("F32", values.shape)}, {}) + values.tobytes())
        with serving(file) as address:
            rows = {
                "downloads": download_rows(address, file.stat().st_size, repeats),
                "mean": [row for workers in (1, 2) for row in fold_rows(members, workers, repeats)],
            }
    conditions = {
        "bytes": megabytes * 1_000_000,
        "bytes_a_request": PART,
        "members": members,
        "repeats": repeats,
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "transport": "HTTP on loopback, without TLS",
    }
    text = json.dumps({"conditions": conditions, **rows}, indent=2) + "\n"
    if out:
        out.write_text(text, encoding="utf-8")
    else:
        click.echo(text, nl=False)


if __name__ == "__main__":
    main()
