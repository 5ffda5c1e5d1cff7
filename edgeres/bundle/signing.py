"""Ed25519 signatures over a manifest, by the `cryptography` library (extra `signing`).

Keys are PEM files, as `openssl genpkey -algorithm ed25519 -out key.pem` and
`openssl pkey -in key.pem -pubout -out key.pub` make them.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from edgeres.errors import BadInput, MissingComponent


def sign(content: bytes, key: Path) -> bytes:
    """The signature, 64 bytes.

    Raises:
        BadInput: not an unencrypted Ed25519 private key.
        MissingComponent: cryptography is not installed.
    """
    serialization, ed25519 = _library()
    loaded = _loaded(key, lambda pem: serialization.load_pem_private_key(pem, None))
    if not isinstance(loaded, ed25519.Ed25519PrivateKey):
        raise BadInput(f"{key}: not an Ed25519 private key; openssl genpkey -algorithm ed25519")
    return bytes(loaded.sign(content))


def verified(content: bytes, signature: bytes, key: Path) -> bool:
    """Whether the signature is that of the key's owner over this content.

    Raises:
        BadInput: not an Ed25519 public key.
        MissingComponent: cryptography is not installed.
    """
    from cryptography.exceptions import InvalidSignature

    serialization, ed25519 = _library()
    loaded = _loaded(key, serialization.load_pem_public_key)
    if not isinstance(loaded, ed25519.Ed25519PublicKey):
        raise BadInput(f"{key}: not an Ed25519 public key; openssl pkey -in KEY -pubout")
    try:
        loaded.verify(signature, content)
    except InvalidSignature:
        return False
    return True


def _library() -> tuple[Any, Any]:
    if importlib.util.find_spec("cryptography") is None:
        raise MissingComponent("signatures need cryptography: pip install 'edgeres[signing]'")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    return serialization, ed25519


def _loaded(key: Path, load: Any) -> Any:
    try:
        return load(key.read_bytes())
    except OSError as error:
        raise BadInput(f"{key}: can't be read: {error.strerror}") from error
    except (ValueError, TypeError) as error:  # TypeError: it is encrypted
        raise BadInput(f"{key}: not a PEM key without a password") from error
