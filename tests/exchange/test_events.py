"""Platform payloads: what each cloud says of a new object, and that nothing else is taken for it."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange import keys
from exchange.errors import InvalidEvent
from exchange.events import ObjectCreated, from_event_grid, from_gcs, from_s3

FOLDER = Path(__file__).parents[1] / "events"
PAYLOADS: dict[str, Any] = {path.stem: json.loads(path.read_bytes()) for path in FOLDER.glob("*.json")}
UPDATE = "readmission/updates/hospital-a/000007.safetensors"


class Missing:
    def __str__(self) -> str:
        return "missing"


MISSING = Missing()

Parse = Callable[[Any], list[ObjectCreated]]


def gcs(payload: Any) -> list[ObjectCreated]:
    return from_gcs(payload["headers"], payload["body"])


def structured(payload: Any) -> list[ObjectCreated]:
    attributes = dict(payload["body"])
    return from_gcs(attributes, attributes.pop("data"))


def queued(message: Any) -> list[ObjectCreated]:
    return from_event_grid(json.loads(base64.b64decode(message["MessageText"])))


PARSE: dict[str, Parse] = {
    "gcs": gcs,
    "gcs_structured": structured,
    "event_grid": from_event_grid,
    "event_grid_cloud_events": from_event_grid,
    "queue_message": queued,
    "queue_message_cloud_events": queued,
    "s3": from_s3,
}


def changed(payload: str, path: str, value: Any) -> Any:
    """The payload with something else at a path such as `0.data.eTag`."""
    content = place = copy.deepcopy(PAYLOADS[payload])
    *folders, name = [int(part) if part.isdigit() else part for part in path.split(".")]
    for folder in folders:
        place = place[folder]
    if value is MISSING:
        del place[name]
    else:
        place[name] = value
    return content


FROM_GCS = ObjectCreated("readmission-parent", UPDATE, "8675309012345678", "1763632862345678")
FROM_AZURE = ObjectCreated(
    "readmissionparent/parent", UPDATE, "831e1650-001e-001b-66ab-eeb76e069631", "0x8D4BCC2E4835CD0"
)
EXPECTED = {
    "gcs": FROM_GCS,
    "gcs_structured": FROM_GCS,
    "event_grid": FROM_AZURE,
    "event_grid_cloud_events": FROM_AZURE,
    "queue_message": FROM_AZURE,
    "queue_message_cloud_events": FROM_AZURE,
    "s3": ObjectCreated(
        "readmission-parent",
        UPDATE,
        f"readmission-parent/{UPDATE}@d41d8cd98f00b204e9800998ecf8427e",
        "d41d8cd98f00b204e9800998ecf8427e",
    ),
}


def test_every_payload_is_tried() -> None:
    assert PAYLOADS.keys() == PARSE.keys() == EXPECTED.keys()


@pytest.mark.parametrize("cloud", PARSE)
def test_a_clouds_own_payload_says_which_object_was_created(cloud: str) -> None:
    (event,) = PARSE[cloud](PAYLOADS[cloud])
    assert event == EXPECTED[cloud]
    assert keys.parse(event.key) == keys.Update("readmission", "hospital-a", 7)


@pytest.mark.parametrize("cloud", PARSE)
def test_a_redelivery_is_the_same_event(cloud: str) -> None:
    assert PARSE[cloud](copy.deepcopy(PAYLOADS[cloud])) == PARSE[cloud](PAYLOADS[cloud])


NEEDED = [
    ("gcs", "headers.Ce-Type"),
    ("gcs", "headers.Ce-Id"),
    ("gcs", "body.bucket"),
    ("gcs", "body.name"),
    ("gcs", "body.generation"),
    ("event_grid", "0.eventType"),
    ("event_grid", "0.id"),
    ("event_grid", "0.topic"),
    ("event_grid", "0.subject"),
    ("event_grid", "0.data.eTag"),
    ("event_grid_cloud_events", "0.type"),
    ("event_grid_cloud_events", "0.id"),
    ("event_grid_cloud_events", "0.source"),
    ("event_grid_cloud_events", "0.subject"),
    ("event_grid_cloud_events", "0.data.eTag"),
    ("s3", "Records.0.eventName"),
    ("s3", "Records.0.s3.bucket.name"),
    ("s3", "Records.0.s3.object.key"),
    ("s3", "Records.0.s3.object.eTag"),
]


@pytest.mark.parametrize("value", [MISSING, None, "", 7, True, [], {}, ["a"]], ids=str)
@pytest.mark.parametrize(("cloud", "path"), NEEDED)
def test_a_payload_that_does_not_say_what_was_created_is_malformed(cloud: str, path: str, value: Any) -> None:
    with pytest.raises(InvalidEvent) as caught:
        PARSE[cloud](changed(cloud, path, value))
    assert "expected" in str(caught.value)
    assert path.rpartition(".")[2].lower().removeprefix("ce-") in str(caught.value).lower()


CONTAINERS = [
    ("gcs", "body"),
    ("event_grid", "0"),
    ("event_grid", "0.data"),
    ("event_grid_cloud_events", "0.data"),
    ("s3", "Records"),
    ("s3", "Records.0"),
    ("s3", "Records.0.s3"),
    ("s3", "Records.0.s3.bucket"),
    ("s3", "Records.0.s3.object"),
]


@pytest.mark.parametrize("value", [None, "text", b"bytes", 7], ids=repr)
@pytest.mark.parametrize(("cloud", "path"), CONTAINERS)
def test_a_payload_of_another_build_is_malformed(cloud: str, path: str, value: Any) -> None:
    with pytest.raises(InvalidEvent, match="expected"):
        PARSE[cloud](changed(cloud, path, value))


@pytest.mark.parametrize("payload", [None, "text", b"bytes", 7, True, {}, [None], ["text"], [[]]])
def test_what_is_no_payload_is_malformed(payload: Any) -> None:
    for parse in (from_event_grid, from_s3, lambda body: from_gcs(PAYLOADS["gcs"]["headers"], body)):
        with pytest.raises(InvalidEvent, match="expected"):
            parse(payload)


OTHER_TYPES = [
    ("gcs", "headers.Ce-Type", "google.cloud.storage.object.v1.deleted"),
    ("gcs", "headers.Ce-Type", "google.cloud.storage.object.v1.metadataUpdated"),
    ("gcs", "headers.Ce-Type", "google.cloud.storage.object.v1.archived"),
    ("gcs", "headers.Ce-Type", "google.cloud.storage.object.v1.finalized.v2"),
    ("event_grid", "0.eventType", "Microsoft.Storage.BlobDeleted"),
    ("event_grid", "0.eventType", "Microsoft.Storage.BlobTierChanged"),
    ("event_grid", "0.eventType", "Microsoft.EventGrid.SubscriptionValidationEvent"),
    ("event_grid_cloud_events", "0.type", "Microsoft.Storage.BlobDeleted"),
    ("s3", "Records.0.eventName", "ObjectRemoved:Delete"),
    ("s3", "Records.0.eventName", "ObjectRestore:Completed"),
    ("s3", "Records.0.eventName", "ObjectTagging:Put"),
]


@pytest.mark.parametrize(("cloud", "path", "kind"), OTHER_TYPES)
def test_another_type_of_event_creates_nothing(cloud: str, path: str, kind: str) -> None:
    assert PARSE[cloud](changed(cloud, path, kind)) == []


def test_another_type_of_event_need_not_look_like_ours() -> None:
    assert from_gcs({"ce-type": "google.cloud.audit.log.v1.written"}, None) == []
    assert from_event_grid([{"eventType": "Microsoft.Resources.ResourceWriteSuccess"}]) == []
    assert from_s3({"Records": [{"eventName": "Replication:OperationFailedReplication"}]}) == []


@pytest.mark.parametrize("kind", ["ObjectCreated:Put", "ObjectCreated:Copy", "ObjectCreated:CompleteMultipartUpload"])
def test_an_object_is_created_in_s3_in_more_than_one_way(kind: str) -> None:
    for name in (kind, f"s3:{kind}"):
        assert from_s3(changed("s3", "Records.0.eventName", name)) == [EXPECTED["s3"]]


def test_the_test_message_of_s3_creates_nothing() -> None:
    message = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "readmission-parent", "RequestId": "1"}
    assert from_s3(message) == []


OPEN = [name for name in PARSE if not name.startswith("queue_message")]  # a queue's message is an event, in base64


@pytest.mark.parametrize("cloud", OPEN)
@pytest.mark.parametrize("key", ["photos/my cat.jpg", "a+b/ü%2F&.txt", "x", "ключ", "a\nb", "//"])
def test_the_key_of_an_object_that_is_none_of_ours_is_told_as_it_is(cloud: str, key: str) -> None:
    path, written = {
        "gcs": ("body.name", key),
        "gcs_structured": ("body.data.name", key),
        "event_grid": ("0.subject", f"/blobServices/default/containers/parent/blobs/{key}"),
        "event_grid_cloud_events": ("0.subject", f"/blobServices/default/containers/parent/blobs/{key}"),
        "s3": ("Records.0.s3.object.key", quote_plus(key)),
    }[cloud]
    (event,) = PARSE[cloud](changed(cloud, path, written))
    assert event.key == key
    assert keys.parse(event.key) is None


@pytest.mark.parametrize("cloud", OPEN)
def test_what_a_platform_adds_or_leaves_out_beside_is_no_matter(cloud: str) -> None:
    for path in {
        "gcs_structured": ["body.time", "body.subject", "body.source", "body.data.size"],
        "gcs": ["headers.Ce-Time", "headers.Ce-Subject", "headers.Ce-Source", "body.size", "body.metageneration"],
        "event_grid": ["0.eventTime", "0.dataVersion", "0.data.api", "0.data.url", "0.data.sequencer"],
        "event_grid_cloud_events": ["0.time", "0.data.url", "0.data.blobType", "0.data.contentLength"],
        "s3": ["Records.0.eventVersion", "Records.0.responseElements", "Records.0.s3.object.sequencer"],
    }[cloud]:
        assert PARSE[cloud](changed(cloud, path, MISSING)) == [EXPECTED[cloud]]
        assert PARSE[cloud](changed(cloud, path, {"new": ["kind"]})) == [EXPECTED[cloud]]


# GCS


@pytest.mark.parametrize("written", [str.lower, str.upper, lambda name: name.lower().removeprefix("ce-")])
def test_headers_come_in_any_case_and_attributes_without_their_prefix(written: Callable[[str], str]) -> None:
    headers = {written(name): value for name, value in PAYLOADS["gcs"]["headers"].items()}
    assert from_gcs(headers, PAYLOADS["gcs"]["body"]) == [EXPECTED["gcs"]]


def test_a_header_of_the_request_is_not_taken_for_the_events() -> None:
    body = PAYLOADS["gcs"]["body"]
    for others in ({"Id": "another", "Type": "another"}, {"id": "another", "type": "another"}):
        assert from_gcs({**others, **PAYLOADS["gcs"]["headers"]}, body) == [EXPECTED["gcs"]]
        assert from_gcs({**PAYLOADS["gcs"]["headers"], **others}, body) == [EXPECTED["gcs"]]


def test_an_object_in_the_source_is_no_matter() -> None:
    source = f"//storage.googleapis.com/projects/_/buckets/readmission-parent/objects/{UPDATE}"
    assert gcs(changed("gcs", "headers.Ce-Source", source)) == [EXPECTED["gcs"]]


# Azure


@pytest.mark.parametrize("cloud", ["event_grid", "event_grid_cloud_events"])
@pytest.mark.parametrize("etag", ["0x8D4BCC2E4835CD0", '"0x8D4BCC2E4835CD0"'])
def test_an_etag_is_told_without_quotes(cloud: str, etag: str) -> None:
    assert from_event_grid(changed(cloud, "0.data.eTag", etag)) == [EXPECTED[cloud]]


@pytest.mark.parametrize("cloud", ["event_grid", "event_grid_cloud_events"])
def test_an_etag_of_nothing_but_quotes_is_malformed(cloud: str) -> None:
    with pytest.raises(InvalidEvent, match="eTag"):
        from_event_grid(changed(cloud, "0.data.eTag", '""'))


@pytest.mark.parametrize("cloud", ["event_grid", "event_grid_cloud_events"])
def test_a_queue_message_holds_one_event_without_an_array(cloud: str) -> None:
    assert from_event_grid(PAYLOADS[cloud][0]) == [EXPECTED[cloud]]


def test_a_delivery_may_hold_several_events_and_schemas() -> None:
    deleted = changed("event_grid", "0.eventType", "Microsoft.Storage.BlobDeleted")
    events = from_event_grid(PAYLOADS["event_grid"] + deleted + PAYLOADS["event_grid_cloud_events"])
    assert events == [EXPECTED["event_grid"], EXPECTED["event_grid_cloud_events"]]
    assert from_event_grid([]) == []


@pytest.mark.parametrize(
    "subject",
    [
        UPDATE,
        f"/blobServices/default/containers/parent/{UPDATE}",
        "/blobServices/default/containers/parent/blobs/",
        f"/blobServices/default/containers//blobs/{UPDATE}",
        f"/fileServices/default/containers/parent/blobs/{UPDATE}",
        f"x/blobServices/default/containers/parent/blobs/{UPDATE}",
    ],
)
def test_a_subject_that_is_no_blob_is_malformed(subject: str) -> None:
    with pytest.raises(InvalidEvent, match="subject"):
        from_event_grid(changed("event_grid", "0.subject", subject))


@pytest.mark.parametrize(
    "topic",
    [
        "readmissionparent",
        "/storageAccounts/",
        "/storageAccounts/ab",
        "/storageAccounts/abc/x",
        "/storageAccounts/abc_d",
    ],
)
def test_a_topic_that_is_no_storage_account_is_malformed(topic: str) -> None:
    with pytest.raises(InvalidEvent, match="topic"):
        from_event_grid(changed("event_grid", "0.topic", topic))


def test_a_blob_may_lie_below_a_folder_called_blobs() -> None:
    subject = "/blobServices/default/containers/parent/blobs/a/blobs/b"
    assert from_event_grid(changed("event_grid", "0.subject", subject))[0].key == "a/blobs/b"


# S3


def test_a_notification_of_s3_may_hold_several_records() -> None:
    removed = changed("s3", "Records.0.eventName", "ObjectRemoved:Delete")["Records"]
    records = PAYLOADS["s3"]["Records"] + removed + PAYLOADS["s3"]["Records"]
    assert from_s3({"Records": records}) == [EXPECTED["s3"]] * 2
    assert from_s3({"Records": []}) == []


def test_a_key_that_is_not_utf8_is_malformed() -> None:
    with pytest.raises(InvalidEvent, match="UTF-8"):
        from_s3(changed("s3", "Records.0.s3.object.key", "a%FF"))


# Anything


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted({*OPEN} - {"gcs_structured"})), st.data())  # whose envelope others open
def test_a_payload_changed_anywhere_is_an_event_none_or_malformed(cloud: str, data: st.DataObject) -> None:
    content = copy.deepcopy(PAYLOADS[cloud])
    place: Any = content
    while True:
        name = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[name], (dict, list)) or not place[name] or data.draw(st.booleans()):
            break
        place = place[name]
    if place is not content or cloud != "gcs" or name != "headers":
        place[name] = data.draw(json_values)
    try:
        events = PARSE[cloud](content)
    except InvalidEvent:
        return
    assert all(isinstance(part, str) and part for event in events for part in (event.bucket, event.key, event.id))
    assert all(event.version for event in events)
