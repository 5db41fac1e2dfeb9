"""Clients as they are, through the proxy, and every family's streams to the letter of the specification."""

import asyncio
import gc
import itertools
import json
import shutil
import ssl
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock import APIError, completion
from penstock.replay import Upstream
from penstock.replay.cases import FAMILIES
from penstock.replay.cases.chat import ANSWER, FORECAST, HELLO

# Some of these clients leave their sockets to the garbage collector: their affair, and done with in their own tests.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.skipif(sys.platform == "win32", reason="external: the proxy is tested where there are signals"),
]
MESSAGES: list[Any] = [{"role": "user", "content": "Hello"}]
USAGE: Any = {"include_usage": True}


@pytest.fixture(autouse=True, scope="module")
def collected() -> Iterator[None]:
    yield
    gc.collect()


# ---- every family, every case: what a call without a proxy gives is what the client is sent

STATUS = {
    "InternalServerError": 500,
    "APIConnectionError": 502,
    "BadRequestError": 400,
    "ContentPolicyViolationError": 400,
}
"""Of errors that come without one."""

UNFINISHED = {("text", "text-output"), ("text", "response")}
"""Wires that know no reason to finish: the end is the end."""


MADE_UP = {"id", "created", "model", "provider_id", "provider_model"}


def plain(answer: dict[str, Any]) -> dict[str, Any]:
    """A chunk or a response without what is made up anew each time, or kept only where it is asked in Python."""
    for choice in answer["choices"]:
        said = choice["delta"] if "delta" in choice else choice["message"]
        for call in said.get("tool_calls") or ():
            call.pop("id", None)
    return {name: value for name, value in answer.items() if name not in MADE_UP}


CITIES = ["東京", "Tromsø"]
"""Which the two calls of `parallel-tools` are about."""

STREAMS = [(family, case) for family in FAMILIES if family != "predictions" for case in FAMILIES[family].cases]


@pytest.mark.parametrize("usage", [True, False])
@pytest.mark.parametrize(("family", "case"), STREAMS)
def test_a_stream_is_spec_exact(
    shared: Any, key: str, judge: Any, events: Any, upstream: Upstream, family: str, case: str, usage: bool
) -> None:
    response = shared.stream(f"{family}/{case}", key=key, usage=usage)
    asked: Any = {"api_base": upstream.base_url, "max_retries": 0, "stream_options": {"include_usage": usage}}
    wanted: list[Any] = []
    error: APIError | None = None
    try:
        wanted.extend(completion(f"replay/{family}/{case}", MESSAGES, stream=True, **asked))
    except APIError as raised:
        error = raised
    if error is not None:
        assert response.status_code == (200 if wanted else error.status_code or STATUS[type(error).__name__])
        *told, last = [json.loads(event.data) for event in events(response.content)] if wanted else [response.json()]
        assert last["error"]["message"] == error.message
        assert [plain(chunk) for chunk in told] == [plain(chunk.model_dump()) for chunk in wanted]
        return
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    if (family, case) in UNFINISHED:
        chunks = [json.loads(event.data) for event in events(response.content)[:-1]]
    else:
        chunks = judge(response.content, usage=usage, model=f"{family}/{case}").chunks
    assert [plain(chunk) for chunk in chunks] == [plain(chunk.model_dump()) for chunk in wanted]


@pytest.mark.parametrize(("family", "case"), STREAMS)
def test_a_whole_answer_is_spec_exact(
    shared: Any, key: str, valid: Any, upstream: Upstream, family: str, case: str
) -> None:
    from openai.types.chat import ChatCompletion

    response = shared.ask(f"{family}/{case}", key=key)
    asked: Any = {"api_base": upstream.base_url, "max_retries": 0}
    error: APIError | None = None
    try:
        wanted = completion(f"replay/{family}/{case}", MESSAGES, **asked).model_dump()
    except APIError as raised:
        error = raised
    if error is not None:
        status, told = error.status_code or STATUS[type(error).__name__], response.json()["error"]
        assert (response.status_code, told["message"]) == (status, error.message)
        assert told.keys() == {"message", "type", "param", "code"}
        return
    assert response.status_code == 200, response.text
    given = response.json()
    assert (given["object"], given["model"]) == ("chat.completion", f"{family}/{case}")
    if (family, case) not in UNFINISHED:
        valid(ChatCompletion, response.content)
    assert plain(given) == plain(wanted)


def test_what_a_wire_cannot_say_at_once_comes_as_it_comes(shared: Any, key: str) -> None:
    """Each event is passed on when it is there, and not held for the next."""
    body = {"model": "chat/long-10?delay=100", "messages": MESSAGES, "stream": True}
    headers = {"authorization": f"Bearer {key}"}
    with httpx.stream("POST", f"{shared.base_url}/chat/completions", json=body, headers=headers) as response:
        began = time.monotonic()
        arrived = [time.monotonic() - began for line in response.iter_lines() if line]
    steps = [later - earlier for earlier, later in itertools.pairwise(arrived)]
    assert len([step for step in steps if step > 0.05]) >= 10, steps


def test_the_head_has_what_a_client_may_ask_for(shared: Any, key: str, up: Upstream) -> None:
    response = shared.ask("fast", key=key)
    assert response.headers["x-request-id"].startswith("req_")
    upstreams = up.wait(lambda stats: stats["requests"])["requests"][-1]["id"]
    assert upstreams in response.headers.values()
    assert float(next(value for name, value in response.headers.items() if "cost" in name)) > 0


# ---- the openai SDK


@pytest.fixture
def openai(shared: Any, key: str) -> Iterator[Any]:
    import openai

    with openai.OpenAI(base_url=shared.base_url, api_key=key, max_retries=0) as client:
        yield client


def joined(chunks: Any) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices if choice.index == 0)


def test_openai_streams(openai: Any) -> None:
    chunks = list(openai.chat.completions.create(model="fast", messages=MESSAGES, stream=True, stream_options=USAGE))
    assert joined(chunks) == HELLO
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == chunks[-1].usage.prompt_tokens + chunks[-1].usage.completion_tokens
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    chunks = list(openai.chat.completions.create(model="fast", messages=MESSAGES, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_openai_asks(openai: Any) -> None:
    response = openai.chat.completions.create(model="fast", messages=MESSAGES)
    assert response.choices[0].message.content == HELLO
    assert response.usage.total_tokens > 0
    assert response._request_id.startswith("req_")


def test_openai_asks_asynchronously(shared: Any, key: str) -> None:
    from openai import AsyncOpenAI

    async def main() -> None:
        async with AsyncOpenAI(base_url=shared.base_url, api_key=key, max_retries=0) as client:
            create = client.chat.completions.create

            async def one() -> str:
                stream = await create(model="anthropic/hello", messages=MESSAGES, stream=True, stream_options=USAGE)
                return joined([chunk async for chunk in stream])

            assert await asyncio.gather(*(one() for _ in range(20))) == [HELLO] * 20
            response = await create(model="gemini/hello", messages=MESSAGES)
            assert response.choices[0].message.content == HELLO

    asyncio.run(main())


def test_openai_collects_what_it_streams(openai: Any) -> None:
    """Its own accumulation, which minds where things stand in the chunks."""
    with openai.chat.completions.stream(model="chat/parallel-tools", messages=MESSAGES, stream_options=USAGE) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.done" in kinds
    assert [json.loads(call.function.arguments)["city"] for call in final.choices[0].message.tool_calls] == CITIES
    assert final.choices[0].finish_reason == "tool_calls"
    assert final.usage is not None


TOOLS = {
    **dict.fromkeys(("anthropic", "cohere", "gemini", "invoke", "ollama", "responses"), "tools"),
    **dict.fromkeys(("chat", "converse", "invocations"), "parallel-tools"),
}
"""In each family, the case with two calls."""


@pytest.mark.parametrize("family", TOOLS)
def test_openai_reads_tool_calls_of_every_family(openai: Any, upstream: Upstream, family: str) -> None:
    model = f"{family}/{TOOLS[family]}"
    wanted: Any = completion(f"replay/{model}", MESSAGES, api_base=upstream.base_url).choices[0].message.tool_calls
    with openai.chat.completions.stream(model=model, messages=MESSAGES) as stream:
        final = stream.get_final_completion()
    whole = openai.chat.completions.create(model=model, messages=MESSAGES)
    for answer in (final, whole):
        calls = answer.choices[0].message.tool_calls
        assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == [
            (call.function.name, json.loads(call.function.arguments)) for call in wanted
        ]
        assert len({call.id for call in calls}) == len(calls) == 2


def test_openai_reads_several_answers(openai: Any) -> None:
    chunks = list(openai.chat.completions.create(model="chat/n2", messages=MESSAGES, n=2, stream=True))
    whole = openai.chat.completions.create(model="chat/n2", messages=MESSAGES, n=2)
    texts = ["", ""]
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]


ERRORS = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    409: "ConflictError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
    500: "InternalServerError",
    503: "InternalServerError",
}


@pytest.mark.parametrize("family", ["chat", "anthropic", "gemini"])
@pytest.mark.parametrize("status", ERRORS)
@pytest.mark.parametrize("stream", [False, True])
def test_openai_raises_what_the_upstream_said(openai: Any, family: str, status: int, stream: bool) -> None:
    import openai as package

    with pytest.raises(package.APIStatusError) as caught:
        openai.chat.completions.create(model=f"{family}/hello?status={status}", messages=MESSAGES, stream=stream)
    assert type(caught.value).__name__ == ERRORS[status]
    assert caught.value.status_code == status
    assert caught.value.request_id is not None
    body: Any = caught.value.body
    assert body["message"]


def test_openai_raises_in_the_middle_of_a_stream(openai: Any) -> None:
    import openai as package

    chunks: list[Any] = []
    stream = openai.chat.completions.create(model="chat/hello?error=5", messages=MESSAGES, stream=True)
    with pytest.raises(package.APIError) as caught:
        chunks.extend(stream)
    assert 0 < len(chunks) < 10
    assert caught.value.message


def test_openai_is_told_what_it_may_not(shared: Any) -> None:
    import openai as package

    with package.OpenAI(base_url=shared.base_url, api_key="sk-unknown", max_retries=0) as client:
        with pytest.raises(package.AuthenticationError):
            client.chat.completions.create(model="fast", messages=MESSAGES)
        with pytest.raises(package.NotFoundError) as caught:
            client.with_options(api_key=shared.master).chat.completions.create(model="fats", messages=MESSAGES)
        assert caught.value.code == "model_not_found"
    limited = shared.key(models=["fast"])
    with package.OpenAI(base_url=shared.base_url, api_key=limited, max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["fast"]
        assert client.models.retrieve("fast").id == "fast"
        with pytest.raises(package.APIStatusError):
            client.chat.completions.create(model="chat/hello", messages=MESSAGES)


def test_openai_for_azure(shared: Any, key: str) -> None:
    from openai import AzureOpenAI

    with AzureOpenAI(azure_endpoint=shared.url, api_key=key, api_version="2024-10-21", max_retries=0) as client:
        chunks = list(client.chat.completions.create(model="fast", messages=MESSAGES, stream=True))
        assert joined(chunks) == HELLO


def test_openai_leaves_a_stream(openai: Any, up: Upstream) -> None:
    stream = openai.chat.completions.create(model="chat/long-500?delay=10&tag=left", messages=MESSAGES, stream=True)
    next(iter(stream))
    stream.close()
    up.wait(lambda stats: any(request["closed_early"] for request in stats["requests"]), 5)


# ---- Anthropic's SDK


@pytest.fixture
def anthropic(shared: Any, key: str) -> Iterator[Any]:
    import anthropic

    with anthropic.Anthropic(base_url=shared.url, api_key=key, max_retries=0) as client:
        yield client


@pytest.mark.parametrize("model", ["anthropic/hello", "fast", "gemini/hello", "converse/hello", "responses/hello"])
def test_anthropic_streams(anthropic: Any, model: str) -> None:
    with anthropic.messages.stream(model=model, messages=MESSAGES, max_tokens=99) as stream:
        assert "".join(stream.text_stream) == HELLO
        final = stream.get_final_message()
    assert final.stop_reason == "end_turn"
    assert final.usage.output_tokens > 0
    assert final.usage.input_tokens > 0


@pytest.mark.parametrize("model", ["anthropic/hello", "fast", "gemini/hello"])
def test_anthropic_asks(anthropic: Any, model: str) -> None:
    message = anthropic.messages.create(model=model, messages=MESSAGES, max_tokens=99)
    assert "".join(block.text for block in message.content if block.type == "text") == HELLO
    assert (message.role, message.stop_reason) == ("assistant", "end_turn")
    assert message.usage.output_tokens > 0


@pytest.mark.parametrize("model", ["anthropic/tools", "chat/parallel-tools", "gemini/tools"])
def test_anthropic_reads_tool_calls(anthropic: Any, model: str) -> None:
    tools = [{"name": "weather", "description": "Tells it.", "input_schema": {"type": "object", "properties": {}}}]
    with anthropic.messages.stream(model=model, messages=MESSAGES, max_tokens=99, tools=tools) as stream:
        final = stream.get_final_message()
    whole = anthropic.messages.create(model=model, messages=MESSAGES, max_tokens=99, tools=tools)
    for message in (final, whole):
        calls = [block for block in message.content if block.type == "tool_use"]
        assert calls[0].input["city"] == CITIES[0]
        assert len({call.id for call in calls}) == len(calls) == 2
        assert message.stop_reason == "tool_use"


@pytest.mark.parametrize("model", ["anthropic/thinking", "chat/reasoning"])
def test_anthropic_reads_thoughts(anthropic: Any, model: str) -> None:
    with anthropic.messages.stream(model=model, messages=MESSAGES, max_tokens=99) as stream:
        final = stream.get_final_message()
    kinds = [block.type for block in final.content]
    assert (kinds[0], kinds[-1]) == ("thinking", "text")
    assert "".join(block.text for block in final.content if block.type == "text") == ANSWER


@pytest.mark.parametrize("model", ["anthropic/hello", "chat/hello"])
@pytest.mark.parametrize(
    ("status", "name"),
    [(400, "BadRequestError"), (401, "AuthenticationError"), (404, "NotFoundError"), (429, "RateLimitError")],
)
def test_anthropic_raises(anthropic: Any, model: str, status: int, name: str) -> None:
    import anthropic as package

    with pytest.raises(package.APIStatusError) as caught:
        anthropic.messages.create(model=f"{model}?status={status}", messages=MESSAGES, max_tokens=99)
    assert type(caught.value).__name__ == name
    body: Any = caught.value.body
    assert body["type"] == "error"
    assert body["error"]["message"]


@pytest.mark.parametrize("model", ["anthropic/hello", "chat/hello"])
def test_anthropic_raises_in_the_middle_of_a_stream(anthropic: Any, model: str) -> None:
    import anthropic as package

    with (
        pytest.raises(package.APIStatusError) as caught,
        anthropic.messages.stream(model=f"{model}?error=6", messages=MESSAGES, max_tokens=99) as stream,
    ):
        list(stream)
    body: Any = caught.value.body
    assert body["error"]["message"]


# ---- clients that are large, or not of this language: each in a process of its own


@pytest.fixture(scope="session")
def python(root: Path) -> Callable[..., Any]:
    """Gives what a program prints as JSON. Its environment has the clients of the group `clients`, installed once."""
    folder = root / "target" / "python-clients"
    program, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists():
        install = [str(program), "-m", "pip", "install", "--quiet"]
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [*install, "pip>=25.1"],
            [*install, "--group", f"{root / 'pyproject.toml'}:clients"],
        ):
            made = subprocess.run(command, check=False, capture_output=True, text=True, timeout=400)
            if made.returncode:
                pytest.skip(f"external: pip installs no further clients here: {made.stderr.strip()[-200:]}")
        ready.touch()

    def run(code: str, *words: str) -> Any:
        command = [str(program), "-c", textwrap.dedent(code), *words]
        ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout.splitlines()[-1])

    return run


@pytest.mark.timeout(900)
def test_litellm(shared: Any, key: str, python: Callable[..., Any]) -> None:
    code = """
        import asyncio, json, os, sys
        os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
        import litellm
        base, key = sys.argv[1:]
        asked = dict(messages=[{"role": "user", "content": "Hello"}], api_base=base, api_key=key)
        whole = litellm.completion("openai/fast", **asked)
        chunks = list(litellm.completion("openai/anthropic/hello", stream=True,
                                         stream_options={"include_usage": True}, **asked))
        built = litellm.stream_chunk_builder(chunks)
        async def main():
            stream = await litellm.acompletion("openai/chat/parallel-tools", stream=True, **asked)
            return litellm.stream_chunk_builder([chunk async for chunk in stream])
        tools = asyncio.run(main())
        try:
            litellm.completion("openai/chat/hello?status=429", num_retries=0, max_retries=0, **asked)
        except Exception as error:
            raised = type(error).__name__
        arguments = [call.function.arguments for call in tools.choices[0].message.tool_calls]
        print(json.dumps([whole.choices[0].message.content, built.choices[0].message.content,
                          built.usage.total_tokens, arguments, raised]))
    """
    whole, streamed, total, arguments, raised = python(code, shared.base_url, key)
    assert (whole, streamed, raised) == (HELLO, HELLO, "RateLimitError")
    assert total > 0
    assert [json.loads(each)["city"] for each in arguments] == CITIES


@pytest.mark.timeout(900)
def test_langchain(shared: Any, key: str, python: Callable[..., Any]) -> None:
    code = """
        import json, sys
        from langchain_openai import ChatOpenAI
        base, key = sys.argv[1:]
        def model(name, **options):
            return ChatOpenAI(model=name, base_url=base, api_key=key, max_retries=0, **options)
        whole = model("fast").invoke("Hello")
        total = None
        for chunk in model("gemini/hello", stream_usage=True).stream("Hello"):
            total = chunk if total is None else total + chunk
        tools = model("anthropic/tools").invoke("Hello")
        print(json.dumps([whole.content, total.content, total.usage_metadata["total_tokens"],
                          [call["args"] for call in tools.tool_calls]]))
    """
    whole, streamed, total, arguments = python(code, shared.base_url, key)
    assert (whole, streamed) == (HELLO, HELLO)
    assert total > 0
    assert arguments == [json.loads(FORECAST), {}]


NODE = """
import OpenAI from "openai";
const [base, key] = process.argv.slice(2);
const client = new OpenAI({ baseURL: base, apiKey: key, maxRetries: 0 });
const messages = [{ role: "user", content: "Hello" }];
const whole = await client.chat.completions.create({ model: "fast", messages });
let text = "", usage = null;
const stream = await client.chat.completions.create({
  model: "anthropic/hello", messages, stream: true, stream_options: { include_usage: true } });
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
const runner = client.chat.completions.stream({ model: "chat/parallel-tools", messages });
const final = await runner.finalChatCompletion();
let raised = null;
try { await client.chat.completions.create({ model: "chat/hello?status=429", messages, stream: true }); }
catch (error) { raised = error.constructor.name; }
let middle = null;
try { for await (const _ of await client.chat.completions.create(
  { model: "chat/hello?error=5", messages, stream: true })); }
catch (error) { middle = error.constructor.name; }
console.log(JSON.stringify([whole.choices[0].message.content, text, usage.total_tokens,
  final.choices[0].message.tool_calls.map((call) => call.function.arguments), raised, middle]));
"""


@pytest.fixture(scope="session")
def node(root: Path) -> Path:
    """A folder with the package for Node, installed once."""
    if not shutil.which("npm") or not shutil.which("node"):
        pytest.skip("external: there is no npm here")
    folder = root / "target" / "node-clients"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "node_modules" / "openai").is_dir():
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-save", "--ignore-scripts", "openai@7"]
        ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100, cwd=folder)
        if ran.returncode:
            pytest.skip(f"external: npm installs nothing here: {(ran.stderr or ran.stdout).strip()[-200:]}")
    (folder / "client.mjs").write_text(NODE, encoding="utf-8")
    return folder


def test_node(shared: Any, key: str, node: Path) -> None:
    command = ["node", "client.mjs", shared.base_url, key]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, cwd=node)
    assert ran.returncode == 0, ran.stderr
    whole, streamed, total, arguments, raised, middle = json.loads(ran.stdout)
    assert (whole, streamed, raised, middle) == (HELLO, HELLO, "RateLimitError", "APIError")
    assert total > 0
    assert [json.loads(each)["city"] for each in arguments] == CITIES


def curl(*words: str) -> subprocess.CompletedProcess[str]:
    if not shutil.which("curl"):
        pytest.skip("external: there is no curl here")
    return subprocess.run(["curl", "-sS", "-N", "-i", *words], check=False, capture_output=True, text=True, timeout=60)


BODY = json.dumps({"model": "fast", "messages": MESSAGES, "stream": True, "stream_options": USAGE})


def test_curl(shared: Any, key: str, judge: Any) -> None:
    url = f"{shared.base_url}/chat/completions"
    words = (url, "-H", f"Authorization: Bearer {key}", "-H", "Content-Type: application/json")
    ran = curl(*words, "-d", BODY)
    assert ran.returncode == 0, ran.stderr
    head, _, body = ran.stdout.replace("\r\n", "\n").partition("\n\n")
    assert head.startswith("HTTP/1.1 200 OK")
    assert judge(body.encode(), usage=True).text == HELLO
    # A large body is announced first, and sent when that is agreed to.
    large = json.dumps({"model": "fast", "messages": [{"role": "user", "content": "x" * (1 << 20)}], "stream": True})
    ran = subprocess.run(
        ["curl", "-sS", "-H", "Expect: 100-continue", *words, "-d", "@-"],
        input=large,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert judge(ran.stdout.encode(), usage=False).text == HELLO


@pytest.fixture
def secure(start: Any, config: dict[str, Any], tmp_path: Path) -> tuple[Any, Path]:
    """A proxy that speaks TLS, and whom to trust."""
    import trustme

    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1", "0.0.0.0")
    ca, cert, key = (tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem"))
    authority.cert_pem.write_to_path(ca)
    certificate.private_key_pem.write_to_path(key)
    for number, blob in enumerate(certificate.cert_chain_pems):
        blob.write_to_path(cert, append=number > 0)
    context = ssl.create_default_context(cafile=str(ca))
    return start(config, "--host", "0.0.0.0", certified=(cert, key), verify=context), ca


def test_curl_over_tls(secure: tuple[Any, Path], judge: Any) -> None:
    proxy, ca = secure
    words = ("-H", f"Authorization: Bearer {proxy.master}", "-H", "Content-Type: application/json", "-d", BODY)
    for host in ("0.0.0.0", "localhost", "127.0.0.1"):
        ran = curl("--cacert", str(ca), f"https://{host}:{proxy.port}/v1/chat/completions", *words)
        assert ran.returncode == 0, ran.stderr
        head, _, body = ran.stdout.replace("\r\n", "\n").partition("\n\n")
        assert " 200" in head.splitlines()[0]
        assert judge(body.encode(), usage=True).text == HELLO
    ran = curl(f"https://127.0.0.1:{proxy.port}/v1/models")
    assert ran.returncode == 60, "whoever does not know the authority does not trust it"


def test_httpx_over_one_connection(shared: Any, key: str, judge: Any) -> None:
    headers = {"authorization": f"Bearer {key}"}
    asked = {"model": "fast", "messages": MESSAGES}
    with httpx.Client(base_url=shared.url, headers=headers, limits=httpx.Limits(max_connections=1)) as client:
        ports = set()
        for number in range(30):
            streamed = number % 3 > 0
            path = ("/v1/chat/completions", "/chat/completions", "/engines/fast/chat/completions")[number % 3]
            with client.stream("POST", path, json={**asked, "stream": streamed}) as response:
                ports.add(response.extensions["network_stream"].get_extra_info("client_addr"))
                body = response.read()
            assert response.status_code == 200, body
            if streamed:
                assert judge(body, usage=False).text == HELLO
            else:
                assert json.loads(body)["choices"][0]["message"]["content"] == HELLO
        assert len(ports) == 1


def test_no_client_needs_a_body_of_a_certain_length(shared: Any, key: str, judge: Any) -> None:
    """Chunked, as some clients send it, and in pieces."""

    def pieces() -> Iterator[bytes]:
        for byte in BODY.encode():
            yield bytes([byte])

    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    response = httpx.post(f"{shared.base_url}/chat/completions", headers=headers, content=pieces())
    assert judge(response.content, usage=True).text == HELLO
