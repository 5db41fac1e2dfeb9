"""Signatures for services that take credentials instead of a key.

AWS Signature Version 4 is botocore's; HTTP Signatures are made here, with an RSA key. Both are asked for at the call,
for the extras `aws` and `oci` only have to be there when somebody has no API key.
"""

import os
from base64 import b64encode
from collections.abc import Callable, Mapping
from email.utils import formatdate
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from string import Formatter
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from ..errors import AuthenticationError, BadRequestError
from .registry import Provider, Signature
from .resolve import fill

Sign = Callable[[str, Mapping[str, str], bytes], dict[str, str]]
"""(url, headers, body) -> the headers that sign them. Each attempt is signed anew: a signature lasts minutes."""

SIGNED = ("content-type",)
"""Beside the host and what is added here: intermediaries change other headers."""


def signer(provider: Provider, values: Mapping[str, str]) -> Sign | None:
    """How to sign for this provider; None if it knows keys alone.

    Raises:
        AuthenticationError: no credentials, or not what it takes to use them. Nothing has been sent.
        BadRequestError: no region, which a signature is good for, or no such key.
    """
    if provider.signature is not None:
        return _http_signer(provider, provider.signature, values)
    return _aws_signer(provider, values) if provider.signed_as is not None else None


def _aws_signer(provider: Provider, values: Mapping[str, str]) -> Sign:
    """With the caller's credentials or those of botocore's chain.

    The chain is: variables, profiles, SSO, roles, and the metadata of the machine this runs on.

    Raises:
        AuthenticationError: no botocore, or no credentials. Nothing has been sent.
        BadRequestError: no region, which a signature is good for.
    """
    keys = " or ".join(("api_key", *provider.key_env))
    try:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
    except ImportError:
        raise AuthenticationError(
            f"no key for {provider.slug}: pass {keys}; to sign with AWS credentials, pip install 'penstock[aws]'",
            provider=provider.slug,
        ) from None
    credentials = _credentials(values)
    if credentials is None:
        raise AuthenticationError(
            f"no key and no AWS credentials for {provider.slug}: pass {keys}, or aws_access_key_id and "
            "aws_secret_access_key, or set them up as for any AWS client",
            provider=provider.slug,
        )
    service, region = provider.signed_as, fill(provider, "{aws_region_name}", values)

    def sign(url: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        given = {name: headers[name] for name in SIGNED if name in headers}
        request = AWSRequest(method="POST", url=url, data=body, headers=given)
        # Frozen at each request: credentials of roles are renewed while the process lives.
        SigV4Auth(credentials.get_frozen_credentials(), service, region).add_auth(request)
        return {name.lower(): value for name, value in request.headers.items()}

    return sign


def _credentials(values: Mapping[str, str]) -> Any:
    from botocore.credentials import Credentials

    if "aws_access_key_id" in values and "aws_secret_access_key" in values:
        return Credentials(
            values["aws_access_key_id"], values["aws_secret_access_key"], values.get("aws_session_token")
        )
    named = ((name, value) for name, value in os.environ.items() if name.startswith("AWS_") or name in CHAIN)
    try:
        return _chain(values.get("aws_profile_name"), tuple(sorted(named)), int(monotonic() // CHAIN_SECONDS))
    except LookupError:
        return None


CHAIN = ("HOME", "BOTO_CONFIG")
"""Variables, beside those of AWS, that lead to its files."""

CHAIN_SECONDS = 60.0
"""For so long at most what the chain has found is used: files change. Roles renew what they have by themselves."""


@lru_cache(maxsize=16)
def _chain(profile: str | None, _environment: tuple[tuple[str, str], ...], _when: int) -> Any:
    """What botocore's chain finds. Cached: a session takes 8 ms to make, and its chain may ask the machine it is on."""
    from botocore.exceptions import BotoCoreError
    from botocore.session import Session

    try:
        found = Session(profile=profile).get_credentials()
    except BotoCoreError as error:
        raise AuthenticationError(f"AWS credentials: {error}") from None
    if found is None:
        raise LookupError  # not kept: whoever reads the error may set them up and try again
    return found


SIGNED_BY_KEY = ("date", "(request-target)", "host", "content-length", "content-type", "x-content-sha256")
"""What an RSA key signs, in this order."""


def _http_signer(provider: Provider, signature: Signature, values: Mapping[str, str]) -> Sign:
    """With an RSA key: draft-cavage-http-signatures-08, rsa-sha256."""
    owner = [name for _, name, _, _ in Formatter().parse(signature.key_id) if name]
    holder = next((name for name in (signature.key, signature.key_file) if name in values), None)
    keys = " or ".join(("api_key", *provider.key_env))
    if holder is None or not all(name in values for name in owner):
        raise AuthenticationError(
            f"no key for {provider.slug}: pass {keys}, or {', '.join(owner)}, and {signature.key} or "
            f"{signature.key_file} to sign with",
            provider=provider.slug,
        )
    try:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    except ImportError:
        raise AuthenticationError(
            f"no key for {provider.slug}: pass {keys}; to sign with an RSA key, pip install 'penstock[oci]'",
            provider=provider.slug,
        ) from None
    key = _private_key(_pem(values[holder], holder, file=holder == signature.key_file), holder)
    key_id = signature.key_id.format_map(values)

    def sign(url: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        parts = urlsplit(url)
        said = {
            "date": formatdate(usegmt=True),
            "(request-target)": f"post {parts.path}" + (f"?{parts.query}" if parts.query else ""),
            "host": parts.netloc,
            "content-length": str(len(body)),
            "content-type": headers["content-type"],
            "x-content-sha256": b64encode(sha256(body).digest()).decode(),
        }
        text = "\n".join(f"{name}: {said[name]}" for name in SIGNED_BY_KEY)
        signed = b64encode(key.sign(text.encode(), PKCS1v15(), hashes.SHA256())).decode()
        del said["(request-target)"]
        return {
            **said,
            "authorization": f'Signature algorithm="rsa-sha256",headers="{" ".join(SIGNED_BY_KEY)}",keyId="{key_id}",'
            f'signature="{signed}",version="1"',
        }

    return sign


def _pem(value: str, name: str, *, file: bool) -> str:
    if not file:
        return value.replace("\\n", "\n")  # one line of a variable
    try:
        return Path(value).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise BadRequestError(f"{name}: {value}: {error.strerror or error}", param=name) from None


@lru_cache(maxsize=16)
def _private_key(pem: str, name: str) -> Any:
    """The key. Cached: to read and check one takes longer than to sign with it."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem.encode(), None)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        raise BadRequestError(f"{name} is no private key in PEM without a passphrase", param=name) from None
    if not isinstance(key, RSAPrivateKey):
        raise BadRequestError(f"{name} is no RSA key", param=name)
    return key
