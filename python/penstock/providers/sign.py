"""Signatures for services that take credentials instead of a key: AWS Signature Version 4, by botocore.

It is asked for at the call, for the extra `aws` only has to be there when somebody has no API key.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import AuthenticationError
from .registry import Provider
from .resolve import fill

Sign = Callable[[str, Mapping[str, str], bytes], dict[str, str]]
"""(url, headers, body) -> the headers that sign them. Each attempt is signed anew: a signature lasts minutes."""

SIGNED = ("content-type",)
"""Beside the host and what is added here: intermediaries change other headers."""


def signer(provider: Provider, values: Mapping[str, str]) -> Sign:
    """How to sign for this provider, with the caller's credentials or those of botocore's chain.

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
    from botocore.exceptions import BotoCoreError
    from botocore.session import Session

    if "aws_access_key_id" in values and "aws_secret_access_key" in values:
        return Credentials(
            values["aws_access_key_id"], values["aws_secret_access_key"], values.get("aws_session_token")
        )
    try:
        return Session(profile=values.get("aws_profile_name")).get_credentials()
    except BotoCoreError as error:
        raise AuthenticationError(f"AWS credentials: {error}") from None
