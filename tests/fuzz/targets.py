"""What is fuzzed: each target takes any bytes, and raises if the code under test does not do as it says."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import safetensors

from exchange import keys, tensors
from exchange.errors import InvalidDocument, InvalidEvent, InvalidTensorFile, SettingsError
from exchange.events import from_event_grid, from_gcs, from_s3
from exchange.spec import FederationSettings, client_from_environment
from exchange.stores.protocol import is_key
from tests.support.arithmetic import FIRST, update_file
from tests.support.settings import PRIVATE, federation_settings

EVENTS = Path(__file__).parents[1] / "events"


def file(data: bytes) -> None:
    """A weight file: its tensors lie end to end within it and the safetensors package takes it, or it is refused."""
    try:
        layout = tensors.layout_of(data)
    except InvalidTensorFile:
        return
    end = 0
    for tensor in layout.tensors.values():
        assert tensor.begin == end
        assert tensor.end - tensor.begin == tensor.count * tensors.NUMPY_DTYPES[tensor.dtype].itemsize
        end = tensor.end
    assert layout.data_begin + end == layout.size == len(data)
    assert tensors.load(data).keys() == layout.tensors.keys()
    safetensors.deserialize(data)


def header(data: bytes) -> None:
    """A header of the right length, followed by as much data as it speaks of."""
    file(len(data).to_bytes(8, "little") + data + bytes(_announced(data)))


def _announced(data: bytes) -> int:
    with suppress(ValueError, RecursionError, AttributeError, KeyError, IndexError, TypeError):
        ends = [entry["data_offsets"][1] for name, entry in json.loads(data).items() if name != tensors.METADATA]
        return int(min(max(0, *ends), 10_000))
    return 0


def key(data: bytes) -> None:
    """A key: what it parses to is written as it was, and any store takes it."""
    text = data.decode(errors="surrogateescape")
    if (parsed := keys.parse(text)) is not None:
        assert str(parsed) == text
        assert is_key(text)


def event(data: bytes) -> None:
    """A platform's notification: objects that were created, or refused."""
    try:
        payload = json.loads(data)
    except (ValueError, RecursionError):
        return  # whoever calls has parsed it
    for parse in (from_event_grid, from_s3, _from_gcs):
        try:
            found = parse(payload)
        except InvalidEvent:
            continue
        assert all(isinstance(part, str) and part for made in found for part in (made.bucket, made.key, made.id))


def settings(data: bytes) -> None:
    """Settings, in JSON or in TOML: read, or refused with every mistake; published, they are read back."""
    try:
        published = FederationSettings.from_bytes(data, "fuzz").to_bytes()
        assert FederationSettings.from_bytes(published, "again").to_bytes() == published
    except InvalidDocument:
        pass
    with suppress(SettingsError):
        client_from_environment({"FEDBUCKET_CLIENT": data.decode(errors="replace")})


def _from_gcs(payload: object) -> list:
    fields = payload if isinstance(payload, dict) else {}
    headers = fields.get("headers")
    return from_gcs(headers if isinstance(headers, dict) else {}, fields.get("body"))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "file": file,
    "header": header,
    "key": key,
    "event": event,
    "settings": settings,
}


def seeds(target: str) -> list[bytes]:
    """Return sound input, to begin with."""
    files = [update_file(FIRST, "alder", 0), tensors.dump({}, {"a": "b"}), tensors.dump(FIRST, {})]
    return {
        "file": files,
        "header": [data[8 : 8 + int.from_bytes(data[:8], "little")] for data in files],
        "key": [
            str(found).encode()
            for found in (
                keys.Update("orchard", "alder", 7),
                keys.Receipt("orchard", 7, "alder"),
                keys.Attempt("orchard", 7, 3),
                keys.LedgerEntry("data", 12),
                keys.Release("orchard", 7, withdrawn=True),
            )
        ],
        "event": [path.read_bytes() for path in sorted(EVENTS.glob("*.json"))],
        "settings": [
            federation_settings().to_bytes(),
            federation_settings(privacy=PRIVATE).to_bytes(),
            b'id = "alder"\ndata = "d"\n[[agreement]]\nfederation = "orchard"\ntask = "task.py"\nmax_epsilon = 8.0\n',
        ],
    }[target]
