"""What our emulator processes have in common: say where they listen, serve, and end with their standard input."""

import sys
from socketserver import TCPServer
from threading import Thread


def serve(server: TCPServer) -> None:
    """Print the URL of `server` and serve until standard input ends."""
    print(f"http://127.0.0.1:{server.socket.getsockname()[1]}", flush=True)
    Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
