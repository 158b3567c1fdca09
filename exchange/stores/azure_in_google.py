"""An Azure managed identity that a Google workload identity pool knows: its token is the proof, there is no key.

The token comes from the function's own platform (AZURE_CLIENT_ID says which identity, if it has several), and Google's
security token service gives an access token for it.
"""

import os
from contextlib import suppress
from functools import cache
from threading import Lock
from typing import Any

from azure.core.exceptions import AzureError
from azure.identity import ManagedIdentityCredential
from google.auth.exceptions import RefreshError
from google.auth.identity_pool import Credentials, SubjectTokenSupplier
from google.cloud import storage

from exchange.stores.patience import CONNECT, READ

_JWT = "urn:ietf:params:oauth:token-type:jwt"


class AzureInGoogleCredential(Credentials):
    """Both tokens are kept until shortly before they expire, and asked for once, however many threads want them."""

    def __init__(self, provider: str, resource: str) -> None:
        supplier = _ManagedIdentity(f"{resource}/.default")
        # With its scopes from the beginning: otherwise each client makes a copy, which has a token of its own.
        super().__init__(  # type: ignore[no-untyped-call]
            provider, _JWT, subject_token_supplier=supplier, scopes=storage.Client.SCOPE
        )
        self._lock = Lock()

    def before_request(self, request: Any, method: str, url: str, headers: Any) -> None:
        with self._lock:
            super().before_request(request, method, url, headers)  # type: ignore[no-untyped-call]


class _ManagedIdentity(SubjectTokenSupplier):
    """Its credential keeps the token until shortly before it expires."""

    def __init__(self, scope: str) -> None:
        which = os.environ.get("AZURE_CLIENT_ID")  # noqa: TID251 - an edge: as Azure's default chain reads it
        self._scope = scope
        self._azure = ManagedIdentityCredential(client_id=which, connection_timeout=CONNECT, read_timeout=READ)

    def get_subject_token(self, context: Any, request: Any) -> str:
        with suppress(AzureError, ValueError):
            return str(self._azure.get_token(self._scope).token)
        raise RefreshError("Error code no_azure_token")  # this is no function in Azure, or it has no such identity


@cache
def credential(provider: str, resource: str) -> AzureInGoogleCredential:
    """Return the credential, one for all buckets of this process."""
    return AzureInGoogleCredential(provider, resource)
