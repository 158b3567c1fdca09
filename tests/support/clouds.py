"""Who tells and who believes who somebody is, in two clouds: local stand-ins for their token services.

Each looks at what the real one looks at (issuer, audience, subject, expiry, and whether the issuer did sign it) and
refuses in the real one's words. The doors let into a storage emulator whoever shows a token of theirs that is good.
"""

from __future__ import annotations

import http.client
import json
import time
import uuid
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import jwt

from tests.support.internet import Answer, Asked, Site

LIFETIME = 3600  # seconds that every token is good for, as in both clouds
_BY_HAND = ("verify_exp", "verify_iat", "verify_aud")  # by the clock that tests move, and in the real services' order


@dataclass
class Issuer:
    """Signs tokens, and knows its own.

    Attributes:
        issued: every token that it has signed, in order.
        lifetime: seconds that a token is good for.
    """

    name: str
    issued: list[str] = field(default_factory=list)
    lifetime: int = LIFETIME
    key: str = field(default_factory=lambda: uuid.uuid4().hex)

    def sign(self, audience: str, subject: str) -> str:
        now = int(time.time())
        claims = {"iss": self.name, "aud": audience, "sub": subject, "iat": now, "exp": now + self.lifetime}
        self.issued.append(jwt.encode({**claims, "jti": uuid.uuid4().hex}, self.key))
        return self.issued[-1]

    def claims(self, token: str) -> dict[str, Any]:
        """Return what is in a token; raises jwt.InvalidTokenError unless it is this issuer's."""
        return jwt.decode(token, self.key, ["HS256"], options=dict.fromkeys(_BY_HAND, False))


@dataclass
class Metadata:
    """The metadata server of a Google function."""

    google: Issuer
    account: str = "104321098765432109876"
    up: bool = True

    def __call__(self, asked: Asked) -> Answer:
        headers = (("Metadata-Flavor", "Google"), ("Content-Type", "text/html"))
        if asked.headers.get("metadata-flavor") != "Google" or not self.up:
            return Answer(403 if self.up else 404)
        if asked.path == "/computeMetadata/v1/instance/service-accounts/default/identity":
            return Answer(200, self.google.sign(asked.query["audience"], self.account).encode(), headers)
        if asked.path == "/computeMetadata/v1/instance/service-accounts/default/":
            account = {"email": "function@project.iam.gserviceaccount.com", "aliases": ["default"], "scopes": []}
            return _json(200, account, headers[:1])
        if asked.path == "/computeMetadata/v1/instance/service-accounts/default/token":
            token = self.google.sign("https://storage.googleapis.com", self.account)
            return _json(200, {"token_type": "Bearer", "expires_in": LIFETIME, "access_token": token}, headers[:1])
        return Answer(200 if asked.path == "/" else 404, b"", headers)


@dataclass
class EntraId:
    """Microsoft Entra ID with one federated credential; it fails the next `failures` times."""

    trusted: Issuer
    subject: str
    tenant: str = "11111111-1111-1111-1111-111111111111"
    client: str = "22222222-2222-2222-2222-222222222222"
    audience: str = "api://AzureADTokenExchange"
    failures: int = 0
    azure: Issuer = field(default_factory=lambda: Issuer("https://sts.windows.net/11111111/"))

    def __call__(self, asked: Asked) -> Answer:
        if self.failures:
            self.failures -= 1
            return Answer(503, b"<html>Service Unavailable</html>", (("Content-Type", "text/html"),))
        if refusal := self._refusal(asked):
            return _json(401, {"error": "invalid_client", "error_description": refusal})
        token = self.azure.sign("https://storage.azure.com", self.client)
        return _json(200, {"token_type": "Bearer", "expires_in": LIFETIME, "access_token": token})

    def _refusal(self, asked: Asked) -> str:
        form = asked.form
        if asked.path != f"/{self.tenant}/oauth2/v2.0/token":
            return "AADSTS90002: Tenant not found."
        if (form["client_id"], form["grant_type"]) != (self.client, "client_credentials"):
            return f"AADSTS700016: Application with identifier '{form['client_id']}' was not found in the directory."
        if form["scope"] != "https://storage.azure.com/.default":
            return "AADSTS500011: The resource principal was not found."
        try:
            claims = self.trusted.claims(form["client_assertion"])
        except jwt.InvalidTokenError:
            return "AADSTS7000272: The assertion has an invalid signature."
        for claim, expected, code in (
            ("iss", self.trusted.name, "AADSTS700211"),
            ("aud", self.audience, "AADSTS700212"),
            ("sub", self.subject, "AADSTS700213"),
        ):
            if claims[claim] != expected:
                return f"{code}: No matching federated identity record found for '{claims[claim]}'."
        return "" if claims["exp"] > time.time() else "AADSTS700024: The assertion is not within its valid time range."


@dataclass
class AppService:
    """The token service inside an Azure function that has two managed identities."""

    azure: Issuer
    header: str = field(default_factory=lambda: uuid.uuid4().hex)
    principals: tuple[tuple[str | None, str], ...] = ((None, "system-assigned"), ("chosen-client", "user-assigned"))
    up: bool = True

    @property
    def environment(self) -> dict[str, str]:
        return {"IDENTITY_ENDPOINT": "http://169.254.129.5:8081/msi/token", "IDENTITY_HEADER": self.header}

    def __call__(self, asked: Asked) -> Answer:
        query = asked.query
        if not self.up:
            return _json(400, {"statusCode": 400, "message": "No managed identity is assigned."})
        if asked.headers.get("X-IDENTITY-HEADER") != self.header or query["api-version"] != "2019-08-01":
            return _json(403, {"statusCode": 403, "message": "forbidden"})
        token = self.azure.sign(query["resource"], dict(self.principals)[query.get("client_id")])
        expires = str(self.azure.claims(token)["exp"])
        return _json(200, {"access_token": token, "expires_on": expires, "resource": query["resource"]})


@dataclass
class GoogleSts:
    """Google's security token service with one provider in a pool; it fails the next `failures` times."""

    trusted: Issuer
    subject: str = "system-assigned"
    audience: str = "api://fedbucket"
    provider: str = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/azure"
    failures: int = 0
    google: Issuer = field(default_factory=lambda: Issuer("https://sts.googleapis.com"))

    def __call__(self, asked: Asked) -> Answer:
        if self.failures:
            self.failures -= 1
            return _json(503, {"error": {"code": 503, "status": "UNAVAILABLE"}})
        if refusal := self._refusal(asked):
            return _json(400, {"error": refusal[0], "error_description": refusal[1]})
        token = self.google.sign("https://storage.googleapis.com", f"principal:{self.subject}")
        kind = "urn:ietf:params:oauth:token-type:access_token"
        answer = {"access_token": token, "issued_token_type": kind, "token_type": "Bearer", "expires_in": LIFETIME}
        return _json(200, answer)

    def _refusal(self, asked: Asked) -> tuple[str, str] | None:
        form = asked.form
        assert asked.path == "/v1/token"
        assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:token-exchange"
        assert form["subject_token_type"] == "urn:ietf:params:oauth:token-type:jwt"
        assert "https://www.googleapis.com/auth/devstorage.read_write" in form["scope"]
        if form["audience"] != self.provider:
            return "invalid_target", 'The target service indicated by the "audience" parameters is invalid.'
        try:
            claims = self.trusted.claims(form["subject_token"])
        except jwt.InvalidTokenError:
            return "invalid_grant", "Error connecting to the given credential's issuer."
        if claims["iss"] != self.trusted.name:
            return "invalid_grant", f"The issuer in ID Token {claims['iss']} does not match the expected ones."
        if claims["aud"] != self.audience:
            return "invalid_grant", f"The audience in ID Token [{claims['aud']}] does not match the expected audience."
        if claims["exp"] <= time.time():
            return "invalid_grant", f"ID Token is stale to sign-in: {claims['exp']}."
        if claims["sub"] != self.subject:
            return "unauthorized_client", "The given credential is rejected by the attribute condition."
        return None


def boundary(asked: Asked) -> Answer:
    """Answer as Google does whose bucket may lie anywhere: its library asks, in the background, once a process."""
    return _json(200, {"locations": [], "encodedLocations": "0x0"})


def door(upstream: str, base: str, trusted: Issuer, audience: str, query: str = "") -> Site:
    """Let through to `upstream`, below its path `base` and with `query`, who shows a good token of `trusted`'s."""

    def site(asked: Asked) -> Answer:
        if not _is_good(asked.headers.get("Authorization") or asked.headers.get("authorization") or ""):
            return _json(401, {"error": {"code": 401, "message": "Invalid Credentials"}})
        target = base + asked.target
        if query:
            target += ("&" if "?" in target else "?") + query
        return _forward(upstream, target, asked)

    def _is_good(authorization: str) -> bool:
        kind, _, token = authorization.partition(" ")
        try:
            claims = trusted.claims(token)
        except jwt.InvalidTokenError:
            return False
        return (kind, claims["iss"], claims["aud"], claims["exp"] > time.time()) == (
            "Bearer",
            trusted.name,
            audience,
            True,
        )

    return site


def _forward(upstream: str, target: str, asked: Asked) -> Answer:
    headers = {name: value for name, value in asked.headers.items() if name.lower() not in ("authorization", "host")}
    connection = http.client.HTTPConnection(urlsplit(upstream).netloc, timeout=30)
    connection.request(asked.method, target, asked.body, headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    dropped = ("connection", "transfer-encoding", "keep-alive")
    kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in dropped]
    if asked.method != "HEAD":
        kept = [(name, value) for name, value in kept if name.lower() != "content-length"]
    return Answer(answer.status, body, tuple(kept))


def _json(status: int, content: dict[str, Any], headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    return Answer(status, json.dumps(content).encode(), (("Content-Type", "application/json"), *headers))
