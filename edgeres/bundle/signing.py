"""Ed25519 signatures over a manifest, by the `cryptography` library (extra `signing`).

Keys are PEM files, as `openssl genpkey -algorithm ed25519 -out key.pem` and
`openssl pkey -in key.pem -pubout -out key.pub` make them. Inside edgeres a public key is its DER
form, 44 bytes, for which no library is needed.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.disk import read_bounded
from edgeres.errors import BadInput, MissingComponent

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_DER = bytes.fromhex("302a300506032b6570032100")  # RFC 8410: what stands before the 32 bytes
_MOST_BYTES = 64 * 1024


def fingerprint(key: bytes) -> str:
    """SHA-256 of a public key, in groups that can be read out and compared."""
    digits = hashlib.sha256(key).hexdigest()
    return "-".join(digits[i : i + 8] for i in range(0, len(digits), 8))


def encoded(key: bytes) -> str:
    """A public key as text."""
    return base64.b64encode(key).decode()


def decoded(text: str, where: str) -> bytes:
    """A public key from its text.

    Raises:
        BadInput: it is none.
    """
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise BadInput(f"{where}: not a key in base64") from error
    if len(key) != len(_DER) + 32 or not key.startswith(_DER) or encoded(key) != text:
        raise BadInput(f"{where}: not an Ed25519 public key")
    return key


def public_key(path: Path) -> bytes:
    """The key in a public key's PEM file.

    Raises:
        BadInput: it isn't one.
    """
    pem = _pem(path).decode("ascii", "replace")
    if "PRIVATE KEY" in pem:
        raise BadInput(f"{path}: a private key; give its public one: openssl pkey -in KEY -pubout")
    lines = re.fullmatch(
        r"\s*-----BEGIN PUBLIC KEY-----([A-Za-z0-9+/=\s]+)-----END PUBLIC KEY-----\s*", pem
    )
    if not lines:
        raise BadInput(f"{path}: not a public key in PEM; openssl pkey -in KEY -pubout")
    return decoded("".join(lines[1].split()), str(path))


def private_key(path: Path) -> Ed25519PrivateKey:
    """An Ed25519 private key of `cryptography`: `.sign(content)` gives 64 bytes.

    Raises:
        BadInput: not an unencrypted Ed25519 private key.
        MissingComponent: cryptography is not installed.
    """
    require()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    try:
        loaded = serialization.load_pem_private_key(_pem(path), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it is encrypted
        raise BadInput(f"{path}: not a PEM key without a password") from error
    if not isinstance(loaded, ed25519.Ed25519PrivateKey):
        raise BadInput(f"{path}: not an Ed25519 private key; openssl genpkey -algorithm ed25519")
    return loaded


def public_of(private: Ed25519PrivateKey) -> bytes:
    """The public key that belongs to a private one."""
    return _DER + bytes(private.public_key().public_bytes_raw())


def verified(content: bytes, signature: bytes, key: bytes) -> bool:
    """Whether the signature is that of the key's owner over this content.

    Raises:
        MissingComponent: cryptography is not installed.
    """
    require()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ed25519

    try:
        ed25519.Ed25519PublicKey.from_public_bytes(key[len(_DER) :]).verify(signature, content)
    except (InvalidSignature, ValueError):  # ValueError: 32 bytes that are no point of the curve
        return False
    return True


def available() -> bool:
    """Whether signatures can be checked here."""
    return importlib.util.find_spec("cryptography") is not None


def require() -> None:
    """Make sure that signatures can be made and checked.

    Raises:
        MissingComponent: they can't.
    """
    if not available():
        raise MissingComponent("signatures need cryptography: pip install 'edgeres[signing]'")


def _pem(path: Path) -> bytes:
    return read_bounded(path, _MOST_BYTES, "key")
