"""Where a process of ours listens."""

import random
import socket
import subprocess
import time

_PATIENCE = 60.0  # seconds until a process must answer: two busy cores take ten
# Below the ports that systems give to outgoing connections: one of those would hold it while its process is down.
_LOWEST, _HIGHEST = 20_000, 32_000


def free_port() -> int:
    """Return a loopback port on which nothing listens."""
    while True:
        port = random.SystemRandom().randrange(_LOWEST, _HIGHEST)
        with socket.socket() as found:
            try:
                found.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def wait_for(process: "subprocess.Popen[bytes]", port: int, name: str) -> None:
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
