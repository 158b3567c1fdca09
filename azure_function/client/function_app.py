"""A client in Azure: an object in the client's bucket calls on_object, by Event Grid and a queue; a timer, on_timer."""

import os
from functools import cache
from pathlib import Path
from tempfile import gettempdir

import azure.functions as func

from exchange import functions
from exchange.events import from_event_grid, parse_json

functions.log_as_json()
app = func.FunctionApp()


@cache
def side() -> functions.Side:
    """Open the stores, once an instance; here and not above, for most objects ask for nothing."""
    from client.deployment import side

    return side(os.environ, Path(__file__).parent, Path(gettempdir()) / "data")


@app.queue_trigger(arg_name="message", queue_name="%FEDBUCKET_QUEUE%", connection="FEDBUCKET_QUEUE_CONNECTION")
def on_object(message: func.QueueMessage) -> None:
    """Do what the new object asks for."""
    functions.on_object("az", lambda: from_event_grid(parse_json(message.get_body())), side)


@app.timer_trigger(arg_name="timer", schedule="%FEDBUCKET_TIMER%")
@app.retry(strategy="fixed_delay", max_retry_count="3", delay_interval="00:00:30")
def on_timer(timer: func.TimerRequest) -> None:
    """Make whatever is missing."""
    functions.on_timer(side)
