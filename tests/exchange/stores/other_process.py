"""What another process does to a bucket: `python -m tests.exchange.stores.other_process race|die URL …`.

It says on standard output that it is ready, and goes on when its standard input ends.
"""

import json
import sys

from exchange.errors import AlreadyExists
from exchange.stores import Store, open_store

STREAMED = 2**20  # bytes of every second object of a race


def content(racer: str, index: int) -> bytes:
    """What a racer writes under the index-th key: small objects are created, large ones streamed."""
    unit = f"{racer:>4}".encode()
    return unit * (STREAMED // len(unit)) if index % 2 else unit * 250


def race(store: Store, prefix: str, racer: str, count: int) -> list[int]:
    """Try to create every key; return the indices of those won."""
    won = []
    for index in range(count):
        key, data = f"{prefix}/{index:03d}", content(racer, index)
        try:
            if index % 2:
                with store.writer(key, len(data)) as out:
                    out.write(data[: STREAMED // 2])
                    out.write(data[STREAMED // 2 :])
            else:
                store.create(key, data)
            won.append(index)
        except AlreadyExists:
            pass
    return won


def wait() -> None:
    print("ready", flush=True)
    sys.stdin.read()


def main(action: str, url: str, *rest: str) -> None:
    store = open_store(url)
    if action == "race":
        prefix, racer, count = rest
        wait()
        print(json.dumps(race(store, prefix, racer, int(count))))
    elif action == "die":
        key, half = rest[0], int(rest[1])
        with store.writer(key, 2 * half) as out:
            for _ in range(half // STREAMED):
                out.write(bytes(STREAMED))
            wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
