"""A deterministic simulation of whole federations: clock, randomness, stores, delivery and crashes are the simulator's,
the handlers are the production code; only local training is replaced.

    python -m tests.simulation --schedules 20000 --json OUT     a campaign, and every mutant
    python -m tests.simulation --seed N                         one schedule again, in words; shrunk if it fails
"""
