"""Weight files: our reader and writer held against the `safetensors` package, and against whoever sends us garbage."""

from __future__ import annotations

import io
import json
import re
import time
import zipfile
from collections.abc import Callable
from math import inf, nan, prod
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from exchange import tensors
from exchange.errors import InvalidTensorFile

Arrays = dict[str, np.ndarray[Any, Any]]

TORCH_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
DTYPES = sorted(set(TORCH_DTYPES) - {"BF16"})  # that NumPy knows
SHAPES: list[tuple[int, ...]] = [(), (0,), (1,), (3,), (2, 3), (4, 0, 2), (1, 1, 1, 1, 1, 2)]
NAMES = ["w", "", "layer.0.weight", "größe", "重み", "🦴", 'a"b\\c', "a\nb", "\x7f"]


def same(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> bool:
    """Bit for bit."""
    return (ours.shape, ours.dtype, ours.tobytes()) == (theirs.shape, theirs.dtype, theirs.tobytes())


def file_of(header: object, data: bytes = b"") -> bytes:
    """A file with any header: JSON text, or what is written as such."""
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: Any = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


# What the package writes, we read


@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_every_dtype_that_torch_writes_is_read(dtype: str) -> None:
    written = {str(shape): torch.ones(shape).to(TORCH_DTYPES[dtype]) for shape in SHAPES}
    data = safetensors.torch.save(written, {"round": "7"})
    layout, loaded = tensors.layout_of(data), tensors.load(data)
    assert layout.metadata == {"round": "7"}
    assert layout.size == len(data)
    assert {name: tensor.shape for name, tensor in layout.tensors.items()} == {str(shape): shape for shape in SHAPES}
    for name, tensor in written.items():
        assert layout.tensors[name].dtype == dtype
        assert layout.tensors[name].count == tensor.numel()
        widened = tensor.float() if dtype == "BF16" else tensor
        assert same(loaded[name], widened.numpy())


def test_every_dtype_is_read_where_they_are_mixed() -> None:
    written = {
        f"{dtype} {shape}": torch.ones(shape).to(TORCH_DTYPES[dtype]) for dtype in TORCH_DTYPES for shape in SHAPES
    }
    layout = tensors.layout_of(data := safetensors.torch.save(written))
    for name, tensor in layout.tensors.items():
        inside = data[layout.data_begin :]
        assert inside[tensor.begin : tensor.end] == written[name].flatten().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_read(name: str) -> None:
    arrays = {name: np.arange(3.0), "other": np.zeros((), np.int8)}
    data = safetensors.numpy.save(arrays, {name: name})
    assert tensors.layout_of(data).metadata == {name: name}
    assert all(same(tensors.load(data)[each], arrays[each]) for each in arrays)


def test_a_file_without_tensors_is_read() -> None:
    layout = tensors.layout_of(safetensors.numpy.save({}, {"a": "b"}))
    assert (layout.tensors, layout.metadata) == ({}, {"a": "b"})


arrays_of_any_kind = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(lambda name: name != tensors.METADATA),
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: npst.arrays(
            tensors.NUMPY_DTYPES[dtype], npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
        )
    ),
    max_size=5,
)
any_metadata = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])), max_size=3
)


@given(arrays_of_any_kind, any_metadata)
def test_what_the_package_writes_is_what_we_read(arrays: Arrays, metadata: dict[str, str]) -> None:
    data = safetensors.numpy.save(arrays, metadata or None)
    loaded = tensors.load(data)
    assert loaded.keys() == arrays.keys()
    assert all(same(loaded[name], arrays[name]) for name in arrays)
    assert tensors.layout_of(data).metadata == metadata


def test_the_header_may_name_tensors_in_another_order_than_their_bytes_have() -> None:
    data = file_of(
        {"b": entry("U8", [2], [2, 4]), "empty": entry("U8", [0], [2, 2]), "a": entry("U8", [2], [0, 2])}, b"aabb"
    )
    assert list(tensors.layout_of(data).tensors) == ["a", "empty", "b"]
    assert tensors.load(data)["a"].tobytes() == b"aa"
    assert safetensors.numpy.load(data)["a"].tobytes() == b"aa"


# What we write, the package reads


@given(arrays_of_any_kind, any_metadata)
def test_what_we_write_is_what_the_package_reads(arrays: Arrays, metadata: dict[str, str]) -> None:
    data = tensors.dump(arrays, metadata)
    loaded = safetensors.numpy.load(data)
    assert loaded.keys() == arrays.keys()
    assert all(same(loaded[name], arrays[name]) for name in arrays)
    assert all(same(tensors.load(data)[name], arrays[name]) for name in arrays)


@given(arrays_of_any_kind, any_metadata, st.randoms())
def test_the_same_content_gives_the_same_bytes_in_any_order(
    arrays: Arrays, metadata: dict[str, str], random: Any
) -> None:
    shuffled = [list(mapping.items()) for mapping in (arrays, metadata)]
    for items in shuffled:
        random.shuffle(items)
    assert tensors.dump(dict(shuffled[0]), dict(shuffled[1])) == tensors.dump(arrays, metadata)


def test_the_package_reads_our_metadata(tmp_path: Any) -> None:
    (tmp_path / "a.safetensors").write_bytes(tensors.dump({"w": np.zeros(3)}, {"privacy": "ε = 8", "round": "7"}))
    with safetensors.safe_open(tmp_path / "a.safetensors", "numpy") as file:
        assert file.metadata() == {"privacy": "ε = 8", "round": "7"}


def test_a_file_is_written_to_the_byte_as_the_format_has_it() -> None:
    """Whoever averages a cohort writes these very bytes, in whatever version: the digests of models depend on it."""
    data = tensors.dump(
        {"b": np.array([1.0], "<f4"), "é": np.array([2], "<i2"), "a": np.ones((1, 1), "<f4")}, {"round": "7"}
    )
    header = (
        '{"__metadata__":{"round":"7"},"a":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]},'
        '"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},"é":{"dtype":"I16","shape":[1],"data_offsets":[8,10]}}'
    ).encode()
    header += b" " * (-len(header) % 8)
    assert data == len(header).to_bytes(8, "little") + header + b"\0\0\x80\x3f" * 2 + b"\x02\0"


@given(arrays_of_any_kind)
def test_every_tensor_is_aligned_to_its_elements(arrays: Arrays) -> None:
    layout = tensors.layout_of(tensors.dump(arrays, {"a": "b"}))
    assert layout.data_begin % 8 == 0
    for tensor in layout.tensors.values():
        assert tensor.begin % tensors.NUMPY_DTYPES[tensor.dtype].itemsize == 0


def test_our_brain_floats_are_read_by_the_package() -> None:
    values = np.array([1.0, -2.5, 3.0e38, 1e-40])
    header = tensors.encode_header({"w": ("BF16", (2, 2))}, {})
    loaded = safetensors.torch.load(header + tensors.encode("BF16", values).tobytes())
    assert torch.equal(loaded["w"], torch.tensor(values).to(torch.bfloat16).reshape(2, 2))


def test_arrays_of_any_memory_order_are_written_row_by_row() -> None:
    plain = np.arange(12, dtype="<f4").reshape(3, 4)
    spread = np.repeat(plain, 2, axis=1)[:, ::2]
    for array in (plain, np.asfortranarray(plain), plain.astype(">f4"), spread):
        assert same(tensors.load(tensors.dump({"w": array}, {}))["w"], plain)


@pytest.mark.parametrize("array", [np.zeros(1, complex), np.array(["text"]), np.array([None]), np.zeros(1, "m8[s]")])
def test_an_array_that_the_format_lacks_is_refused(array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(InvalidTensorFile, match="'w'"):
        tensors.dump({"w": array}, {})


# What is malformed is refused


A_PICKLE = b"\x80\x04}\x94\x8c\x01w\x94G?\xf0\x00\x00\x00\x00\x00\x00s."  # of {"w": 1.0}


def a_zip() -> bytes:
    """As torch.save writes one."""
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as file:
        file.writestr("archive/data.pkl", A_PICKLE)
        file.writestr("archive/data/0", bytes(400))
    return buffer.getvalue()


def a_text(value: str) -> bytes:
    """A header with JSON's own words where `w` is described."""
    return file_of(f'{{"w":{value}}}'.encode(), b"1234")


SOUND = tensors.dump({"a": np.arange(3, dtype="<f4"), "b": np.arange(2, dtype="<i2")}, {"round": "7"})
HEADER_LENGTH = int.from_bytes(SOUND[:8], "little")

A_TENSOR = b'"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'

MALFORMED: dict[str, bytes] = {
    "no bytes": b"",
    "zeros": bytes(64),
    "ones": b"\xff" * 64,
    "text": b"a text that is no weight file, of more than eight bytes",
    "a pickle": A_PICKLE,
    "a zip": a_zip(),
    "a header of 0 bytes": bytes(8) + SOUND[8:],
    "a header of 1 byte": (1).to_bytes(8, "little") + SOUND[8:],
    "a header longer than the file": len(SOUND).to_bytes(8, "little") + SOUND[8:],
    "a header one byte short": (HEADER_LENGTH - 9).to_bytes(8, "little") + SOUND[8:],
    "a header one byte long": (HEADER_LENGTH + 1).to_bytes(8, "little") + SOUND[8:],
    "a header of 2^63 bytes": (2**63).to_bytes(8, "little") + SOUND[8:],
    "a header of 2^64 - 1 bytes": b"\xff" * 8 + SOUND[8:],
    "a header of big-endian length": HEADER_LENGTH.to_bytes(8, "big") + SOUND[8:],
    "a byte appended": SOUND + b"x",
    "a byte missing": SOUND[:-1],
    "another file appended": SOUND + SOUND,
    "not UTF-8": file_of(b'{"\xff":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"1234"),
    "half of a UTF-8 character": file_of('{"é'.encode()[:-1]),
    "UTF-16": file_of('{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.encode("utf-16"), b"1234"),
    "a byte order mark": file_of(b"\xef\xbb\xbf{}"),
    "not JSON": file_of(b"{w: 1}"),
    "JSON and more": file_of(b"{}{}"),
    "JSON and zeros": file_of(b"{}\0\0"),
    "an unfinished header": file_of(b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,'),
    "a list": file_of([]),
    "null": file_of(None),
    "a number": file_of(10),
    "a string": file_of("w"),
    "a deep list": file_of(b"[" * 10**6),
    "a deep shape": a_text('{"dtype":"F32","data_offsets":[0,4],"shape":' + "[" * 10**5 + "]" * 10**5 + "}"),
    "deep metadata": file_of(b'{"__metadata__":' + b'{"a":' * 10**5 + b"1" + b"}" * 10**5 + b"}"),
    "metadata of numbers": file_of({"__metadata__": {"round": 7}}),
    "metadata of lists": file_of({"__metadata__": {"round": ["7"]}}),
    "metadata of null": file_of({"__metadata__": {"round": None}}),
    "metadata in a list": file_of({"__metadata__": []}),
    "metadata that is text": file_of({"__metadata__": "round"}),
    "metadata twice": file_of(b'{"__metadata__":{},"__metadata__":{}}'),
    "metadata twice, the second like a tensor": file_of(
        b'{"__metadata__":{},"__metadata__":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"1234"
    ),
    "metadata twice, once escaped": file_of(b'{"__metadata__":{},"\\u005f_metadata__":{}}'),
    "metadata that is null, then a tensor": file_of({"__metadata__": None, "w": entry()}, b"1234"),
    "metadata that is text, then a tensor": file_of({"__metadata__": "", "w": entry()}, b"1234"),
    "a comma too many after the metadata": file_of(b'{"__metadata__":{"a":"1"},}'),
    "two commas after the metadata": file_of(b'{"__metadata__":{},,' + A_TENSOR + b"}", b"1234"),
    "no comma after the metadata": file_of(b'{"__metadata__":{}' + A_TENSOR + b"}", b"1234"),
    "more after the metadata and a tensor": file_of(b'{"__metadata__":{},' + A_TENSOR + b"}}", b"1234"),
    "metadata with a name twice": file_of(b'{"__metadata__":{"a":"1","a":"2"}}'),
    "half a surrogate pair as a name": file_of(b'{"\\ud800":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'),
    "half a surrogate pair in metadata": file_of(b'{"__metadata__":{"a":"\\udc00"}}'),
    "a control character": file_of(b'{"__metadata__":{"a":"\x01"}}'),
    "one name twice": file_of(
        b'{"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"w":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}',
        b"1234",
    ),
    "one name twice, once escaped": file_of(
        b'{"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"\\u0077":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}',
        b"1234",
    ),
    "a field twice": a_text('{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}'),
    "a tensor that is a list": a_text('["F32",[1],[0,4]]'),
    "a tensor that is null": a_text("null"),
    "a tensor that is text": a_text('"F32"'),
    "an empty tensor entry": a_text("{}"),
    "no dtype": file_of({"w": {"shape": [1], "data_offsets": [0, 4]}}, b"1234"),
    "no shape": file_of({"w": {"dtype": "F32", "data_offsets": [0, 4]}}, b"1234"),
    "no offsets": file_of({"w": {"dtype": "F32", "shape": [1]}}, b"1234"),
    "an unknown field": file_of({"w": {**entry(), "strides": [4]}}, b"1234"),
    **{
        f"dtype {dtype!r}": file_of({"w": entry(dtype)}, b"1234")
        for dtype in ("F8_E4M3", "f32", "F32 ", "", "float32", "__class__", None, 32, ["F32"], {"F32": 1}, True)
    },
    **{
        f"shape {shape}": a_text(f'{{"dtype":"F32","shape":{shape},"data_offsets":[0,4]}}')
        for shape in (
            "1", '"1"', "null", "{}", "[1.0]", "[1e0]", "[true]", '["1"]', "[null]", "[[1]]", "[-1]", "[-1,-1]", "[2]",
            "[0]", "[1,0]", "[NaN]", "[Infinity]", "[-Infinity]", "[1e999]", f"[{2**62}]", f"[{2**63}]", f"[{2**64}]",
            f"[{2**64 + 1}]", f"[{2**32},{2**32}]", f"[1{'0' * 5000}]", f"[{2**62},{2**62},0]", f"[{2**63},0]",
        )
    },
    **{
        f"offsets {offsets}": a_text(f'{{"dtype":"F32","shape":[1],"data_offsets":{offsets}}}')
        for offsets in (
            "4", '"0,4"', "null", "[]", "[4]", "[0,4,4]", "[[0,4]]", "[0.0,4.0]", "[false,4]", '["0","4"]', "[null,4]",
            "[4,0]", "[-4,0]", "[-1,3]", "[1,5]", "[4,8]", "[0,5]", "[0,3]", "[1,4]", f"[{2**62},{2**62 + 4}]",
            f"[{2**63 - 4},{2**63}]", f"[{2**64 - 4},{2**64}]", f"[{2**64},{2**64 + 4}]", "[0,NaN]", "[-0,4]",
            "[0,4e0]",
        )
    },
    "-0 elements": file_of(b'{"w":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}'),
    "a shape that overflows, but for a 0": file_of({"w": entry("F32", [2**62, 2**62, 0], [0, 0])}),
    "a shape that overflows, after a 0": file_of({"w": entry("F32", [0, 2**62, 2**62], [0, 0])}),
    "more dimensions than an array has": file_of({"w": entry("F32", [1] * 65, [0, 4])}, b"1234"),
    "very many large dimensions": file_of({"w": entry("F32", [2**62] * 300_000, [0, 4])}, b"1234"),
    "tensors that overlap": file_of({"a": entry("U8", [3], [0, 3]), "b": entry("U8", [3], [1, 4])}, b"1234"),
    "two tensors in one place": file_of({"a": entry("U8", [4], [0, 4]), "b": entry("U8", [4], [0, 4])}, b"1234"),
    "a gap at the start": file_of({"a": entry("U8", [2], [2, 4])}, b"1234"),
    "a gap between": file_of({"a": entry("U8", [1], [0, 1]), "b": entry("U8", [2], [2, 4])}, b"1234"),
    "a gap at the end": file_of({"a": entry("U8", [2], [0, 2])}, b"1234"),
    "an empty tensor outside": file_of({"a": entry("U8", [4], [0, 4]), "b": entry("U8", [0], [9, 9])}, b"1234"),
    "an empty tensor inside another": file_of({"a": entry("U8", [4], [0, 4]), "b": entry("U8", [0], [2, 2])}, b"1234"),
    "bytes that belong to no tensor": file_of({}, b"1234"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("read", [tensors.layout_of, tensors.load])
def test_a_malformed_file_is_refused(read: Callable[[bytes], object], name: str) -> None:
    began = time.process_time()
    with pytest.raises(InvalidTensorFile) as caught:
        read(MALFORMED[name])
    assert time.process_time() - began < 2.0
    assert str(caught.value).encode()  # can be written into a receipt


def test_a_file_cut_off_anywhere_is_refused() -> None:
    assert tensors.layout_of(SOUND)
    for length in range(len(SOUND)):
        with pytest.raises(InvalidTensorFile):
            tensors.layout_of(SOUND[:length])


def test_a_refusal_names_the_tensor_and_what_is_wrong_with_it() -> None:
    for malformed, words in (
        ({"layer.bias": entry("F99")}, "'layer.bias'.*unknown dtype 'F99'"),
        ({"layer.bias": entry("F32", [3])}, r"'layer.bias'.*F32 of shape \[3\] takes 12 bytes"),
        ({"a": entry("U8", [4], [0, 4]), "b": entry("U8", [4], [0, 4])}, "'b' begins at byte .*overlap"),
    ):
        with pytest.raises(InvalidTensorFile, match=words):
            tensors.layout_of(file_of(malformed, b"1234"))


def test_a_header_larger_than_the_readers_limit_is_not_read() -> None:
    asked: list[tuple[int, int]] = []

    def read(offset: int, count: int) -> bytes:
        asked.append((offset, count))
        return SOUND[offset : offset + count]

    with pytest.raises(InvalidTensorFile, match=f"{HEADER_LENGTH} bytes"):
        tensors.read_layout(read, len(SOUND), max_header_bytes=HEADER_LENGTH - 1)
    assert asked == [(0, 8)]
    assert tensors.read_layout(read, len(SOUND), max_header_bytes=HEADER_LENGTH) == tensors.layout_of(SOUND)


def test_a_header_above_the_formats_limit_is_refused_unread() -> None:
    def read(offset: int, count: int) -> bytes:
        assert (offset, count) == (0, 8)
        return (100_000_001).to_bytes(8, "little")

    with pytest.raises(InvalidTensorFile):
        tensors.read_layout(read, 2**40)


# Wherever the package refuses, so do we


def outcomes(data: bytes) -> tuple[bool, bool]:
    """Whether the package takes a file, and whether we do; what is raised else fails the test."""
    try:
        safetensors.deserialize(data)
        theirs = True
    except safetensors.SafetensorError:
        theirs = False
    try:
        tensors.load(data)
        ours = True
    except InvalidTensorFile:
        ours = False
    return theirs, ours


@given(st.binary(max_size=200))
def test_noise_is_refused_as_the_package_refuses_it(data: bytes) -> None:
    theirs, ours = outcomes(data)
    assert theirs or not ours


changed_bytes = st.tuples(st.integers(0, len(SOUND)), st.integers(0, 2), st.binary(max_size=3))


@settings(max_examples=400)
@given(st.lists(changed_bytes, min_size=1, max_size=4))
def test_a_sound_file_with_changed_bytes_is_refused_where_the_package_refuses_it(
    changes: list[tuple[int, int, bytes]],
) -> None:
    data = SOUND
    for position, removed, inserted in changes:
        data = data[:position] + inserted + data[position + removed :]
    theirs, ours = outcomes(data)
    assert theirs or not ours


TOKENS = [
    "0", "-0", "1", "-1", "2", "3", "4", "12", "16", "1.0", "1e0", "01", "+1", "0x1", "NaN", "Infinity", "true", "null",
    str(2**63), str(2**64), str(2**62), "[]", "{}", "[0]", "[3]", '"F32"', '"I16"', '"F64"', '"BF16"', '"F8_E5M2"',
    '"a"', '"b"', '""', '"\\ud800"', '"\\ud83e\\uddb4"', '"\\u0061"', '"\\/"', '"\\x"', '"\t"', '"__metadata__"',
    '"dtype"', '"shape"', '"data_offsets"', ",", ":", "[", "]", "{", "}", " ", "\n", "\f", "\ufeff", "\0",
]  # fmt: skip
PARTS = [part for part in re.split(r'("[^"]*"|[^\w"])', SOUND[8 : 8 + HEADER_LENGTH].decode()) if part]


@settings(max_examples=1000)
@given(st.dictionaries(st.integers(0, len(PARTS) - 1), st.sampled_from(TOKENS), min_size=1, max_size=3), st.booleans())
@example({PARTS.index("3"): "-0"}, False)
def test_a_sound_file_with_changed_words_is_refused_where_the_package_refuses_it(
    changes: dict[int, str], insert: bool
) -> None:
    parts = [changes.get(index, "") + part if insert else changes.get(index, part) for index, part in enumerate(PARTS)]
    theirs, ours = outcomes(file_of("".join(parts).encode(), SOUND[8 + HEADER_LENGTH :]))
    assert theirs or not ours


@pytest.mark.parametrize("name", MALFORMED)
def test_what_the_package_takes_of_the_malformed_is_what_we_are_stricter_about(name: str) -> None:
    theirs, _ = outcomes(MALFORMED[name])
    stricter = {
        "metadata twice", "metadata twice, once escaped", "metadata that is null, then a tensor",
        "metadata with a name twice", "a shape that overflows, after a 0", "an unknown field",
        "more dimensions than an array has", "a tensor that is a list", "dtype 'F8_E4M3'", "one name twice",
        "one name twice, once escaped", f"shape [{2**63},0]",
    }  # fmt: skip
    assert not theirs or name in stricter


# Numbers


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(finite, min_size=1, max_size=50))
@example([0.0, -0.0, 1.00390625, 1.01171875, 3.3895e38, -3.3962e38, 1e308, 6e-8, 9.2e-41, 4.5e-41])
def test_values_are_rounded_to_brain_floats_as_torch_rounds_them(values: list[float]) -> None:
    ours = tensors.encode("BF16", np.array(values))
    theirs = torch.tensor(values, dtype=torch.float64).to(torch.bfloat16)
    assert ours.tobytes() == theirs.view(torch.uint16).numpy().tobytes()


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
@example([0.0, -0.0, 1.0, 65504.0, 65519.0, 65520.0, -65520.0, 2.0**-24, 2.0**-25, -(2.0**-25), 3 * 2.0**-26])
def test_values_are_rounded_to_half_precision_as_torch_rounds_them(values: list[float]) -> None:
    """Of single-precision values: from double, torch rounds twice."""
    ours = tensors.encode("F16", np.array(values))
    theirs = torch.tensor(values, dtype=torch.float32).to(torch.float16)
    assert ours.tobytes() == theirs.numpy().tobytes()


@given(finite)
@example(1 + 2.0**-11 + 2.0**-40)
def test_values_are_rounded_to_the_nearest_half(value: float) -> None:
    assume(abs(value) < 65504)
    rounded = tensors.encode("F16", np.array([value]))
    for neighbour in (np.nextafter(rounded, np.float16(-inf)), np.nextafter(rounded, np.float16(inf))):
        assert abs(float(rounded[0]) - value) <= abs(float(neighbour[0]) - value)


def test_every_brain_float_survives_decoding_and_encoding() -> None:
    bits = np.arange(2**16, dtype="<u2")
    decoded = tensors.decode("BF16", bits.tobytes())
    theirs = torch.from_numpy(bits.view("<i2")).view(torch.bfloat16).float().numpy()
    assert same(decoded, theirs)
    number = ~np.isnan(decoded)
    assert np.array_equal(tensors.encode("BF16", decoded[number].astype("f8")), bits[number])


def test_every_half_survives_decoding_and_encoding() -> None:
    bits = np.arange(2**16, dtype="<u2")
    decoded = tensors.decode("F16", bits.tobytes())
    number = ~np.isnan(decoded)
    assert np.array_equal(tensors.encode("F16", decoded[number].astype("f8")).view("<u2"), bits[number])


@pytest.mark.parametrize("dtype", sorted(tensors.FLOATING))
def test_what_is_too_large_becomes_infinite_and_what_is_no_number_stays_none(dtype: str) -> None:
    values = np.array([tensors.LARGEST[dtype], -tensors.LARGEST[dtype], inf, -inf, nan, 0.0])
    payload = np.array([0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF], "<u8").view("<f8")
    decoded = tensors.decode(dtype, tensors.encode(dtype, np.concatenate([values, payload])).tobytes()).astype("f8")
    assert np.array_equal(decoded[:6], values, equal_nan=True)
    assert np.isnan(decoded[6:]).all()
    if dtype != "F64":
        above = np.array([tensors.LARGEST[dtype] * 1.01])
        assert tensors.decode(dtype, tensors.encode(dtype, above).tobytes())[0] == inf


@pytest.mark.parametrize("dtype", sorted(tensors.FLOATING))
def test_the_largest_values_are_those_of_torch(dtype: str) -> None:
    assert tensors.LARGEST[dtype] == torch.finfo(TORCH_DTYPES[dtype]).max


@pytest.mark.parametrize("dtype", sorted(set(DTYPES) - {"BOOL"}))
def test_decoding_copies_nothing_where_it_need_not(dtype: str) -> None:
    data = bytearray(prod((4, 8)))
    decoded = tensors.decode(dtype, data)
    data[0] = 1
    assert decoded[0] != 0
