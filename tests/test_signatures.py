"""Requests that an RSA key signs: each part is signed as it is sent, and nothing of the key is."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock import APIError, AuthenticationError, BadRequestError, completion
from penstock.providers.registry import PROVIDERS

pytest.importorskip("cryptography", reason="external: no cryptography")

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

MESSAGES = [{"role": "user", "content": "Hello"}]
WHOLE = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]}
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ROW = PROVIDERS["oci"]
OWNER = {"oci_tenancy": "ocid1.tenancy.t", "oci_user": "ocid1.user.u", "oci_fingerprint": "aa:bb"}
PLACE = {"oci_region": "us-chicago-1", "oci_compartment_id": "ocid1.compartment.c"}


def pem(key: Any, password: bytes | None = None) -> str:
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    written: bytes = key.private_bytes(encoding, form, hidden)
    return written.decode()


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in chain(ROW.key_env, *(setting.env for setting in ROW.settings)):
        monkeypatch.delenv(name, raising=False)


requests: list[httpx.Request] = []


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    requests.clear()

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(503 if len(requests) == 1 else 200, headers={"retry-after-ms": "1"}, json=WHOLE)

    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        yield client


def call(**options: Any) -> Any:
    return completion("oci/meta.llama-m", MESSAGES, **options)


def verify(request: httpx.Request) -> str:
    """Checks a signature as the server does, and gives the id of its key."""
    found = re.fullmatch(
        r'Signature algorithm="rsa-sha256",headers="([^"]+)",keyId="([^"]+)",signature="([^"]+)",version="1"',
        request.headers["authorization"],
    )
    assert found
    names, key_id, signature = found.groups()
    assert names == "date (request-target) host content-length content-type x-content-sha256"
    target = {"(request-target)": f"post {request.url.raw_path.decode()}"}
    text = "\n".join(f"{name}: {target.get(name) or request.headers[name]}" for name in names.split())
    KEY.public_key().verify(base64.b64decode(signature), text.encode(), PKCS1v15(), hashes.SHA256())
    assert request.headers["x-content-sha256"] == base64.b64encode(hashlib.sha256(request.content).digest()).decode()
    assert int(request.headers["content-length"]) == len(request.content)
    assert parsedate_to_datetime(request.headers["date"]).tzinfo is not None
    return key_id


@pytest.mark.parametrize("way", ["text", "one line", "file", "variables"])
def test_a_key_signs_each_attempt(
    way: str, client: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key.pem"
    path.write_text(pem(KEY), encoding="utf-8")
    given: dict[str, str] = {**OWNER, **PLACE}
    match way:
        case "text":
            given["oci_key"] = pem(KEY)
        case "one line":
            given["oci_key"] = pem(KEY).replace("\n", "\\n")
        case "file":
            given["oci_key_file"] = str(path)
        case "variables":
            given["oci_key_file"] = str(path)
            for name, value in given.items():
                monkeypatch.setenv(name.upper(), value)
            given = {}
    call(client=client, max_retries=1, extra_query={"q": "1 2"}, **given)
    assert len(requests) == 2
    for request in requests:
        assert verify(request) == "ocid1.tenancy.t/ocid1.user.u/aa:bb"
        assert request.url.host == "inference.generativeai.us-chicago-1.oci.oraclecloud.com"
        assert request.url.path == "/openai/v1/chat/completions"
        assert request.headers["opc-compartment-id"] == "ocid1.compartment.c"
        assert "PRIVATE" not in f"{request.headers} {request.content!r}"
    assert json.loads(requests[0].content)["model"] == "meta.llama-m"


def test_a_key_of_the_providers_goes_before(client: httpx.Client) -> None:
    call(client=client, api_key="sk-1", oci_key=pem(KEY), **OWNER, **PLACE)
    assert requests[-1].headers["authorization"] == "Bearer sk-1"
    assert "x-content-sha256" not in requests[-1].headers


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({}, AuthenticationError, "oci_tenancy, oci_user, oci_fingerprint, and oci_key or oci_key_file"),
        ({"oci_key": pem(KEY)}, AuthenticationError, "OCI_GENAI_API_KEY"),
        ({**OWNER, "oci_key": "s3cret"}, BadRequestError, "oci_key is no private key in PEM"),
        ({**OWNER, "oci_key": pem(KEY, b"s3cret")}, BadRequestError, "without a passphrase"),
        ({**OWNER, "oci_key": pem(ec.generate_private_key(ec.SECP256R1()))}, BadRequestError, "no RSA key"),
        ({**OWNER, "oci_key_file": "/nowhere"}, BadRequestError, "oci_key_file: /nowhere: No such file"),
    ],
)
def test_what_is_no_key_is_said(
    given: dict[str, str], error: type[APIError], message: str, client: httpx.Client
) -> None:
    with pytest.raises(error, match=message) as caught:
        call(client=client, **given, **PLACE)
    assert "s3cret" not in str(caught.value)
    assert not requests


def test_without_the_extra(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(AuthenticationError, match=r"pip install 'penstock\[oci\]'"):
        call(client=client, oci_key=pem(KEY), **OWNER, **PLACE)
