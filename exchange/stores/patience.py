"""How a cloud's store is asked: with timeouts, again after a while, and without letting out what an SDK says."""

import logging
import random  # noqa: TID251 - an edge: see `patiently`
import time
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

from exchange.errors import NotFound, StoreError, StoreUnavailable

CONNECT, READ = 10.0, 60.0  # seconds that a store may take to be reached, and to say something
PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)  # seconds between tries; GCS and S3 ask a throttled client for about as many
TRANSIENT = {0, 408, 429, 500, 502, 503, 504}
_T = TypeVar("_T")

# What these say at DEBUG holds tokens, signatures and signed URLs; at INFO some tell of every request.
for _each in ("azure.core", "azure.storage", "boto3", "botocore", "google", "msal", "urllib3"):
    logging.getLogger(_each).setLevel(logging.WARNING)
# It warns of every way to log in that came to nothing, in a dozen lines, before the error that `failure` says in one.
logging.getLogger("azure.identity").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Fault:
    """What an SDK's error comes down to: an HTTP status (0: no answer; 401: no credentials), and a word for it.

    Attributes:
        login: where no credentials were found, the command that gets a person some.
    """

    status: int
    code: str
    login: str | None = None


def patiently(call: Callable[[], _T]) -> _T:
    """Call, and call again after a while as long as the store is unavailable."""
    for pause in PAUSES:
        with suppress(StoreUnavailable):
            return call()
        time.sleep(pause * random.uniform(0.5, 1.0))
    return call()


def failure(what: str, fault: Fault, taken: type[StoreError], taken_words: Set[int | str]) -> StoreError:
    """Return the error for a fault; `taken` is the one for a precondition that does not hold."""
    if fault.status in TRANSIENT:
        return StoreUnavailable(f"{what}: the store did not answer: {fault.code}")
    if taken_words & {fault.status, fault.code}:
        return taken(what)
    if fault.status == 404:
        return NotFound(f"{what}: there is no such object, or no such bucket")
    if fault.login is not None:
        way = f"run `{fault.login}`, or give this machine an identity with rights"
        return StoreError(f"{what}: found no credentials: {way}")
    denied = "; check the credentials and their rights" if fault.status in (401, 403) else ""
    return StoreError(f"{what}: refused with {fault.status} {fault.code}{denied}")


def date_of(headers: Mapping[str, str]) -> float:
    """Return an answer's `Date`, the store's clock, in seconds since 1970."""
    if "date" not in headers:
        raise StoreError("the store's answer has no Date: is there a proxy that takes it away?")
    return parsedate_to_datetime(headers["date"]).timestamp()
