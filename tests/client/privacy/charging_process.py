"""Another process that charges the account of a data set: `python -m tests.client.privacy.charging_process URL EPSILON
ROUND…`.

It says on standard output that it is ready, goes on when its standard input ends, and prints the rounds that are paid.
"""

import json
import sys

from client.privacy.accounting import GaussianRelease
from client.privacy.ledger import Ledger, Spending
from exchange.errors import BudgetExceeded
from exchange.spec import Budget
from exchange.stores import open_store

MULTIPLIER = 5.0


def main(url: str, epsilon: str, *rounds: str) -> None:
    ledger = Ledger(open_store(url), "data")
    budget = Budget(unit="example", adjacency="add-or-remove", epsilon=float(epsilon), delta=1e-5)
    print("ready", flush=True)
    sys.stdin.read()
    paid = []
    for round_ in map(int, rounds):
        try:
            ledger.charge(budget, Spending("orchard", "a" * 64, round_, "test", (GaussianRelease(MULTIPLIER),)))
            paid.append(round_)
        except BudgetExceeded:
            pass
    print(json.dumps(paid))


if __name__ == "__main__":
    main(*sys.argv[1:])
