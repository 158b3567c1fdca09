"""JSON objects that travel: strict on the way in, the same bytes for the same content on the way out."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange import strict_json
from exchange.documents import Document, sha256
from exchange.errors import InvalidDocument
from exchange.records import Cohort, Finished, Receipt, RejectionCode, StoredUpdate, Summary, Ticket


class Note(Document):
    name: str
    count: int = 0
    share: float = 0.5
    parts: tuple[str, ...] = ()


def note(content: str | bytes) -> Note:
    data = content if isinstance(content, bytes) else content.encode()
    return Note.from_bytes(data, "notes/1.json in file:///bucket")


# In


REFUSED = {
    "nothing": ("", "expected JSON"),
    "not JSON": ("{name: 1}", "expected JSON"),
    "JSON and more": ('{"name":"a"} x', "expected JSON"),
    "two documents": ('{"name":"a"}{"name":"a"}', "expected JSON"),
    "cut off": ('{"name":"a"', "expected JSON"),
    "not UTF-8": (b'{"name":"\xff"}', "expected JSON"),
    "a byte order mark": (b'\xef\xbb\xbf{"name":"a"}', "expected JSON"),
    "half a surrogate pair": ('{"name":"\\ud800"}', "expected JSON"),
    "a name twice": ('{"name":"a","name":"b"}', "a name occurs twice"),
    "a name twice, once escaped": ('{"name":"a","\\u006eame":"b"}', "a name occurs twice"),
    "NaN": ('{"name":"a","share":NaN}', "NaN is not JSON"),
    "infinity": ('{"name":"a","share":Infinity}', "Infinity is not JSON"),
    "minus infinity": ('{"name":"a","share":-Infinity}', "-Infinity is not JSON"),
    "a number beyond doubles": ('{"name":"a","share":1e999}', "too large"),
    "too deep": ('{"name":' + "[" * 10**5 + "]" * 10**5 + "}", "too deep"),
    "a list": ("[]", "expected an object, got []"),
    "null": ("null", "expected an object, got null"),
    "no name": ("{}", "name: is missing"),
    "an unknown field": ('{"name":"a","extra":1}', "extra: no such field, got 1"),
    "text for a number": ('{"name":"a","count":"1"}', 'count: expected a valid integer, got "1"'),
    "a fraction for a whole number": ('{"name":"a","count":1.0}', "count: expected a valid integer, got 1.0"),
    "a truth value for a number": ('{"name":"a","count":true}', "count: expected a valid integer, got true"),
    "a number for text": ('{"name":1}', "name: expected a valid string, got 1"),
    "a wrong part": ('{"name":"a","parts":["x",2]}', "parts[1]: expected a valid string, got 2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_unsound_is_refused_in_words(case: str) -> None:
    content, words = REFUSED[case]
    with pytest.raises(InvalidDocument) as caught:
        note(content)
    assert str(caught.value).startswith("notes/1.json in file:///bucket: ")
    assert words in str(caught.value)


def test_every_mistake_is_named() -> None:
    with pytest.raises(InvalidDocument) as caught:
        note('{"count":"x","share":null,"more":[]}')
    for words in ("name: is missing", 'count: expected a valid integer, got "x"', "share: ", "more: no such field"):
        assert words in str(caught.value)


def test_a_long_value_is_shortened_in_an_error() -> None:
    with pytest.raises(InvalidDocument) as caught:
        note('{"name":"a","count":"' + "x" * 10**6 + '"}')
    assert len(str(caught.value)) < 300


def test_a_document_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        note('{"name":"a"}').name = "b"  # type: ignore[misc]


# Out


def test_the_encoding_is_sorted_indented_and_ends_with_a_newline() -> None:
    assert Note(name="é", parts=("b", "a")).to_bytes() == (
        '{\n  "count": 0,\n  "name": "é",\n  "parts": [\n    "b",\n    "a"\n  ],\n  "share": 0.5\n}\n'.encode()
    )


text = st.text(st.characters(exclude_categories=["Cs"]))
notes = st.builds(
    Note,
    name=text,
    count=st.integers(),
    share=st.floats(allow_nan=False, allow_infinity=False),
    parts=st.lists(text).map(tuple),
)


@given(notes)
def test_a_document_survives_its_bytes(document: Note) -> None:
    again = note(document.to_bytes())
    assert again == document
    assert again.to_bytes() == document.to_bytes()


@given(notes)
def test_any_spelling_of_a_document_is_read_to_the_same_bytes(document: Note) -> None:
    spelled = json.dumps(dict(reversed(json.loads(document.to_bytes()).items())), ensure_ascii=True, indent=None)
    assert note(spelled).to_bytes() == document.to_bytes()


def test_sha256_is_the_standards() -> None:
    assert sha256(b"abc") == hashlib.sha256(b"abc").hexdigest()
    assert sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# What travels

DIGEST = "0" * 64
UPDATE = StoredUpdate(
    client="hospital-a",
    key="readmission/updates/hospital-a/000007.safetensors",
    version="1700000000000000",
    size=100,
    sha256=DIGEST,
    num_examples=1200,
    norm=0.1,
    metrics={"accuracy": 0.75},
)
RECORDS: list[Document] = [
    Ticket(federation="f", round=0, model="f/public/models/000000.safetensors", sha256=DIGEST,
           settings_sha256=DIGEST, last=None),
    Receipt(federation="f", round=7, client="hospital-a", outcome="accepted", update=UPDATE),
    Receipt(federation="f", round=7, client="b", outcome="rejected", code=RejectionCode.NORM, detail="L2 norm is 3"),
    Receipt(federation="f", round=7, client="c", outcome="withdrawn"),
    Cohort(federation="f", round=7, members=(UPDATE,), void=False, rejected={"b": RejectionCode.NORM}, withdrawn=("c",),
           absent=(), frozen_by="event-1"),
    Summary(federation="f", round=7, averaged=("hospital-a",), rejected={"b": RejectionCode.NORM}, withdrawn=("c",),
            absent=(), num_examples=1200, norms={"hospital-a": 0.1}, relative_change=None, metrics={},
            client_metrics={}, best=None, stale_rounds=0, void_rounds=0, finished=None),
    Finished(federation="f", round=30, model="f/public/models/000030.safetensors", sha256=DIGEST,
             settings_sha256=DIGEST, reason="rounds"),
]  # fmt: skip


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_every_record_survives_its_bytes(record: Document) -> None:
    again = type(record).from_bytes(record.to_bytes(), "record")
    assert again == record
    assert again.to_bytes() == record.to_bytes()


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_with_a_field_more_is_refused(record: Document) -> None:
    content = json.loads(record.to_bytes())
    with pytest.raises(InvalidDocument, match="extra: no such field"):
        type(record).from_bytes(json.dumps({**content, "extra": 1}).encode(), "record")


def changed(record: Document, **fields: Any) -> bytes:
    return json.dumps({**json.loads(record.to_bytes()), **fields}).encode()


@pytest.mark.parametrize(
    ("record", "fields", "words"),
    [
        (RECORDS[0], {"round": -1}, "round"),
        (RECORDS[0], {"round": 10**6}, "round"),
        (RECORDS[0], {"federation": "../f"}, "federation"),
        (RECORDS[0], {"sha256": "0" * 63}, "sha256"),
        (RECORDS[0], {"sha256": "G" * 64}, "sha256"),
        (RECORDS[0], {"sha256": "0" * 64 + "\n"}, "sha256"),
        (RECORDS[1], {"outcome": "perhaps"}, "outcome"),
        (RECORDS[1], {"client": "Hospital"}, "client"),
        (RECORDS[2], {"code": "because"}, "code"),
        (RECORDS[4], {"members": [{}]}, r"members\[0\]"),
        (RECORDS[4], {"withdrawn": ["C"]}, r"withdrawn\[0\]"),
        (RECORDS[4], {"rejected": {"C": "norm"}}, r"rejected\.C"),
        (RECORDS[6], {"reason": "boredom"}, "reason"),
    ],
)
def test_a_record_with_a_wrong_field_is_refused_by_name(record: Document, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidDocument, match=words):
        type(record).from_bytes(changed(record, **fields), "record")


# JSON


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda values: st.lists(values) | st.dictionaries(text, values),
)


@given(json_values, st.booleans())
def test_all_sound_json_is_read_as_python_reads_it(value: Any, escaped: bool) -> None:
    data = json.dumps(value, ensure_ascii=escaped).encode()
    assert strict_json.loads(data) == json.loads(data)


@given(st.binary())
def test_noise_is_json_or_a_value_error(data: bytes) -> None:
    try:
        value = strict_json.loads(data)
    except ValueError:
        return
    assert value == json.loads(data)


@pytest.mark.parametrize("text", ['{"a":{"b":1,"b":1}}', '[{"b":1,"b":2}]', '{"a":1,"\\u0061":1}'])
def test_a_name_twice_is_refused_at_any_depth(text: str) -> None:
    with pytest.raises(ValueError, match="twice"):
        strict_json.loads(text.encode())


HALVES = ['"\\ud800"', '["\\udfff"]', '{"\\ud800":1}', '[[{"a":"x\\udc00\\ud800"}]]', '"\\\\\\ud800"']


@pytest.mark.parametrize("text", HALVES)
def test_half_a_surrogate_pair_is_refused_anywhere(text: str) -> None:
    with pytest.raises(ValueError, match="surrogates"):
        strict_json.loads(text.encode())


def test_a_whole_surrogate_pair_is_one_character() -> None:
    assert strict_json.loads(b'"\\ud83e\\uddb4 \\\\ud800"') == "🦴 \\ud800"


@pytest.mark.parametrize(
    "last", ["averaged\nhospital-a: all is well", "rejected: ", "rejected: \x1b[2J", "very well", ""]
)
def test_a_ticket_says_how_the_round_before_ended_in_set_words_only(last: str) -> None:
    content = {"federation": "readmission", "round": 1, "model": "m", "sha256": DIGEST, "settings_sha256": DIGEST}
    assert Ticket.from_bytes(json.dumps(content | {"last": "rejected: non-finite"}).encode(), "a ticket").last
    with pytest.raises(InvalidDocument, match="last"):
        Ticket.from_bytes(json.dumps(content | {"last": last}).encode(), "a ticket")
