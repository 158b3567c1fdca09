"""`python until_end_of_input.py PROGRAM ARGUMENT…`: run a module or a file until standard input ends.

Then it is killed, with all that it started (gunicorn's workers). So a host never outlives whoever holds the other end.
This file imports nothing of fedbucket: it also runs in environments that have none.
"""

import os
import runpy
import signal
import sys
from threading import Thread


def _end_with_input() -> None:
    while os.read(0, 1024):  # sys.stdin has a lock that a fork would copy as taken
        pass
    os.killpg(os.getpid(), signal.SIGKILL)  # started as the leader of its group


def main() -> None:
    Thread(target=_end_with_input, daemon=True).start()
    del sys.argv[0]
    run = runpy.run_path if sys.argv[0].endswith(".py") else runpy.run_module
    run(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
