"""One invocation of a client's function, in a process of its own: `python -m tests.client.invocation client.toml`."""

import sys
import tempfile
from pathlib import Path

import torch

from client import rounds
from client.deployment import deployed
from exchange import keys
from exchange.errors import TrainingPaused
from exchange.events import ObjectCreated
from exchange.spec import read_client

PAUSED = 75  # its exit status if it is to be invoked again

if __name__ == "__main__":
    # A warm start: on a busy machine five seconds do not suffice to load torch, and what a first step loads besides.
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1).step()
    toml = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as data:
        own = deployed(read_client(toml), toml.parent, Path(data), str(toml))
        try:
            rounds.handle(own, ObjectCreated("inbox", str(keys.Ticket("orchard", 0)), "an event"))
        except TrainingPaused as paused:
            print(paused)
            raise SystemExit(PAUSED) from None
