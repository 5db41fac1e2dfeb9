"""Models that continue a text, wherever they are hosted: what is asked, and what comes back."""

import json
from typing import Any

import httpx
import pytest

from penstock import (
    APIConnectionError,
    BadRequestError,
    ServiceUnavailableError,
    Timeout,
    UnsupportedParamsError,
    completion,
)
from penstock.replay import Upstream
from penstock.replay.cases import converse, invocations, text
from penstock.replay.cases.chat import ANSWER, HELLO

USER = {"role": "user", "content": "Hi"}
TALK = [
    {"role": "system", "content": "Be brief."},
    USER,
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "How high?"},
]
PROMPT = "Be brief.\n\nUser: Hi\n\nAssistant: Hello.\n\nUser: How high?\n\nAssistant:"
GIVEN: dict[str, Any] = {"max_tokens": 64, "temperature": 0.2, "stop": "END", "seed": 3}

HOSTS: dict[str, dict[str, Any]] = {
    "cloudflare": {"api_base": "https://api.cloudflare.com/client/v4/accounts/mine/ai/run"},
    "huggingface": {"api_base": "https://mine.endpoints.huggingface.cloud"},
    "predibase": {"tenant_id": "mine"},
    "sagemaker": {"aws_region_name": "eu-west-1"},
    "sagemaker_chat": {"aws_region_name": "eu-west-1"},
    "triton": {"api_base": "http://localhost:8000/v2/models/mine"},
}


def call(model: str, messages: list[Any], answer: httpx.Response, **options: Any) -> tuple[httpx.Request, Any]:
    """The request of a call, and what it gave: chunks, or the response."""
    requests: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return answer

    arguments = {"api_key": "k", "max_retries": 0, **HOSTS.get(model.partition("/")[0], {}), **options}
    with httpx.Client(transport=httpx.MockTransport(respond)) as client:
        given = completion(model, messages, client=client, **arguments)
        return requests[-1], list(given) if options.get("stream") else given


def sent(model: str, messages: list[Any] | None = None, **options: Any) -> tuple[str, Any]:
    """URL and body of a request."""
    answer = httpx.Response(200, json={"generated_text": "Hi"})
    request, _ = call(model, messages or TALK, answer, **options)
    return str(request.url), json.loads(request.content)


# What is asked -------------------------------------------------------------------------------------------------------


def test_completions() -> None:
    url, body = sent("text-completion-openai/davinci-002", **GIVEN, n=2, user="u")
    assert url == "https://api.openai.com/v1/completions"
    assert body == {"model": "davinci-002", "prompt": PROMPT, **GIVEN, "n": 2, "user": "u"}


def test_the_text_of_one_user_alone_is_the_prompt() -> None:
    assert sent("text-completion-openai/m", [USER])[1]["prompt"] == "Hi"
    parts = [{"role": "user", "content": [{"type": "text", "text": "def f("}, {"type": "text", "text": "x"}]}]
    url, body = sent("text-completion-codestral/codestral-latest", parts, seed=3, extra_body={"suffix": "return y"})
    assert url == "https://codestral.mistral.ai/v1/fim/completions"
    assert body == {"model": "codestral-latest", "prompt": "def f(x", "random_seed": 3, "suffix": "return y"}
    assert sent("text-completion-openai/m", [TALK[0]])[1]["prompt"] == "Be brief.\n\nAssistant:"


@pytest.mark.parametrize(
    ("model", "url"),
    [
        ("predibase/m", "https://serving.app.predibase.com/mine/deployments/v2/llms/m/generate"),
        ("huggingface/text-generation-inference/m", "https://mine.endpoints.huggingface.cloud/generate"),
        ("sagemaker/m", "https://runtime.sagemaker.eu-west-1.amazonaws.com/endpoints/m/invocations"),
    ],
)
def test_tokens(model: str, url: str) -> None:
    place, body = sent(model, **GIVEN, top_k=5, repetition_penalty=1.1)
    options = {"max_new_tokens": 64, "temperature": 0.2, "stop": ["END"], "seed": 3, "top_k": 5}
    assert place == url
    assert body == {"inputs": PROMPT, "parameters": {"details": True, **options, "repetition_penalty": 1.1}}


def test_text_input() -> None:
    options = {**GIVEN, "stop": ["END"]}
    for base, path in (("/v2/models/mine", "/v2/models/mine"), ("/v2/models/mine/generate", "/v2/models/mine")):
        url, body = sent("triton/m", **GIVEN, api_base=f"http://localhost:8000{base}")
        assert url == f"http://localhost:8000{path}/generate"
        assert body == {"text_input": PROMPT, "parameters": options}
        answer = httpx.Response(
            200,
            headers={"content-type": "text/event-stream"},
            content=b'data: {"text_output":"Hel"}\n\ndata: {"text_output":"lo"}\n\n',
        )
        base_url = f"http://localhost:8000{base}"
        request, chunks = call("triton/m", TALK, answer, api_base=base_url, stream=True)
        assert str(request.url) == f"http://localhost:8000{path}/generate_stream"
        assert json.loads(request.content) == {"text_input": PROMPT, "parameters": {}, "stream": True}
        assert [chunk.choices[0].delta.content for chunk in chunks] == ["Hel", "lo"]


def test_generation() -> None:
    place: dict[str, Any] = {"api_key": None, "token": "t", "watsonx_region_name": "eu-de", "project_id": "p"}
    url, body = sent("watsonx_text/org/m", **place, **GIVEN)
    options = {"max_new_tokens": 64, "temperature": 0.2, "stop_sequences": ["END"], "random_seed": 3}
    assert url == "https://eu-de.ml.cloud.ibm.com/ml/v1/text/generation?version=2024-10-08"
    assert body == {
        "input": PROMPT,
        "parameters": {**options, "decoding_method": "sample"},
        "model_id": "org/m",
        "project_id": "p",
    }
    assert sent("watsonx_text/org/m", **place, max_tokens=8)[1]["parameters"] == {"max_new_tokens": 8}
    answer = events(text.CASES["results"])
    request, chunks = call("watsonx_text/deployment/d1", TALK, answer, stream=True, **place)
    assert request.url.path == "/ml/v1/deployments/d1/text/generation_stream"
    assert set(json.loads(request.content)) == {"input", "parameters"}
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == HELLO


def test_chat_at_its_hosts() -> None:
    url, body = sent("cloudflare/@cf/meta/llama-3.1-8b-instruct", **GIVEN)
    assert url == "https://api.cloudflare.com/client/v4/accounts/mine/ai/run/@cf/meta/llama-3.1-8b-instruct"
    assert body == {"messages": TALK, **GIVEN}
    url, body = sent("sagemaker_chat/m", **GIVEN)
    assert url == "https://runtime.sagemaker.eu-west-1.amazonaws.com/endpoints/m/invocations"
    assert body == {"model": "m", "messages": TALK, **GIVEN}


def test_what_a_text_has_no_place_for_is_refused() -> None:
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.example/i.png"}}]}]
    for messages in (image, [USER, {"role": "tool", "tool_call_id": "c", "content": "x"}]):
        for model in ("text-completion-openai/m", "predibase/m", "sagemaker/m", "triton/m"):
            with pytest.raises(BadRequestError, match="continues a text"):
                sent(model, messages)
    tools = [{"type": "function", "function": {"name": "f"}}]
    for model in ("text-completion-openai/m", "predibase/m", "sagemaker/m", "triton/m"):
        with pytest.raises(UnsupportedParamsError, match="tools"):
            sent(model, tools=tools)


def test_the_component_of_an_endpoint_is_a_header() -> None:
    answer = httpx.Response(200, json={"generated_text": "Hi"})
    request, _ = call("sagemaker/m", TALK, answer, model_id="adapter-1")
    assert request.headers["x-amzn-sagemaker-inference-component"] == "adapter-1"


def test_signed_for_its_own_service() -> None:
    pytest.importorskip("botocore", reason="external: no botocore")
    keys = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "sk-0123456789", "api_key": None}
    answer = httpx.Response(200, json={"generated_text": "Hi"})
    request, _ = call("sagemaker/m", TALK, answer, **keys)
    assert "/eu-west-1/sagemaker/aws4_request" in request.headers["authorization"]


# What comes back -----------------------------------------------------------------------------------------------------


def events(case: Any, content_type: str = "text/event-stream") -> httpx.Response:
    body = b"".join(case.frames(asked=True, usage=True, done=True))
    return httpx.Response(200, headers={"content-type": content_type}, content=body)


@pytest.mark.parametrize(
    ("model", "case", "said", "total"),
    [
        ("cloudflare/@cf/m", "response", ANSWER, 50),
        ("huggingface/text-generation-inference/m", "tokens", HELLO, 106),
        ("predibase/m", "lines", HELLO, 106),
        ("text-completion-inception/m", "deltas", HELLO, 106),
    ],
)
def test_streams_and_responses(model: str, case: str, said: str, total: int) -> None:
    found = text.CASES[case]
    usage = {"stream_options": {"include_usage": True}}
    request, chunks = call(model, TALK, events(found), stream=True, **usage)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == said
    assert (chunks[-1].choices, chunks[-1].usage.completion_tokens > 0) == ([], True)
    assert request.url.path.endswith(("generate_stream", "/fim/completions", "/ai/run/@cf/m"))
    _, whole = call(model, TALK, httpx.Response(200, content=found.single(usage=True)))
    assert whole.choices[0].message.content == said
    assert whole.usage == chunks[-1].usage
    if total == 50:
        assert whole.usage.total_tokens == total


def test_a_response_may_be_a_list_of_one() -> None:
    details = {"finish_reason": "length", "generated_tokens": 20}
    body = [{"generated_text": "Hi", "details": details}]
    _, whole = call("sagemaker/m", TALK, httpx.Response(200, json=body))
    choice = whole.choices[0]
    assert (choice.message.content, choice.finish_reason, whole.usage.completion_tokens) == ("Hi", "length", 20)
    assert (whole.usage.prompt_tokens, whole.usage.total_tokens) == (None, None)


def test_an_answer_that_is_none_is_told() -> None:
    body = {"success": False, "errors": [{"code": 7003, "message": "No route for that URI"}], "messages": []}
    with pytest.raises(BadRequestError, match="No route"):
        call("cloudflare/m", TALK, httpx.Response(400, json=body))
    body = {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096", "error_type": "v"}
    with pytest.raises(BadRequestError, match="must be <= 4096") as caught:
        call("predibase/m", TALK, httpx.Response(422, json=body))
    assert type(caught.value).__name__ == "ContextWindowExceededError"


EVENT_STREAM = "application/vnd.amazon.eventstream"


@pytest.mark.parametrize("case", ["hello", "tokens", "lines"])
def test_parts(case: str) -> None:
    found = invocations.CASES[case]
    usage = {"stream_options": {"include_usage": True}}
    for slug in ("sagemaker", "sagemaker_chat"):
        request, chunks = call(f"{slug}/m", TALK, events(found, EVENT_STREAM), stream=True, **usage)
        assert request.url.path == "/endpoints/m/invocations-response-stream"
        body = json.loads(request.content)
        assert body["stream"] is True
        assert ("stream_options" in body) == (slug == "sagemaker_chat")
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == HELLO
        _, whole = call(f"{slug}/m", TALK, httpx.Response(200, content=found.single(usage=True)))
        assert chunks[-1].usage == whole.usage


@pytest.mark.parametrize(
    ("code", "error"), [("ModelInvocationTimeExceeded", Timeout), ("StreamBroken", ServiceUnavailableError)]
)
def test_an_exception_of_the_service(code: str, error: type[Exception]) -> None:
    frames = invocations.CASES["tokens"].frames(asked=True, usage=True, done=True)[:3]
    headers = {":message-type": "exception", ":exception-type": "ModelStreamError"}
    frames.append(converse.message(headers, json.dumps({"Message": "no more", "ErrorCode": code}).encode()))
    answer = httpx.Response(200, headers={"content-type": EVENT_STREAM}, content=b"".join(frames))
    with pytest.raises(error, match="no more"):
        call("sagemaker/m", TALK, answer, stream=True)
    cut = httpx.Response(200, headers={"content-type": EVENT_STREAM}, content=b"".join(frames[:3]))
    with pytest.raises(APIConnectionError):
        call("sagemaker/m", TALK, cut, stream=True)


def test_a_server_behind_the_service_that_knows_no_stream_options_is_asked_once_more() -> None:
    bodies: list[Any] = []

    def respond(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        if "stream_options" in bodies[-1]:
            message = 'Received client error (422) from primary with message "unknown field `stream_options`"'
            return httpx.Response(424, headers={"x-amzn-errortype": "ModelError"}, json={"Message": message})
        return events(invocations.CASES["hello"], EVENT_STREAM)

    with httpx.Client(transport=httpx.MockTransport(respond)) as client:
        place: dict[str, Any] = {"aws_region_name": "ap-south-1", "api_key": "k", "max_retries": 0}
        stream = completion("sagemaker_chat/m", TALK, stream=True, client=client, **place)
        assert stream.collect().choices[0].message.content == HELLO
    assert ["stream_options" in body for body in bodies] == [True, False]


def test_by_their_own_rows_against_the_local_upstream() -> None:
    with Upstream() as upstream:
        for model, said in (("predibase/tokens", HELLO), ("triton/m", ANSWER), ("sagemaker/lines", HELLO)):
            place: dict[str, Any] = {"api_key": "k", "max_retries": 0, **HOSTS[model.partition("/")[0]]}
            place |= {"api_base": upstream.base_url}
            for chunking in ("", "?chunk=random:5"):
                if model == "triton/m" and chunking:
                    continue
                streamed = completion(model + chunking, TALK, stream=True, **place).collect()
                assert streamed.choices[0].message.content == said
                assert completion(model, TALK, **place).choices[0].message.content == said
