"""A client in Google Cloud: an object in the client's bucket calls on_object, by Eventarc; a scheduler, on_timer."""

import os
from functools import cache
from pathlib import Path
from tempfile import gettempdir

import functions_framework
from cloudevents.http import CloudEvent
from flask import Request

from exchange import functions
from exchange.events import from_gcs

functions.log_as_json()


@cache
def side() -> functions.Side:
    """Open the stores, once an instance; here and not above, for most objects ask for nothing."""
    from client.deployment import side

    return side(os.environ, Path(__file__).parent, Path(gettempdir()) / "data")


@functions_framework.cloud_event
def on_object(event: CloudEvent) -> None:
    """Do what the new object asks for."""
    functions.on_object("gs", lambda: from_gcs(event.get_attributes(), event.get_data()), side)


@functions_framework.http
def on_timer(_: Request) -> str:
    """Make whatever is missing."""
    functions.on_timer(side)
    return "swept"
