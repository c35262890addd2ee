"""Keys for the ports that SeaweedFS's parts have for each other.

Only S3 asks for keys by itself. The other ports, though on loopback, would give everything to
every user of this machine: they get keys and certificates that nobody else has.
"""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from moorage.server.authority import certificate_of, make_authority
from moorage.server.tokens import write_secret

_DAYS = 3650
"""No process lives longer, and each start has another certificate."""
_SIGNED = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
_PARTS = ("master", "volume", "filer", "s3", "client", "admin", "worker", "mq")


def secure(directory: Path) -> None:
    """Write security.toml, where SeaweedFS looks first, and what it names. OSError."""
    authority = make_authority("store", time.time())
    write_secret(directory / "ca.pem", certificate_of(authority))
    write_secret(directory / "store.pem", _issued(authority))
    lines = [f'[{section}]\nkey = "{secrets.token_hex(32)}"' for section in _SIGNED]
    lines.append('[grpc]\nca = "ca.pem"')
    lines += [f'[grpc.{part}]\ncert = "store.pem"\nkey = "store.pem"' for part in _PARTS]
    write_secret(directory / "security.toml", "\n".join(lines) + "\n")


def _issued(authority: str) -> str:
    """For both ends of a connection."""
    above = x509.load_pem_x509_certificate(authority.encode())
    signer = serialization.load_pem_private_key(authority.encode(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    begin = datetime.now(UTC) - timedelta(days=1)
    names = [x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost")]
    signed = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "moorage store")]))
        .issuer_name(above.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(signer, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return (signed.public_bytes(serialization.Encoding.PEM) + private).decode()
