"""What the clouds say of a new object, from what their emulators say of it."""

import base64
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import count
from typing import Any
from urllib.parse import unquote

from exchange.events import ObjectCreated, from_event_grid, from_gcs

_TOPIC = (
    "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/emulator"
    "/providers/Microsoft.Storage/storageAccounts/"
)
_MESSAGE_LIFE = timedelta(days=7)  # the queue service's own
_LEASE = timedelta(minutes=10)  # for which Azure's host takes a message out of a queue's sight
_sequence = count(1)


@dataclass(frozen=True)
class Notification:
    """What is sent to a function.

    Attributes:
        headers: of an HTTP request.
        body: its content, to be written as JSON.
        created: what they say was created.
    """

    headers: Mapping[str, str]
    body: Mapping[str, Any]
    created: ObjectCreated


def eventarc(resource: Mapping[str, Any]) -> Notification:
    """Return the binary-mode CloudEvent that Eventarc makes of a finalized object."""
    headers = {
        "ce-id": str(uuid.uuid4().int)[:16],
        "ce-source": f"//storage.googleapis.com/projects/_/buckets/{resource['bucket']}",
        "ce-specversion": "1.0",
        "ce-type": "google.cloud.storage.object.v1.finalized",
        "ce-subject": f"objects/{resource['name']}",
        "ce-time": str(resource["timeCreated"]),
        "ce-bucket": str(resource["bucket"]),
        "Content-Type": "application/json",
    }
    (created,) = from_gcs(headers, resource)
    return Notification(headers, resource, created)


def blob_created(logged: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Event Grid event of a line that `azurite.js` prints."""
    _, account, container, name = unquote(logged["path"]).split("/", 3)
    taken = ("api", "clientRequestId", "requestId", "contentType", "contentLength", "blobType")
    return {
        "topic": _TOPIC + account,
        "subject": f"/blobServices/default/containers/{container}/blobs/{name}",
        "eventType": "Microsoft.Storage.BlobCreated",
        "id": str(uuid.uuid4()),
        "data": {
            **{field: logged[field] for field in taken},
            "eTag": logged["eTag"].strip('"'),
            "url": f"https://{account}.blob.core.windows.net" + logged["path"].removeprefix(f"/{account}"),
            "sequencer": f"{next(_sequence):032x}",
            "storageDiagnostics": {"batchId": str(uuid.uuid4())},
        },
        "dataVersion": "",
        "metadataVersion": "1",
        "eventTime": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
    }


def event_grid(event: Mapping[str, Any]) -> Notification:
    """Return the notification that is an Event Grid event."""
    (created,) = from_event_grid(event)
    return Notification({}, event, created)


def queue_message(event: Mapping[str, Any], copy: int, dequeue_count: int) -> dict[str, Any]:
    """Return the message in which a storage queue holds an event, as the queue service hands it out.

    Args:
        copy: tells the messages of one event apart, where it was delivered more than once.
        dequeue_count: how often the message has been handed out, this time included.
    """
    inserted = datetime.fromisoformat(event["eventTime"])
    return {
        "MessageId": str(uuid.uuid5(uuid.UUID(event["id"]), str(copy))),
        "InsertionTime": format_datetime(inserted, usegmt=True),
        "ExpirationTime": format_datetime(inserted + _MESSAGE_LIFE, usegmt=True),
        "PopReceipt": base64.b64encode(uuid.uuid4().bytes[:12]).decode(),
        "TimeNextVisible": format_datetime(datetime.now(UTC) + _LEASE, usegmt=True),
        "DequeueCount": dequeue_count,
        "MessageText": base64.b64encode(json.dumps(event).encode()).decode(),
    }
