"""Keys and tokens of buyers, as a shop has them."""

import base64
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

SECRET = b"the shop's own secret, 32 bytes."
HS256 = "hs256:" + base64.urlsafe_b64encode(SECRET).decode().rstrip("=")
"""for FLASHSALE_BUYER_KEYS"""


def claims(buyer: Any = "ada", **changed: Any) -> dict[str, Any]:
    """The claims of a valid token; None leaves one out."""
    all_claims = {"sub": buyer, "aud": "flashsale", "exp": int(time.time()) + 300} | changed
    return {name: value for name, value in all_claims.items() if value is not None}


def token(buyer: Any = "ada", key: Any = SECRET, algorithm: str = "HS256", **changed: Any) -> str:
    return jwt.encode(claims(buyer, **changed), key, algorithm)


def bearer(buyer: Any = "ada", **changed: Any) -> dict[str, str]:
    """The header of a valid token."""
    return {"Authorization": f"Bearer {token(buyer, **changed)}"}


def key_pair(algorithm: str) -> Any:
    """A private key for RS256 or ES256."""
    if algorithm == "RS256":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1())


def public_pem(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def private_pem(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def pem_file(folder: Path, key: Any, name: str = "buyers.pem") -> Path:
    """The public key in a file."""
    path = folder / name
    path.write_bytes(public_pem(key))
    return path
