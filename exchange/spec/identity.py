"""Who a function is in the other cloud: public identifiers; there is no key to keep.

A function's own cloud says who it is, the other cloud has been told to believe it (`infra/modules/trust-…`).
"""

from typing import Annotated, Literal

from pydantic import Field

from exchange.documents import Document
from exchange.spec.fields import AzureUrl, GoogleUrl, Text


class GoogleInAzure(Document):
    """A Google service account that an Azure tenant takes for one of its own identities."""

    trust: Literal["gcp-to-azure"]
    bucket: AzureUrl
    """The bucket, or what its URL begins with: "az://account" is for all containers of the account."""
    tenant: Text
    """The Azure tenant's id."""
    client: Text
    """The client id of the identity there that carries the federated credential."""


class AzureInGoogle(Document):
    """An Azure managed identity that a Google workload identity pool knows."""

    trust: Literal["azure-to-gcp"]
    bucket: GoogleUrl
    """The bucket, as above."""
    provider: Text
    """//iam.googleapis.com/projects/N/locations/global/workloadIdentityPools/P/providers/Q"""
    resource: Text
    """The application, api://…, for which the managed identity asks for its token: the provider's allowed audience."""


Identity = Annotated[GoogleInAzure | AzureInGoogle, Field(discriminator="trust")]
