"""What our emulator processes have in common: serve where they are told to, and end with their standard input."""

import sys
from socketserver import TCPServer
from threading import Thread


def serve(server: TCPServer) -> None:
    """Serve until standard input ends."""
    Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
