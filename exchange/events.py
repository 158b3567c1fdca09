"""What wakes a function: an object was created. Each cloud says so in its own words; here they become one.

The payloads come as plain mappings, parsed from JSON by whoever received them. Where an object is, and which version of
it, is held to the letter: a payload that does not say it raises. All else is left alone, for the platforms add to it.

Notifications come at least once, late and out of order, and a bucket may hold objects that are none of ours: a key here
is any text. `exchange.keys.parse` tells what it names.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from exchange.errors import InvalidEvent

_GCS_CREATED = "google.cloud.storage.object.v1.finalized"
_AZURE_CREATED = "Microsoft.Storage.BlobCreated"
_S3_CREATED = "ObjectCreated:"
_S3_TEST = "s3:TestEvent"  # what S3 sends, once, when a notification is set up

_AZURE_ACCOUNT = re.compile(r".*/storageAccounts/([a-z0-9]{3,24})", re.IGNORECASE | re.ASCII)
_AZURE_BLOB = re.compile(r"/blobServices/default/containers/([^/]+)/blobs/(.+)", re.DOTALL)


@dataclass(frozen=True)
class ObjectCreated:
    """One notification; may come twice, late, or out of order.

    Attributes:
        bucket: what stands after `gs://`, `az://` or `s3://` in the URL that opens it: in Azure, account/container.
        key: the object's key, as it is in the bucket (no escapes).
        id: the platform's id of the event; a redelivery bears the same.
        version: the object's version, where the platform tells it.
    """

    bucket: str
    key: str
    id: str
    version: str | None = None


def parse_json(body: bytes | str) -> Any:
    """Return the JSON in a message; raises InvalidEvent."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidEvent(f"a message: expected JSON, got {_shown(body)}") from error


def from_gcs(headers: Mapping[str, Any], body: Any) -> list[ObjectCreated]:
    """Return the object that an Eventarc request says was created, at which generation; none for another type of event.

    Args:
        headers: the request's, in any case; or a CloudEvent's attributes, which are the same without `ce-`.
        body: the object resource, parsed.

    Raises:
        InvalidEvent: no type; or the type is right, and id, bucket, name or generation is missing.
    """
    attributes = {name.lower(): value for name, value in headers.items()}
    attributes |= {name[3:]: value for name, value in attributes.items() if name.startswith("ce-")}
    if _text(attributes, "type", "a GCS event") != _GCS_CREATED:
        return []
    created = ObjectCreated(
        bucket=_text(body, "bucket", "a GCS object"),
        key=_text(body, "name", "a GCS object"),
        id=_text(attributes, "id", "a GCS event"),
        version=_text(body, "generation", "a GCS object"),
    )
    return [created]


def from_event_grid(events: Any) -> list[ObjectCreated]:
    """Return what an Event Grid delivery says was created, at which ETag; other types of event are left out.

    Args:
        events: an array, as a webhook gets it, or one event, as a storage queue's message holds it; in the Event Grid
            schema or as CloudEvents 1.0.

    Raises:
        InvalidEvent: neither; or the type is right, and id, account, container, name or eTag is missing.
    """
    return list(_from_event_grid([events] if isinstance(events, Mapping) else events))


def from_s3(event: Any) -> list[ObjectCreated]:
    """Return what an S3 notification says was created, at which ETag; other types of event are left out.

    S3 numbers no events: the id is bucket, key and ETag, which a redelivery repeats.

    Raises:
        InvalidEvent: no records; or the type is right, and bucket, key or eTag is missing.
    """
    return list(_from_s3(event))


def _from_event_grid(events: Any) -> Iterator[ObjectCreated]:
    for event in _items(events, "an Event Grid delivery"):
        cloud_event = isinstance(event, Mapping) and "specversion" in event
        kind, source = ("type", "source") if cloud_event else ("eventType", "topic")
        if _text(event, kind, "an Event Grid event") != _AZURE_CREATED:
            continue
        account = _match(_AZURE_ACCOUNT, event, source)
        container, key = _match(_AZURE_BLOB, event, "subject").groups()
        yield ObjectCreated(
            bucket=f"{account[1].lower()}/{container}",
            key=key,
            id=_text(event, "id", "an Event Grid event"),
            version=_etag(event.get("data"), "data of an Event Grid event"),
        )


def _from_s3(event: Any) -> Iterator[ObjectCreated]:
    if isinstance(event, Mapping) and event.get("Event") == _S3_TEST:
        return
    records = event.get("Records") if isinstance(event, Mapping) else None
    for record in _items(records, "Records of an S3 event"):
        if not _text(record, "eventName", "an S3 record").removeprefix("s3:").startswith(_S3_CREATED):
            continue
        s3 = _mapping(record.get("s3"), "s3 of an S3 record")
        bucket = _text(s3.get("bucket"), "name", "an S3 bucket")
        key = _unquoted(_text(s3.get("object"), "key", "an S3 object"))
        version = _etag(s3.get("object"), "an S3 object")
        yield ObjectCreated(bucket, key, f"{bucket}/{key}@{version}", version)


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidEvent(f"{what}: expected an object, got {_shown(value)}")
    return value


def _items(value: Any, what: str) -> Sequence[Any]:
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise InvalidEvent(f"{what}: expected a list, got {_shown(value)}")
    return value


def _text(container: Any, field: str, what: str) -> str:
    value = _mapping(container, what).get(field)
    if not isinstance(value, str) or not value:
        raise InvalidEvent(f"{what}: expected text in {field!r}, got {_shown(value)}")
    return value


def _match(pattern: re.Pattern[str], event: Mapping[str, Any], field: str) -> re.Match[str]:
    if (match := pattern.fullmatch(text := _text(event, field, "an Event Grid event"))) is None:
        raise InvalidEvent(f"an Event Grid event: expected {field!r} like {pattern.pattern}, got {_shown(text)}")
    return match


def _etag(container: Any, what: str) -> str:
    if not (etag := _text(container, "eTag", what).strip('"')):
        raise InvalidEvent(f"{what}: the eTag is empty")
    return etag


def _unquoted(key: str) -> str:
    try:
        return unquote_plus(key, errors="strict")
    except UnicodeDecodeError as error:
        raise InvalidEvent(f"an S3 object: the key {_shown(key)} is not UTF-8") from error


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
