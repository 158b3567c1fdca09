"""The host of an Azure function app: `python azure_host.py PORT`, in the app's folder.

azure-functions-runtime is Microsoft's: it finds the functions in function_app.py, makes their arguments and calls them.
On Azure a host in C# tells it to, over gRPC; here this file does. It answers to

    POST /admin/functions/NAME      as the real one, calls the function of a timer: 202
    POST /queue/QUEUE               calls the function of a queue with a message, as the queue service hands it out: 200

and to both with 500 where the function raised. The real host fetches messages; what governs that (how many, how often)
is the router's. This file imports nothing of fedbucket: it runs with what the app requires and the engine alone.
"""

import asyncio
import base64
import json
import logging
import os
import re
import sys
import uuid
from collections.abc import Coroutine, Mapping
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any, ClassVar

# Messages. The engine makes and reads attributes; it need not be gRPC's.


class Message:
    """Stands in for any of the protocol's messages, and for its choices of one field among many."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    def WhichOneof(self, _group: str) -> str | None:
        return next((field for field in vars(self) if field != "name"), None)


class StatusResult(Message):
    Failure, Success, Cancelled = range(3)
    exception: ClassVar = None


BindingInfo = type("BindingInfo", (Message,), {"in": 0, "out": 1, "inout": 2})
_OTHERS = (
    "FunctionLoadResponse",
    "FunctionMetadataResponse",
    "InvocationResponse",
    "ParameterBinding",
    "RpcException",
    "RpcFunctionMetadata",
    "RpcRetryOptions",
    "TypedData",
    "WorkerInitResponse",
    "WorkerMetadata",
)
PROTOCOL = SimpleNamespace(StatusResult=StatusResult, BindingInfo=BindingInfo, **dict.fromkeys(_OTHERS, Message))


class App:
    """The function app in the working directory.

    Raises:
        RuntimeError: it could not be indexed; the text has the traceback.
    """

    def __init__(self) -> None:
        import azure_functions_runtime as engine

        self._engine = engine
        self._loop = asyncio.new_event_loop()
        Thread(target=self._loop.run_forever, daemon=True).start()
        engine.start_threadpool_executor()
        init = Message(capabilities={}, function_app_directory=str(Path.cwd()))
        _check(
            self._ask(engine.worker_init_request, {"host": "127.0.0.1", "protos": PROTOCOL}, worker_init_request=init)
        )
        indexed = self._ask(engine.functions_metadata_request, {}).function_metadata_results
        self.functions = {function.name: function for function in indexed or []}
        for function in self.functions.values():
            load = Message(function_id=function.function_id, metadata=None)
            _check(self._ask(engine.function_load_request, {}, function_load_request=load))

    def trigger(self, name: str) -> dict[str, Any]:
        """Return a function's trigger, as function.json would have it."""
        bindings = [json.loads(binding) for binding in self.functions[name].raw_bindings]
        return next(binding for binding in bindings if binding["type"].endswith("Trigger"))

    def of_queue(self, queue: str) -> str | None:
        """Return the name of the function that a queue's messages call."""
        triggers = {name: self.trigger(name) for name in self.functions}
        return next((name for name, found in triggers.items() if _setting(found.get("queueName", "")) == queue), None)

    def call(self, name: str, data: Message, metadata: Mapping[str, Message]) -> bool:
        """Call a function; return whether it returned. What it raised is logged, as the real host does."""
        invocation = str(uuid.uuid4())
        request = Message(
            invocation_id=invocation,
            function_id=self.functions[name].function_id,
            input_data=[Message(name=self.trigger(name)["name"], data=data)],
            trigger_metadata=metadata,
            trace_context=Message(trace_parent="", trace_state="", attributes={}),
            retry_context=Message(retry_count=0, max_retry_count=0, exception=None),
        )
        result = self._ask(self._engine.invocation_request, {}, invocation_request=request).result
        if result.status == StatusResult.Success:
            return True
        failed = f"Executed 'Functions.{name}' (Failed, Id={invocation})"
        logging.getLogger(f"Function.{name}").error("%s\n%s", failed, result.exception.stack_trace)
        return False

    def _ask(self, what: Any, properties: Mapping[str, Any], **request: Message) -> Any:
        asked: Coroutine[Any, Any, Any] = what(Message(request=Message(**request), properties=properties))
        return asyncio.run_coroutine_threadsafe(asked, self._loop).result()


def _check(response: Any) -> None:
    if response.result.status != StatusResult.Success:
        raise RuntimeError(f"the function app was not loaded: {response.result.exception.stack_trace}")


def _check_bundle(app: App, settings: Mapping[str, Any]) -> None:
    if "extensionBundle" not in settings and any(app.trigger(name)["type"] == "queueTrigger" for name in app.functions):
        raise RuntimeError("host.json: expected an extensionBundle; without it the real host knows no queue's trigger")


def _setting(text: str) -> str:
    """A binding's text, with %NAME% for a setting."""
    return re.sub("%(.+?)%", lambda name: os.environ.get(name[1], ""), text)


# Arguments of functions


def queue_data(message: Mapping[str, Any], encoding: str) -> tuple[Message, dict[str, Message]]:
    """Return the content of a queue's message, and what the real host says about it: text, and else JSON."""
    text = message["MessageText"]
    if encoding == "base64":
        text = base64.b64decode(text, validate=True).decode()
    times = {"InsertionTime": "InsertionTime", "ExpirationTime": "ExpirationTime", "NextVisibleTime": "TimeNextVisible"}
    metadata = {
        "Id": Message(string=message["MessageId"]),
        "PopReceipt": Message(string=message["PopReceipt"]),
        "QueueTrigger": Message(string=text),
        "DequeueCount": Message(json=json.dumps(message["DequeueCount"])),
        **{
            name: Message(json=json.dumps(parsedate_to_datetime(message[field]).isoformat()))
            for name, field in times.items()
        },
    }
    return Message(string=text), metadata


TIMER = {"Schedule": {"AdjustForDST": True}, "ScheduleStatus": None, "IsPastDue": False}


# The server


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    app: ClassVar[App]
    encoding: ClassVar[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind, _, name = self.path.rpartition("/")
        if kind == "/queue" and (function := self.app.of_queue(name)):
            done = self.app.call(function, *queue_data(json.loads(body), self.encoding))
            self._say(200 if done else 500)
        elif kind == "/admin/functions" and name in self.app.functions:
            self._say(202 if self.app.call(name, Message(json=json.dumps(TIMER)), {}) else 500)
        else:
            self.send_error(404, f"no function is called by {self.path}")

    def _say(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_request(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class WorkerLog(logging.StreamHandler[Any]):
    """The one handler on the root logger, as in the real worker: it sends each record, formatted, to the host.

    An app may set its formatter. What the engine says of itself goes to Microsoft there, not to the app's owner.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or not record.name.startswith("azure.functions")


def main() -> None:
    logging.basicConfig(level=logging.INFO, handlers=[WorkerLog()], format="%(message)s")
    packages = Path(".python_packages/lib/site-packages").resolve()  # where Azure unpacks an app's requirements
    sys.path[:0] = [str(Path.cwd()), str(packages)]
    settings = json.loads(Path("host.json").read_text()) if Path("host.json").exists() else {}
    Handler.encoding = settings.get("extensions", {}).get("queues", {}).get("messageEncoding", "base64")
    Handler.app = App()
    _check_bundle(Handler.app, settings)
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()


if __name__ == "__main__":
    main()
