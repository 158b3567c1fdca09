"""Two clouds and an object store on this machine: storage, function hosts, and the events between them. No account.

Each store and each host is a process of its own on a free port, and a context. A store yields the environment variables
by which the SDKs, and so `open_store`, find it:

    with s3() as environment: ...

Nothing is kept: what was stored is gone with the process. The processes end with whoever started them, however it ends.
"""

from fedbucket.emulators.hosts import Host, azure_function, gcp_function
from fedbucket.emulators.processes import ACCOUNT, azure, find_azurite, gcs, s3
from fedbucket.emulators.router import Attempt, DeadLetter, Router
from fedbucket.emulators.subscriptions import SCALE, Eventarc, StorageQueue

__all__ = [
    "ACCOUNT",
    "SCALE",
    "Attempt",
    "DeadLetter",
    "Eventarc",
    "Host",
    "Router",
    "StorageQueue",
    "azure",
    "azure_function",
    "find_azurite",
    "gcp_function",
    "gcs",
    "s3",
]
