"""The types of settings that mean something beyond their Python type."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from exchange.keys import FEDERATION, IDENTIFIER

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _duration(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if match := re.fullmatch(r"(\d+)\s*([smhd])", value):
        return int(match[1]) * _SECONDS[match[2]]
    raise ValueError("expected a duration such as '90s', '30m', '2h' or '1d'")


def _matching(pattern: str, expectation: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError(f"expected {expectation}")
        return value

    return AfterValidator(check)


Identifier = Annotated[str, _matching(IDENTIFIER, "1 to 63 lower-case letters, digits and inner hyphens")]
FederationName = Annotated[
    str, _matching(FEDERATION, "1 to 63 lower-case letters, digits and inner hyphens, and not 'ledger'")
]
Sha256 = Annotated[str, _matching("[0-9a-f]{64}", "a SHA-256: 64 hexadecimal digits")]
StoreUrl = Annotated[
    str, _matching("(file|gs|az|s3)://.+", "a bucket: file://…, gs://…, az://account/container or s3://…")
]
WatchedUrl = Annotated[
    str,
    _matching(
        "file://.+|(gs|s3)://[^/]+/?|az://[^/]+/[^/]+/?",
        "a whole bucket (objects under a prefix wake nothing): file://…, gs://bucket, az://account/container or s3://bucket",
    ),
]
AzureUrl = Annotated[str, _matching("az://.+", "a bucket in Azure: az://account/container, or az://account for all")]
GoogleUrl = Annotated[str, _matching("gs://.+", "a bucket in Google's cloud: gs://…")]
Text = Annotated[str, Field(min_length=1)]
Seconds = Annotated[int, BeforeValidator(_duration), Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
