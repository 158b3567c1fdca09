"""A Google service account that Azure takes for one of its own identities: its ID token is the proof, there is no key.

The ID token comes from the function's metadata server, and Microsoft Entra ID gives an access token for it.
"""

import re
from contextlib import suppress
from functools import cache
from threading import Lock
from typing import Any, cast

from azure.core.credentials import AccessTokenInfo, TokenRequestOptions
from azure.core.exceptions import AzureError, ClientAuthenticationError, ServiceResponseError
from azure.identity import ClientAssertionCredential
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request
from google.oauth2.id_token import fetch_id_token_credentials

from exchange.stores.patience import CONNECT, READ

_AUDIENCE = "api://AzureADTokenExchange"  # what a federated credential in Azure expects
_NO_ID_TOKEN = "no_google_id_token"  # this is no function in Google's cloud, or it has no service account


class GoogleInAzureCredential(ClientAssertionCredential):
    """Both tokens are kept until shortly before they expire, and asked for once, however many threads want them."""

    def __init__(self, tenant: str, client: str) -> None:
        # Without retries: a store's patience is the only one.
        super().__init__(tenant, client, self._assertion, retry_total=0, connection_timeout=CONNECT, read_timeout=READ)
        self._lock, self._http = Lock(), Request()
        self._google: Any = None

    def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AccessTokenInfo:
        try:
            with self._lock:
                return super().get_token_info(*scopes, options=options)
        except ClientAuthenticationError as error:
            refusal = _refusal(error)
        raise refusal  # outside the handler: of what came, only the code is repeated

    def _assertion(self) -> str:
        with suppress(GoogleAuthError, ValueError):
            return self._id_token()
        raise ClientAuthenticationError(_NO_ID_TOKEN)

    def _id_token(self) -> str:
        if self._google is None:
            self._google = fetch_id_token_credentials(_AUDIENCE, self._http)
        if not self._google.valid:
            self._google.refresh(self._http)
        return str(self._google.token)


def _refusal(error: ClientAuthenticationError) -> AzureError:
    if not (found := re.search(rf"AADSTS\d+|{_NO_ID_TOKEN}", str(error))):
        return ServiceResponseError("an answer that is not Entra ID's own: it is out of order")
    refusal: Any = ClientAuthenticationError("no access token")
    refusal.error_code = found[0]
    return cast(ClientAuthenticationError, refusal)


@cache
def credential(tenant: str, client: str) -> GoogleInAzureCredential:
    """Return the credential, one for all buckets of this process."""
    return GoogleInAzureCredential(tenant, client)
