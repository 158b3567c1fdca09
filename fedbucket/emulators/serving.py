"""What our emulator processes have in common: say where they listen, serve, and end with their standard input."""

import sys
from socketserver import BaseServer
from threading import Thread


def serve(server: BaseServer) -> None:
    """Print the URL of `server` and serve until standard input ends."""
    host, port = server.server_address[:2]  # type: ignore[misc]
    print(f"http://{host}:{port}", flush=True)
    Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
