"""moto's S3, one request at a time: `python -m fedbucket.emulators.s3 PORT`.

moto looks whether a key is taken and then puts, without a lock between the two; under hostile switching of threads two
racers have won. So the lock is here. A request's body is read before it is taken: a slow sender holds nobody up.
"""

import logging
import sys
from collections.abc import Callable, Iterable
from io import BytesIO
from threading import Lock
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from fedbucket.emulators.serving import serve

_Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


def one_at_a_time(application: _Application) -> _Application:
    """Return the application behind a lock."""
    lock = Lock()

    def locked(environment: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        length = int(environment.get("CONTENT_LENGTH") or 0)
        body = environment["wsgi.input"].read(length)
        if len(body) < length:
            raise ConnectionError("the sender is gone: what it sent is no object")
        environment["wsgi.input"] = BytesIO(body)
        with lock:
            return [b"".join(application(environment, start_response))]

    return locked


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    application = one_at_a_time(DomainDispatcherApplication(create_backend_app))
    serve(make_server("127.0.0.1", int(sys.argv[1]), application, threaded=True))


if __name__ == "__main__":
    main()
