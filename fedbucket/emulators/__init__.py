"""Two clouds and an object store on this machine: storage, function hosts, and the events between them. No account.

Each store and each host is a process of its own on a free port, and a context. A store yields the environment variables
by which the SDKs, and so `open_store`, find it:

    with s3() as environment: ...

Nothing is kept: what was stored is gone with the process. But a store that is made with a folder (`gcs_emulator`,
`azure_emulator`) may be killed and started again on the same port, and has what it has acknowledged. All processes end
with whoever started them, however it ends.
"""

from fedbucket.emulators.hosts import Host, azure_function, gcp_function
from fedbucket.emulators.processes import (
    ACCOUNT,
    Emulator,
    azure,
    azure_emulator,
    find_azurite,
    gcs,
    gcs_emulator,
    s3,
    s3_emulator,
)
from fedbucket.emulators.router import Attempt, DeadLetter, Router
from fedbucket.emulators.subscriptions import SCALE, Eventarc, StorageQueue

__all__ = [
    "ACCOUNT",
    "SCALE",
    "Attempt",
    "DeadLetter",
    "Emulator",
    "Eventarc",
    "Host",
    "Router",
    "StorageQueue",
    "azure",
    "azure_emulator",
    "azure_function",
    "find_azurite",
    "gcp_function",
    "gcs",
    "gcs_emulator",
    "s3",
    "s3_emulator",
]
