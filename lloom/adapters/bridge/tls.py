"""TLS 1.3 over bytes, for whatever carries them: a socket now, a relayed stream as well. It never does I/O.

Certificates are not verified by TLS: whose server it is, core/bridge/certificate.py reads from the endorsement.
"""

from __future__ import annotations

import ssl
import tempfile
from functools import cache
from pathlib import Path
from secrets import token_bytes
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from lloom.core.bridge.certificate import Certificate

_READ: Final = 16 * 1024
"""Bytes of the largest record: no read gives more."""


def server_context(certificate: Certificate) -> ssl.SSLContext:
    """The context of a server that shows `certificate`. Blocks for a few milliseconds."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # a resumed session would skip the certificate that a HELLO is bound to
    password = token_bytes(16).hex().encode()
    chain = x509.load_der_x509_certificate(certificate.der).public_bytes(Encoding.PEM)
    chain += certificate.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))
    # ssl reads keys from files only: this one is the user's alone, encrypted, and gone at once.
    with tempfile.TemporaryDirectory(prefix="lloom-tls-") as folder:
        path = Path(folder) / "server.pem"
        path.write_bytes(chain)
        context.load_cert_chain(path, password=password)
    return context


@cache
def client_context() -> ssl.SSLContext:
    """The one context of all diallers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Tls:
    """One end of a TLS connection. Every method may raise ssl.SSLError, after which the connection is over."""

    __slots__ = ("_in", "_out", "_ssl", "over", "secured")

    def __init__(self, context: ssl.SSLContext, *, server_side: bool) -> None:
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._in, self._out, server_side=server_side)
        self.secured = False
        """Whether the handshake is done."""
        self.over = False
        """Whether the peer said that it ends here."""

    def handshake(self) -> None:
        """Goes on with the handshake as far as it goes."""
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            return
        self.secured = True

    def receive(self, data: bytes) -> bytes:
        """Takes what came from the wire; the plain bytes that are whole now."""
        self._in.write(data)
        if not self.secured:
            self.handshake()
        if not self.secured:
            return b""
        parts = []
        try:
            # A read that finds nothing raises, which costs more than all that find something.
            while not self.over and (self._in.pending or self._ssl.pending()):
                parts.append(self._ssl.read(_READ))
                self.over = not parts[-1]
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.over = True
        return b"".join(parts)

    def send(self, data: bytes | memoryview) -> None:
        """Encrypts `data`, of at least one byte."""
        while (sent := self._ssl.write(data)) < len(data):  # a record at a time
            data = memoryview(data)[sent:]

    def end(self) -> None:
        """Says that we end here (close_notify)."""
        try:
            self._ssl.unwrap()
        except ssl.SSLError:  # it waits for the peer's, which we do not need: frames tell where everything ends
            return

    def take(self) -> bytes:
        """What is to be written to the wire."""
        return self._out.read()

    @property
    def certificate(self) -> bytes:
        """What the server showed, in DER."""
        return self._ssl.getpeercert(binary_form=True) or b""
