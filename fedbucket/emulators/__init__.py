"""The storage of three clouds, emulated: processes on this machine, each on a free port, without an account.

Each is a context that yields the environment variables by which the SDKs, and so `open_store`, find it:

    with s3() as environment: ...

Nothing is kept: what was stored is gone with the process. The processes end with whoever started them, however it ends.
"""

from fedbucket.emulators.processes import ACCOUNT, azure, find_azurite, gcs, s3

__all__ = ["ACCOUNT", "azure", "find_azurite", "gcs", "s3"]
