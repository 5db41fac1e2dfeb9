"""Tokens that are had before the call: how they are asked for, kept, shared, renewed, and what their servers refuse."""

import asyncio
import json
import os
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

import pytest
import trio

from penstock import (
    APIConnectionError,
    APIError,
    AuthenticationError,
    BadRequestError,
    RateLimitError,
    ServiceUnavailableError,
    Timeout,
    acompletion,
    completion,
)
from penstock import tokens as module
from penstock.providers.registry import ROWS
from penstock.tokens import tokens

MESSAGES = [{"role": "user", "content": "Hello"}]
WHOLE = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]}
SECRET = "s3cret/with+signs&0123456789"


@dataclass
class Server:
    """A provider and the server of its tokens in one. Tokens are counted: token-1, token-2 ..."""

    url: str = ""
    asked: list[tuple[str, dict[str, str], dict[str, str]]] = field(default_factory=list)
    """What was posted for a token: path, headers, form."""
    called: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    """What the provider was sent: path, headers, body."""
    answer: Callable[[int], tuple[int, Any]] = lambda count: (200, {"access_token": f"token-{count}-secret"})
    refused: set[str] = field(default_factory=set)
    """Tokens that the provider takes no longer."""
    delay: float = 0.0
    lock: Any = field(default_factory=threading.Lock)

    def tokens(self) -> list[str]:
        return [headers["authorization"] for _, headers, _ in self.called]


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            if headers["content-type"] == "application/x-www-form-urlencoded":
                with state.lock:
                    state.asked.append((self.path, headers, dict(parse_qsl(body.decode()))))
                    count = len(state.asked)
                time.sleep(state.delay)
                status, said = state.answer(count)
            else:
                with state.lock:
                    state.called.append((self.path, headers, json.loads(body)))
                status, said = 200, WHOLE
                if headers.get("authorization", "").removeprefix("Bearer ") in state.refused:
                    status, said = 401, {"error": {"message": f"expired: {headers['authorization']}"}}
            content = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        state.url = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        listening.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of any row is set, no token is known, and no cloud's machine is this."""
    for row in ROWS:
        owned = chain((setting.env for setting in row.settings), (token.env for token in row.tokens))
        for name in chain(row.key_env, row.base_env, *owned):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", os.devnull)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    tokens.kept.clear()


def blocking(model: str, **options: Any) -> Any:
    return completion(model, MESSAGES, **options)


@pytest.fixture(params=["blocking", "asyncio", "trio"])
def ask(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """A call in each world."""

    def ask(model: str, **options: Any) -> Any:
        options = {"messages": MESSAGES, "max_retries": 0, **options}
        if request.param == "blocking":
            return completion(model, **options)

        async def main() -> Any:
            return await acompletion(model, **options)

        return asyncio.run(main()) if request.param == "asyncio" else trio.run(main)

    return ask


def watsonx(server: Server, **options: Any) -> dict[str, Any]:
    """A call whose key is exchanged."""
    place = {"api_base": server.url, "watsonx_iam_url": f"{server.url}/identity/token"}
    return {"model": "watsonx/m", "api_key": SECRET, **place, **options}


def entra(server: Server, **options: Any) -> dict[str, Any]:
    """A call with secrets that are exchanged."""
    secrets = {"tenant_id": "t/1", "client_id": "c-0123456", "client_secret": SECRET}
    place = {"api_base": server.url, "azure_authority_host": f"{server.url}/"}
    return {"model": "azure/d", **secrets, **place, **options}


# What is posted -------------------------------------------------------------------------------------------------------


def test_a_key_is_exchanged_for_a_token(server: Server, ask: Any) -> None:
    assert ask(**watsonx(server)).choices[0].message.content == "Hi"
    ((path, headers, form),) = server.asked
    assert path == "/identity/token"
    assert headers["accept"] == "application/json"
    assert "authorization" not in headers
    assert form == {"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": SECRET}
    ((path, headers, body),) = server.called
    assert path == "/ml/v1/text/chat?version=2024-10-08"
    assert headers["authorization"] == "Bearer token-1-secret"
    assert body == {"messages": MESSAGES, "model_id": "m"}
    assert SECRET not in f"{server.called}"


def test_client_credentials(server: Server, ask: Any) -> None:
    ask(**entra(server))
    ((path, _, form),) = server.asked
    assert path == "/t%2F1/oauth2/v2.0/token", "a tenant is one segment"
    assert form == {
        "grant_type": "client_credentials",
        "client_id": "c-0123456",
        "client_secret": SECRET,
        "scope": "https://cognitiveservices.azure.com/.default",
    }
    headers = server.called[0][1]
    assert headers["authorization"] == "Bearer token-1-secret"
    assert "api-key" not in headers


def test_client_credentials_as_user_and_password(server: Server, ask: Any) -> None:
    place = {"api_base": f"{server.url}/serving-endpoints"}
    ask("databricks/m", client_id="me", client_secret=SECRET, **place)
    ((path, headers, form),) = server.asked
    assert path == "/oidc/v1/token"
    assert headers["authorization"] == "Basic " + b64encode(f"me:{SECRET}".encode()).decode()
    assert form == {"grant_type": "client_credentials", "scope": "all-apis"}
    assert server.called[0][0] == "/serving-endpoints/chat/completions"


def test_an_id_for_each_request(server: Server, ask: Any) -> None:
    place = {"api_base": server.url, "gigachat_auth_url": f"{server.url}/oauth"}
    for key in ("first-01234", "other-01234"):
        ask("gigachat/m", api_key=key, **place)
    ids = {UUID(headers["rquid"]) for _, headers, _ in server.asked}
    assert len(ids) == 2
    assert [headers["authorization"] for _, headers, _ in server.asked] == ["Basic first-01234", "Basic other-01234"]
    assert server.asked[0][2] == {"scope": "GIGACHAT_API_PERS"}


def test_secrets_from_the_variables(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TENANT_ID": "t", "CLIENT_ID": "c", "CLIENT_SECRET": SECRET, "SCOPE": "s"}.items():
        monkeypatch.setenv(f"AZURE_{name}", value)
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", server.url)
    blocking("azure/d", api_base=server.url)
    assert server.asked[0][2]["client_secret"] == SECRET
    assert server.asked[0][2]["scope"] == "s"
    # A key of the variables goes before them, what is passed before that.
    monkeypatch.setenv("AZURE_API_KEY", "k")
    blocking("azure/d", api_base=server.url)
    assert server.called[-1][1]["api-key"] == "k"
    blocking("azure/d", api_base=server.url, client_secret="another-secret")
    assert server.asked[-1][2]["client_secret"] == "another-secret"
    blocking("azure/d", api_base=server.url, client_secret="another-secret", azure_ad_token="mine")
    assert server.called[-1][1]["authorization"] == "Bearer mine"


def test_the_secrets_of_the_variables_go_to_no_other_vendor(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TENANT_ID", "CLIENT_ID", "CLIENT_SECRET"):
        monkeypatch.setenv(f"AZURE_{name}", SECRET)
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", server.url)
    with pytest.raises(AuthenticationError, match="openai"):
        blocking("azure/d", api_base="https://api.openai.com/v1")
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", "c")
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", SECRET)
    with pytest.raises(AuthenticationError, match="openai"):
        blocking("databricks/m", api_base="https://api.openai.com/v1")
    # Not even with the half of them that is no secret passed; all of it is the caller's to give away.
    elsewhere: dict[str, Any] = {"api_base": "https://api.openai.com/v1", "proxy": "http://localhost:1"}
    with pytest.raises(AuthenticationError, match="openai"):
        blocking("azure/d", tenant_id="t", client_id="c", **elsewhere)
    with pytest.raises(APIConnectionError, match="no token from"):
        blocking("azure/d", tenant_id="t", client_id="c", client_secret=SECRET, max_retries=0, **elsewhere)
    assert not server.asked


def test_what_is_missing_is_said() -> None:
    with pytest.raises(AuthenticationError, match="tenant_id and client_id and client_secret"):
        blocking("azure/d", api_base="https://mine.openai.azure.com", client_id="c")
    with pytest.raises(BadRequestError, match="watsonx_iam_url must be an http") as caught:
        blocking("watsonx/m", api_base="http://localhost", api_key="k", watsonx_iam_url="iam")
    assert caught.value.param == "watsonx_iam_url"


# Keeping and sharing --------------------------------------------------------------------------------------------------


def test_a_token_is_kept_for_its_credential(server: Server, ask: Any) -> None:
    for key in (SECRET, SECRET, "another-key", SECRET):
        ask(**watsonx(server, api_key=key))
    assert [form["apikey"] for _, _, form in server.asked] == [SECRET, "another-key"]
    first, other = "Bearer token-1-secret", "Bearer token-2-secret"
    assert server.tokens() == [first, first, other, first]


@pytest.mark.parametrize(
    ("expires", "lasts"),
    [
        ({"expires_in": 3600}, 3540),
        ({"expires_in": "3600"}, 3540),
        ({"expires_in": 100}, 90),
        ({"expires_in": 0}, 0),
        ({"expires_in": lambda: time.time() + 3600}, 3540),
        ({"expires_in": lambda: (time.time() + 3600) * 1000}, 3540),
        ({}, 1740),
        ({"expires_in": None}, 1740),
    ],
)
def test_how_long_a_token_is_kept(server: Server, expires: Any, lasts: float) -> None:
    told = {name: value() if callable(value) else value for name, value in expires.items()}
    server.answer = lambda count: (200, {"access_token": "t", **told})
    completion(messages=MESSAGES, **watsonx(server))
    (lease,) = tokens.kept.values()
    assert lease.until - time.time() == pytest.approx(lasts, abs=20)


def test_a_token_is_renewed_before_it_expires(server: Server, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(**watsonx(server))
    now = time.time()
    monkeypatch.setattr(module, "time", lambda: now + 1730)
    ask(**watsonx(server))
    assert len(server.asked) == 1
    monkeypatch.setattr(module, "time", lambda: now + 1760)
    ask(**watsonx(server))
    assert len(server.asked) == 2
    assert server.tokens()[-1] == "Bearer token-2-secret"
    assert len(tokens.kept) == 1, "the old one is gone"


def test_threads_share_one_exchange(server: Server) -> None:
    server.delay = 0.2
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: completion(messages=MESSAGES, **watsonx(server)), range(8)))
    assert len(server.asked) == 1
    assert server.tokens() == ["Bearer token-1-secret"] * 8


def test_tasks_share_one_exchange(server: Server) -> None:
    server.delay = 0.2

    async def main() -> None:
        await asyncio.gather(*(acompletion(messages=MESSAGES, **watsonx(server)) for _ in range(8)))

    asyncio.run(main())
    assert len(server.asked) == 1
    assert server.tokens() == ["Bearer token-1-secret"] * 8


def test_a_failure_is_shared_too_and_not_kept(server: Server) -> None:
    server.delay = 0.2
    server.answer = lambda count: (400, {"error_description": f"no, said {count} times"})

    async def main() -> list[Any]:
        calls = (acompletion(messages=MESSAGES, **watsonx(server)) for _ in range(5))
        return await asyncio.gather(*calls, return_exceptions=True)

    errors = asyncio.run(main())
    assert {type(error) for error in errors} == {AuthenticationError}
    assert len({id(error) for error in errors}) == 5
    assert len(server.asked) == 1
    server.answer = lambda count: (200, {"access_token": "good"})
    completion(messages=MESSAGES, **watsonx(server))


def test_who_is_cancelled_leaves_the_errand_to_another(server: Server) -> None:
    server.delay = 0.3

    async def main() -> None:
        first = asyncio.create_task(acompletion(messages=MESSAGES, **watsonx(server)))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(acompletion(messages=MESSAGES, **watsonx(server)))
        await asyncio.sleep(0.05)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await second

    asyncio.run(main())
    assert len(server.asked) == 2
    assert len(server.called) == 1
    assert not tokens.errands


def test_an_errand_that_nobody_runs_any_more_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    server.delay = 0.1

    async def main() -> None:
        await acompletion(messages=MESSAGES, **watsonx(server))

    stopped = main()
    loop = asyncio.new_event_loop()
    task = loop.create_task(stopped)
    loop.run_until_complete(asyncio.sleep(0.05))  # and never again
    completion(messages=MESSAGES, **watsonx(server))
    assert len(server.asked) == 2
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


# Renewal --------------------------------------------------------------------------------------------------------------


def test_a_kept_token_that_is_refused_is_renewed_once(server: Server, ask: Any) -> None:
    ask(**watsonx(server))
    server.refused = {"token-1-secret"}
    assert ask(**watsonx(server)).choices[0].message.content == "Hi"
    assert server.tokens() == ["Bearer token-1-secret"] * 2 + ["Bearer token-2-secret"]
    server.refused = {"token-2-secret", "token-3-secret"}
    with pytest.raises(AuthenticationError) as caught:
        ask(**watsonx(server))
    assert caught.value.status_code == 401
    assert len(server.asked) == 3
    assert "token-3-secret" not in f"{caught.value!r} {caught.value} {caught.value.body}"


def test_a_new_token_that_is_refused_is_not_tried_again(server: Server, ask: Any) -> None:
    server.refused = {"token-1-secret"}
    with pytest.raises(AuthenticationError):
        ask(**watsonx(server))
    assert (len(server.asked), len(server.called)) == (1, 1)


# Failures -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "said", "error", "message"),
    [
        (400, {"errorCode": "BXNIM0415E", "errorMessage": "no such key"}, AuthenticationError, "no such key"),
        (401, {"error": "invalid_client", "error_description": "AADSTS7000215"}, AuthenticationError, "AADSTS7000215"),
        (403, {"error": {"message": "forbidden"}}, AuthenticationError, "forbidden"),
        (404, b"<html>not here</html>", AuthenticationError, "not here"),
        (302, b"", AuthenticationError, "no token from"),
        (200, {"token": "elsewhere"}, AuthenticationError, "without access_token"),
        (200, b"not JSON", AuthenticationError, "without access_token"),
        (200, {"access_token": "two\nlines"}, AuthenticationError, "without access_token"),
        (429, {"error": "slow down"}, RateLimitError, "slow down"),
        (503, {"message": "later"}, ServiceUnavailableError, "later"),
    ],
)
def test_what_the_server_of_tokens_says(
    server: Server, ask: Any, status: int, said: Any, error: type[APIError], message: str
) -> None:
    server.answer = lambda count: (status, said)
    with pytest.raises(error, match=message) as caught:
        ask(**watsonx(server))
    assert type(caught.value) is error
    assert caught.value.status_code == (None if status == 200 else status)
    assert server.url.removeprefix("http://") in caught.value.message
    assert (caught.value.provider, caught.value.model) == ("watsonx", "m")
    assert not server.called


def test_a_server_of_tokens_that_recovers(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answer = lambda count: (503, {}) if count == 1 else (200, {"access_token": "t"})
    stream = completion(messages=MESSAGES, stream=True, **watsonx(server, max_retries=1))
    assert [type(attempt.error) for attempt in stream.attempts] == [ServiceUnavailableError, type(None)]
    stream.close()


def test_secrets_show_nowhere(server: Server, ask: Any) -> None:
    basic = b64encode(f"me:{SECRET}".encode()).decode()
    server.answer = lambda count: (401, {"error": SECRET, "error_description": f"no {SECRET}, nor {basic}"})
    for call in (watsonx(server), entra(server)):
        with pytest.raises(AuthenticationError) as caught:
            ask(**call)
        error = caught.value
        assert SECRET not in f"{error} {error!r} {error.args} {error.body} {vars(error)}"
    with pytest.raises(AuthenticationError) as caught:
        ask("databricks/m", client_id="me", client_secret=SECRET, api_base=server.url)
    assert basic not in f"{caught.value!r} {vars(caught.value)}"
    assert SECRET not in f"{caught.value!r} {vars(caught.value)}"


def test_nobody_there(ask: Any) -> None:
    place = {"api_base": "http://localhost:1", "watsonx_iam_url": "http://localhost:1/token"}
    with pytest.raises(APIConnectionError, match="no token from localhost:1"):
        ask("watsonx/m", api_key="k", **place)


def test_the_clocks_of_the_call_hold(server: Server, ask: Any) -> None:
    server.delay = 2
    began = time.monotonic()
    with pytest.raises(Timeout, match="no token from"):
        ask(**watsonx(server, timeout=0.3))
    assert time.monotonic() - began < 1.5


# A function of the caller's -------------------------------------------------------------------------------------------


def test_a_function_gives_the_token(server: Server, ask: Any) -> None:
    given = iter(["one", "two"])
    threads = []

    def provider() -> str:
        threads.append(threading.current_thread())
        return next(given)

    for _ in range(2):
        ask("azure/d", api_base=server.url, azure_ad_token_provider=provider)
    assert server.tokens() == ["Bearer one", "Bearer two"], "it keeps them itself, if it likes"
    assert "api-key" not in server.called[0][1]


def test_a_function_holds_up_no_event_loop(server: Server) -> None:
    def slow() -> str:
        time.sleep(0.3)
        return "slow"

    place: dict[str, Any] = {"api_base": server.url, "azure_ad_token_provider": slow}

    async def main() -> None:
        task = asyncio.create_task(acompletion("azure/d", MESSAGES, **place))
        turns = 0
        while not task.done():
            await asyncio.sleep(0.01)
            turns += 1
        assert turns > 10
        await task

    asyncio.run(main())
    assert server.tokens() == ["Bearer slow"]


def test_an_asynchronous_function(server: Server) -> None:
    async def provider() -> str:
        await asyncio.sleep(0)
        return "later"

    call: dict[str, Any] = {"model": "azure/d", "api_base": server.url, "azure_ad_token_provider": provider}

    async def main() -> None:
        await acompletion(messages=MESSAGES, **call)

    asyncio.run(main())
    assert server.tokens() == ["Bearer later"]
    with pytest.raises(BadRequestError, match="acompletion"):
        blocking(**call)


@pytest.mark.parametrize("gives", ["", None, 3, "two\nlines"])
def test_a_function_that_gives_no_token(server: Server, ask: Any, gives: Any) -> None:
    with pytest.raises(AuthenticationError, match="azure_ad_token_provider gave no token"):
        ask("azure/d", api_base=server.url, azure_ad_token_provider=lambda: gives)


def test_a_function_that_is_none(server: Server) -> None:
    with pytest.raises(BadRequestError, match="must be a function"):
        blocking("azure/d", api_base=server.url, azure_ad_token_provider="token")


# Google ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service_account() -> dict[str, str]:
    """A service account of nobody's."""
    pytest.importorskip("google.auth", reason="external: no google-auth")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(encoding, form, serialization.NoEncryption()).decode()
    return {
        "type": "service_account",
        "project_id": "of-the-account",
        "private_key_id": "1",
        "private_key": pem,
        "client_email": "robot@of-the-account.iam.gserviceaccount.com",
        "client_id": "1",
    }


@pytest.fixture
def account(service_account: dict[str, str], server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The service account, whose tokens are of this server."""
    server.answer = lambda count: (200, {"access_token": f"token-{count}-secret", "expires_in": 3600})
    return {**service_account, "token_uri": f"{server.url}/token"}


MISTRAL: dict[str, Any] = {"model": "vertex_ai/mistral-m"}


def claims(form: dict[str, str]) -> Any:
    """What a signed assertion says."""
    from google.auth import jwt

    return jwt.decode(form["assertion"], verify=False)


@pytest.mark.parametrize("way", ["dict", "text", "path", "variable"])
def test_a_service_account(
    way: str, server: Server, ask: Any, account: dict[str, str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key.json"
    path.write_text(json.dumps(account))
    given: dict[str, Any] = {"dict": account, "text": json.dumps(account), "path": str(path), "variable": None}
    if way == "variable":
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    for _ in range(2):
        ask(**MISTRAL, api_base=server.url, vertex_credentials=given[way])
    ((path_asked, _, form),) = server.asked
    assert path_asked == "/token"
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    said = claims(form)
    assert said["scope"] == "https://www.googleapis.com/auth/cloud-platform"
    assert said["iss"] == account["client_email"]
    path_called, _, body = server.called[0]
    assert path_called == (
        "/projects/of-the-account/locations/global/publishers/mistralai/models/mistral-m:rawPredict"
    ), "the project is the account's"
    assert server.tokens() == ["Bearer token-1-secret"] * 2
    assert body == {"model": "mistral-m", "messages": MESSAGES}
    (lease,) = tokens.kept.values()
    assert lease.until - time.time() == pytest.approx(3540, abs=30)


def test_credentials_that_are_passed_go_before_the_variables(
    server: Server, account: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUDSDK_AUTH_ACCESS_TOKEN", "from-variable")
    blocking(**MISTRAL, api_base=server.url, vertex_credentials=account)
    blocking(**MISTRAL, api_base=server.url, vertex_project="p")
    blocking(**MISTRAL, api_base=server.url, vertex_credentials=account, api_key="passed")
    assert server.tokens() == ["Bearer token-1-secret", "Bearer from-variable", "Bearer passed"]


def test_a_refused_service_account(server: Server, ask: Any, account: dict[str, str]) -> None:
    answer = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
    server.answer = lambda count: (400, answer)
    with pytest.raises(AuthenticationError, match=r"Invalid JWT Signature") as caught:
        ask(**MISTRAL, api_base=server.url, vertex_credentials=account)
    assert account["private_key"][40:80] not in f"{caught.value!r} {vars(caught.value)}"
    assert not server.called


def test_tasks_share_one_token_of_googles(server: Server, account: dict[str, str]) -> None:
    server.delay = 0.3
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.01)
            turns += 1

    async def main() -> None:
        counting = asyncio.create_task(count())
        call: dict[str, Any] = {**MISTRAL, "messages": MESSAGES, "api_base": server.url, "vertex_credentials": account}
        await asyncio.gather(*(acompletion(**call) for _ in range(5)))
        counting.cancel()

    asyncio.run(main())
    assert len(server.asked) == 1
    assert turns > 10, "the event loop went on meanwhile"


def test_a_refused_token_of_googles_is_renewed(server: Server, ask: Any, account: dict[str, str]) -> None:
    call = {**MISTRAL, "api_base": server.url, "vertex_credentials": account}
    ask(**call)
    server.refused = {"token-1-secret"}
    ask(**call)
    assert server.tokens()[-1] == "Bearer token-2-secret"


@pytest.mark.parametrize(
    ("credentials", "error", "message"),
    [
        ("/nowhere/key.json", BadRequestError, "vertex_credentials: /nowhere/key.json: No such file"),
        ('{"private_key": "s3cret', BadRequestError, "vertex_credentials: not JSON"),
        ({"type": "service_account"}, AuthenticationError, "Google's credentials"),
    ],
)
def test_credentials_that_are_none(credentials: Any, error: type[APIError], message: str) -> None:
    pytest.importorskip("google.auth", reason="external: no google-auth")
    call: dict[str, Any] = {**MISTRAL, "api_base": "http://localhost:1", "vertex_project": "p"}
    with pytest.raises(error, match=message) as caught:
        blocking(vertex_credentials=credentials, **call)
    assert "s3cret" not in str(caught.value)


def test_no_credentials_of_googles_at_all() -> None:
    pytest.importorskip("google.auth", reason="external: no google-auth")
    with pytest.raises(AuthenticationError, match="pass api_key or set CLOUDSDK_AUTH_ACCESS_TOKEN") as caught:
        blocking("vertex_ai/m", vertex_project="p")
    assert "vertex_credentials" in caught.value.message


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "google.auth", None)
    with pytest.raises(AuthenticationError, match=r"pip install 'penstock\[google\]'"):
        blocking("vertex_ai/m", vertex_project="p")


def test_googles_own_credentials_go_to_no_other_vendor(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("google.auth", reason="external: no google-auth")
    with pytest.raises(AuthenticationError, match="openai"):
        blocking("vertex_ai/m", vertex_project="p", api_base="https://api.openai.com/v1")
