"""Settings of the whole suite."""

import os
import secrets
from collections.abc import Generator

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when it is loaded: on small tensors its threads only wait

# The same examples on every run: a red build means a change in the code. `--hypothesis-profile=explore` looks further.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=2000, deadline=None)
settings.load_profile("repeatable")

# Other schedules on every run, the same in all of its processes.
SEED = os.environ.setdefault("FEDBUCKET_SIMULATION_SEED", str(secrets.randbelow(2**40)))


def pytest_report_header() -> str:
    """Print the seed of the simulation."""
    return f"simulation: FEDBUCKET_SIMULATION_SEED={SEED}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under FEDBUCKET_NO_SKIPS a test that cannot be run on this machine fails."""
    report = yield
    if report.skipped and "FEDBUCKET_NO_SKIPS" in os.environ and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", f"skipped, under FEDBUCKET_NO_SKIPS: {report.longrepr}"
    return report
