"""Bad input, as code that generates it: strategies for what somebody may send who means no good, or has bad luck."""

import json
import struct
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

_DEEP = "[" * 100_000 + "]" * 100_000
_TOKENS = (
    *("null", "true", "0", "-0", "-1", "1.5", "1e999", "NaN", "-Infinity", "[]", "{}", '""', '"\\ud800"', '"\\u0000"'),
    *(str(2**31), str(2**53 + 1), str(2**63), str(-(2**63) - 1), "9" * 5000, "1e-320", _DEEP, '{"a":' * 3000),
    *(
        json.dumps(name)
        for name in ("..", "../../ledger", "/", "a/b", ".", "A", "a" * 64, "a" * 100_000, "é", "\u202e")
    ),
    *(
        json.dumps(name)
        for name in ("__metadata__", "__class__", "$ref", "orchard", "alder", "inf", "0" * 64, "F8_E4M3")
    ),
)
_MARK = "\x1ahere\x1a"
PATHS = (
    *("..", "../x", "orchard/../ledger/data/000000.json", "orchard//public", "/orchard", "orchard/", "", ".", "\0"),
    *(
        "orchard/updates/../public/models/000000.safetensors",
        "orchard/updates/alder/000000.safetensors/",
        "é",
        "a" * 2000,
    ),
    *(
        "orchard\\updates\\alder\\000000.safetensors",
        "orchard/updates/%2e%2e/000000.safetensors",
        "ORCHARD/inbox/000000.json",
    ),
    *("orchard/updates/alder/0.safetensors", "orchard/updates/alder/00000٣.safetensors", "ledger/inbox/000000.json"),
    *("orchard/updates/alder/000000.safetensors\n", "orchard/updates/alder/1000000.safetensors", "con/nul/000000.json"),
)


@st.composite
def documents(draw: st.DrawFn, sound: bytes) -> bytes:
    """Return a JSON document that was sound, with something else in one place or two, or with its bytes changed."""
    content = json.loads(sound)
    tokens = []
    for number in range(draw(st.integers(0, 2))):
        place = content
        while isinstance(place, dict | list) and place:
            name = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            if not isinstance(place[name], dict | list) or not place[name] or draw(st.booleans()):
                _change(draw, place, name, f"{_MARK}{number}")
                tokens.append((f"{_MARK}{number}", draw(st.sampled_from(_TOKENS))))
                break
            place = place[name]
    text = json.dumps(content, ensure_ascii=draw(st.booleans()))
    for mark, token in tokens:
        text = text.replace(json.dumps(mark), token)
    return draw(changed(text.encode(errors="replace"))) if draw(st.booleans()) else text.encode(errors="replace")


def _change(draw: st.DrawFn, place: Any, name: Any, mark: str) -> None:
    how = draw(st.sampled_from(("replace", "remove", "add"))) if isinstance(place, dict) else "replace"
    if how == "remove":
        del place[name]
    else:
        place[draw(st.sampled_from(("extra", "", "__class__"))) if how == "add" else name] = mark


@st.composite
def changed(draw: st.DrawFn, data: bytes) -> bytes:
    """Return `data` with bytes changed, cut, doubled or appended."""
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, len(data)))
        end = draw(st.integers(begin, min(len(data), begin + 40)) | st.just(len(data)))
        data = data[:begin] + draw(st.binary(max_size=8) | st.just(data[begin:end] * 2)) + data[end:]
    return data


_LENGTHS = (0, 1, 2, 7, 8, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1)
_NUMBERS = st.integers(-2, 40) | st.sampled_from((2**31, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64, 2**64 + 4))
_SPECIAL = {  # the bits of NaNs quiet and signalling, infinities, subnormals, -0, the largest and one
    "F64": (
        "<Q",
        (0x7FF8 << 48, (0x7FF0 << 48) + 1, 0x7FF0 << 48, 0xFFF0 << 48, 1, 1 << 63, (0x7FF0 << 48) - 1, 1023 << 52),
    ),
    "F32": ("<I", (0x7FC0_0000, 0x7F80_0001, 0x7F80_0000, 0xFF80_0000, 1, 1 << 31, 0x7F7F_FFFF, 0x3F80_0000)),
    "F16": ("<H", (0x7E00, 0x7C01, 0x7C00, 0xFC00, 1, 0x8000, 0x7BFF, 0x3C00)),
    "BF16": ("<H", (0x7FC0, 0x7F81, 0x7F80, 0xFF80, 1, 0x8000, 0x7F7F, 0x3F80)),
    "I32": ("<I", (0, 1, 2**31)),
    "BOOL": ("<B", (0, 1, 2)),
}


@st.composite
def weight_files(draw: st.DrawFn, shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]) -> bytes:
    """Return something like the weight file of tensors of these shapes: sound, or with its header made up anew."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    body = b""
    for name, shape in shapes.items():
        dtype = draw(st.sampled_from(("F32", *_SPECIAL)))
        code, bits = _SPECIAL[dtype]
        count = 1
        for size in shape:
            count *= size
        values = draw(st.lists(st.sampled_from((*bits[-2:], *bits)), min_size=count, max_size=count))
        data = b"".join(struct.pack(code, value) for value in values)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    if draw(st.booleans()):
        _disturb(draw, header)
    text = json.dumps(header).encode()
    if draw(st.integers(0, 3)) == 0:
        text = draw(documents(text))
    length = draw(st.sampled_from((len(text),) * 6 + (len(text) + len(body), *_LENGTHS)))
    data = length.to_bytes(8, "little") + text + body
    return draw(changed(data)) if draw(st.integers(0, 3)) == 0 else data


def _disturb(draw: st.DrawFn, header: dict[str, Any]) -> None:
    """Let one entry say something else."""
    name = draw(st.sampled_from(sorted(header)))
    match draw(st.sampled_from(("offsets", "shape", "name", "missing", "twin"))):
        case "offsets" if name != "__metadata__":
            header[name]["data_offsets"] = draw(st.lists(_NUMBERS, min_size=2, max_size=2))
        case "shape" if name != "__metadata__":
            header[name]["shape"] = draw(st.lists(_NUMBERS, max_size=4))
        case "name":
            header[draw(st.sampled_from(("", "n" * 70_000, "../x", "\0", *PATHS)))] = header.pop(name)
        case "missing":
            del header[name]
        case _:
            header[draw(st.text(max_size=3))] = header[name]
