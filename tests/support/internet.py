"""The internet, as a proxy on loopback: what is asked of a real service's name, a site of the test's answers.

Nothing of the code under test is told so: the SDKs find the proxy, and the authority that vouches for its sites, by the
environment variables that every deployment has.
"""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qsl, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Asked:
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query))

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode()))


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


Site = Callable[[Asked], Answer]


@contextmanager
def internet(sites: Mapping[str, Site], folder: Path) -> Iterator[Mapping[str, str]]:
    """Serve `sites` by host name, over HTTP and HTTPS; yield the variables by which a process gets there."""
    authority, context = _certificates(list(sites), folder)
    handler = type("Handler", (_Proxy,), {"sites": sites, "context": context})
    server = _Server(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield {
            **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), url),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1"),
            "REQUESTS_CA_BUNDLE": str(authority),
        }
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is nothing to print."""


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    sites: Mapping[str, Site]
    context: ssl.SSLContext
    host = ""  # the one at the other end of the tunnel, if there is one

    def do_CONNECT(self) -> None:
        self.host = self.path.partition(":")[0]
        self.send_response_only(200 if self.host in self.sites else 502)
        self.end_headers()
        self.wfile.flush()
        self.close_connection = self.host not in self.sites
        if not self.close_connection:
            self.connection = self.context.wrap_socket(self.connection, server_side=True)
            self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb")

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        site = self.sites.get(self.host or url.hostname or "", lambda _: Answer(502))
        answer = site(Asked(self.command, url._replace(scheme="", netloc="").geturl(), dict(self.headers), body))
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if "content-length" not in {name.lower() for name, _ in answer.headers}:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - the library's names

    def finish(self) -> None:
        with suppress(OSError):
            super().finish()
        self.connection.close()

    def log_message(self, *_: object) -> None:
        pass


def _certificates(names: list[str], folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Return an authority's certificate, and a server's context with one of its for all `names`."""
    above, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the tests' authority")])
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the tests' internet")])
    known = [x509.DNSName(each) for each in names]
    signs = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    root = _certificate(name, above, name, above).add_extension(x509.BasicConstraints(True, None), critical=True)
    root = root.add_extension(signs, critical=True)
    leaf = _certificate(own, key, name, above).add_extension(x509.SubjectAlternativeName(known), critical=False)
    authority, chain = folder / "authority.pem", folder / "site.pem"
    authority.write_bytes(root.sign(above, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain.write_bytes(secret + leaf.sign(above, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return authority, context


def _certificate(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, issuer: x509.Name, above: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now, week = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=7)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(above.public_key())
    return (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number(), now - week, now + week)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(identifier, critical=False)
    )
