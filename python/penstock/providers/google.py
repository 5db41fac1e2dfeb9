"""Access tokens for Google Cloud, by google-auth: service accounts, users, workload identity, the machine's own.

The extra `google` only has to be there when somebody has no token. What is here blocks.
"""

import os
from datetime import UTC
from typing import Any

from ..errors import APIConnectionError, AuthenticationError
from .resolve import document

CHAIN = "GOOGLE_APPLICATION_CREDENTIALS"


def access_token(client: Any, scope: str, credentials: str | None, ways: str) -> tuple[str, float | None]:
    """A new access token, and when it expires (seconds since 1970).

    Args:
        client: an httpx.Client to ask with.
        scope: what the token is for.
        credentials: a JSON document or the path of one; None for google-auth's own chain: the variable, what gcloud
            left, the metadata of the machine this runs on.
        ways: what else the caller could do, for the error if there are none.

    Raises:
        AuthenticationError: no credentials, or credentials that Google does not accept.
        APIConnectionError: Google cannot be reached.
    """
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError

    request = _requests(client)
    try:
        found = _load(credentials, scope, request)
        found.refresh(request)
    except TransportError as error:
        raise APIConnectionError(f"no token from Google: {_said(error)}") from error
    except (GoogleAuthError, ValueError) as error:
        if getattr(error, "retryable", False):
            raise APIConnectionError(f"no token from Google: {_said(error)}") from error
        nowhere = credentials is None and isinstance(error, DefaultCredentialsError)
        what = f"no key and no Google credentials: {ways}." if nowhere else "Google's credentials:"
        raise AuthenticationError(f"{what} {_said(error)}") from error
    # It is UTC without saying so.
    expires = found.expiry.replace(tzinfo=UTC).timestamp() if found.expiry is not None else None
    return found.token, expires


def _load(credentials: str | None, scope: str, request: Any) -> Any:
    import google.auth
    from google.oauth2 import credentials as users
    from google.oauth2 import service_account

    if credentials is None or credentials == os.environ.get(CHAIN):
        return google.auth.default(scopes=[scope], request=request)[0]
    info = document(credentials, "vertex_credentials")
    if info.get("type") == "service_account":
        return service_account.Credentials.from_service_account_info(info, scopes=[scope])
    if info.get("type") == "authorized_user":
        return users.Credentials.from_authorized_user_info(info, scopes=[scope])
    return google.auth.load_credentials_from_dict(info, scopes=[scope], request=request)[0]


def _said(error: Exception) -> str:
    """The words in an exception of google-auth's, whose second argument is the whole answer."""
    return str(error.args[0]) if error.args else type(error).__name__


def _requests(client: Any) -> Any:
    """google-auth's way to send a request, over the same connections as all others."""
    from google.auth import transport
    from google.auth.exceptions import TransportError

    class Response(transport.Response):
        def __init__(self, response: Any) -> None:
            self._response = response

        @property
        def status(self) -> int:
            code: int = self._response.status_code
            return code

        @property
        def headers(self) -> Any:
            return self._response.headers

        @property
        def data(self) -> bytes:
            body: bytes = self._response.content
            return body

    class Request(transport.Request):
        def __call__(
            self,
            url: str,
            method: str = "GET",
            body: Any = None,
            headers: Any = None,
            timeout: float | None = None,
            **_: Any,
        ) -> Response:
            try:
                response = client.request(
                    method, url, content=body, headers=headers, timeout=timeout or 30, follow_redirects=False
                )
            except Exception as error:
                raise TransportError(f"{error} ({type(error).__name__})") from error
            return Response(response)

    return Request()
