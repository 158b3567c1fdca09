"""Where a process of ours listens."""

import socket
import subprocess
import time

_PATIENCE = 60.0  # seconds until a process must answer: two busy cores take ten


def free_port() -> int:
    """Return a loopback port on which nothing listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(process: "subprocess.Popen[str] | subprocess.Popen[bytes]", port: int, name: str) -> None:
    """Return once `process` accepts connections on `port`.

    Raises:
        RuntimeError: it ended, or a minute has passed.
    """
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"{name} did not start")
