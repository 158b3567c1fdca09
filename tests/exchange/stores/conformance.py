"""Holds the contract against a real bucket: `make conformance STORE=gs://bucket/prefix`.

It works under a prefix of its own below the one given, which it removes afterwards, with the credentials and the
endpoint that the store's SDK finds by itself. It needs the right to create, read, list, overwrite and delete there.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest

from exchange.errors import StoreError
from exchange.stores import open_store

CONTRACT = Path(__file__).with_name("test_contract.py")


class Findings:
    """Gathers what pytest found: sentence → whether it holds."""

    def __init__(self) -> None:
        self.kept: dict[str, bool] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if "NOTSET" in report.nodeid:  # for stores whose clock a test can move
            return
        sentence = report.nodeid.rpartition("::")[2].removeprefix("test_").replace("_", " ")
        sentence = sentence.replace("[real]", "").replace("[real-", " [")
        self.kept[sentence] = self.kept.get(sentence, True) and report.passed


def main(url: str, options: Sequence[str] = ()) -> int:
    """Test the bucket; return 0 if it keeps every promise and nothing of ours is left in it."""
    ours = os.environ["FEDBUCKET_CONFORMANCE"] = f"{url.rstrip('/')}/conformance-{uuid.uuid4().hex[:12]}"
    findings = Findings()
    quiet = ("-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=short", "-W", "default")
    pytest.main([str(CONTRACT), *quiet, *options], plugins=[findings])
    for sentence, kept in findings.kept.items():
        print("kept  " if kept else "BROKEN", sentence)
    print(f"{sum(findings.kept.values())} of {len(findings.kept)} promises kept by {url}")
    clean = remove(ours)
    return 0 if clean and findings.kept and all(findings.kept.values()) else 1


def remove(url: str) -> bool:
    """Remove everything below `url`; say whether it is gone."""
    from tests.exchange.stores.behind import behind  # not before main() has set the variable that the tests read

    try:
        behind(url).clear()
        left = [info.key for info in open_store(url).list("")]
    except StoreError as error:
        print(f"nobody knows what is left: {error}")
        return False
    print(f"left behind: {len(left)} objects under {url}" if left else f"nothing is left of it under {url}")
    return not left


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
