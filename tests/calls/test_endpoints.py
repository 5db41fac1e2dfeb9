"""Embeddings and text completions: requests and answers of each family, and that they are calls as all others."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

import penstock
from penstock import BadRequestError, UnsupportedParamsError, aembedding, atext_completion, embedding, text_completion
from penstock.configuration import configured


class Server:
    """Answers each request with the next of its answers, and remembers what it was asked."""

    def __init__(self, *answers: Any, status: int = 200, kind: str = "application/json") -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []
        self.status = status
        self.kind = kind

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, int):
            return httpx.Response(answer, json={"error": {"message": "no"}})
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        return httpx.Response(self.status, content=content, headers={"content-type": self.kind})

    @property
    def client(self) -> httpx.Client:
        return httpx.Client(transport=httpx.MockTransport(self))

    @property
    def async_client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self))

    @property
    def body(self) -> Any:
        return json.loads(self.asked[-1].content)

    @property
    def url(self) -> str:
        return str(self.asked[-1].url)


OPENAI = {
    "object": "list",
    "model": "text-embedding-3-small",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}],
    "usage": {"prompt_tokens": 5, "total_tokens": 5},
}
GEMINI = {"embeddings": [{"values": [0.25, -0.5]}]}
COHERE = {"id": "x", "embeddings": {"float": [[0.25, -0.5]]}, "meta": {"billed_units": {"input_tokens": 5}}}
OLLAMA = {"model": "m", "embeddings": [[0.25, -0.5]], "prompt_eval_count": 5}


@pytest.mark.parametrize(
    ("model", "answer", "url", "body", "options"),
    [
        (
            "openai/text-embedding-3-small",
            OPENAI,
            "https://api.openai.com/v1/embeddings",
            {"model": "text-embedding-3-small", "input": "hi", "dimensions": 2, "encoding_format": "float"},
            {"encoding_format": "float"},
        ),
        (
            "azure/deployed",
            OPENAI,
            "https://x.openai.azure.com/openai/deployments/deployed/embeddings?api-version=2024-10-21",
            {"model": "deployed", "input": "hi", "dimensions": 2, "user": "ann"},
            {"api_base": "https://x.openai.azure.com", "user": "ann"},
        ),
        (
            "gemini/gemini-embedding-001",
            GEMINI,
            "https://generativelanguage.googleapis.com/v1beta/models/gemini-embedding-001:batchEmbedContents",
            {
                "requests": [
                    {
                        "model": "models/gemini-embedding-001",
                        "outputDimensionality": 2,
                        "taskType": "RETRIEVAL_QUERY",
                        "content": {"parts": [{"text": "hi"}]},
                    }
                ]
            },
            {"input_type": "search_query"},
        ),
        (
            "cohere/embed-v4.0",
            COHERE,
            "https://api.cohere.com/v2/embed",
            {
                "model": "embed-v4.0",
                "texts": ["hi"],
                "input_type": "search_document",
                "embedding_types": ["float"],
                "output_dimension": 2,
            },
            {},
        ),
        (
            "ollama/nomic-embed-text",
            OLLAMA,
            "http://localhost:11434/api/embed",
            {"model": "nomic-embed-text", "input": ["hi"], "dimensions": 2},
            {},
        ),
    ],
)
def test_each_family(model: str, answer: Any, url: str, body: Any, options: dict[str, Any]) -> None:
    server = Server(answer)
    response = embedding(model, "hi", dimensions=2, api_key="key-0123", client=server.client, **options)
    assert (server.url, server.body) == (url, body)
    assert response.object == "list"
    assert response.data[0]["embedding"] == [0.25, -0.5]
    assert response["data"][0].index == 0
    assert response.model
    if answer is not GEMINI:
        assert response.usage.prompt_tokens == response.usage.total_tokens == 5


def test_several_texts_and_asyncio() -> None:
    two = {"embeddings": [{"values": [1.0]}, {"values": [2.0]}]}
    server = Server(two)

    async def main() -> Any:
        return await aembedding("gemini/e", ["a", "b"], api_key="key-0123", client=server.async_client)

    assert [each.embedding for each in asyncio.run(main()).data] == [[1.0], [2.0]]
    assert [each["content"]["parts"][0]["text"] for each in server.body["requests"]] == ["a", "b"]


def test_tokens_are_for_those_that_do_as_openai() -> None:
    server = Server(OPENAI)
    embedding("openai/e", [[1, 2], [3]], api_key="key-0123", client=server.client)
    assert server.body["input"] == [[1, 2], [3]]
    with pytest.raises(UnsupportedParamsError, match="input must be texts"):
        embedding("ollama/e", [[1, 2]])


@pytest.mark.parametrize("model", ["claude-sonnet-4-5", "vertex_ai/x", "openai_responses/x"])
def test_who_has_none(model: str) -> None:
    with pytest.raises(BadRequestError, match="has no embeddings"):
        embedding(model, "hi", api_key="key-0123")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dimension": 3}, "did you mean dimensions"),
        ({"temperature": 1}, "unknown keyword temperature"),
        ({"user": "ann"}, "has no parameter user"),
        ({"encoding_format": "base64"}, "here are floats only"),
        ({"input": []}, "input must be a text"),
    ],
)
def test_what_cannot_be(options: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRequestError, match=says):
        embedding(**{"model": "ollama/e", "input": "hi", **options})


def test_it_is_a_call_as_any_other() -> None:
    ends: list[Any] = []

    class Meter:
        def ended(self, call: Any, end: Any) -> None:
            ends.append((call.operation, end.how, end.usage and end.usage.prompt_tokens, len(end.attempts)))

    server = Server(503, OPENAI)
    with configured(hooks=[Meter()], keep_partial=True, estimate_usage=True, max_retries=1):
        embedding("openai/e", "hi", api_key="key-0123", client=server.client)
    assert ends == [("embeddings", "complete", 5, 2)]
    with pytest.raises(penstock.RateLimitError, match="no") as caught:
        embedding("openai/e", "hi", api_key="key-0123", client=Server(429).client, max_retries=0)
    assert caught.value.provider == "openai"
    server = Server(404, GEMINI)
    embedding("openai/e", "hi", api_key="key-0123", client=server.client, fallbacks=["gemini/e"])
    assert server.url.endswith("/models/e:batchEmbedContents")


@pytest.mark.parametrize("answer", [{"embeddings": 7}, {"data": 7}, [], b"<html>"])
@pytest.mark.parametrize("model", ["openai/e", "gemini/e", "cohere/e", "ollama/e"])
def test_an_answer_that_is_none(answer: Any, model: str) -> None:
    with pytest.raises(penstock.APIResponseValidationError):
        embedding(model, "hi", api_key="key-0123", client=Server(answer).client)


# Text completions

DOCUMENT = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1,
    "model": "m",
    "choices": [{"text": "Hi you", "index": 0, "logprobs": None, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4},
}


def piece(text: str, finish: str | None = None) -> dict[str, Any]:
    choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": finish}
    return {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}


EVENTS = [piece("Hi"), piece(" you"), piece("", "stop"), {**piece(""), "choices": [], "usage": DOCUMENT["usage"]}]
STREAM = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in EVENTS) + b"data: [DONE]\n\n"
OPTIONS: dict[str, Any] = {"api_key": "key-0123", "max_retries": 0}


def test_a_text_completion() -> None:
    server = Server(DOCUMENT)
    response: Any = text_completion("openai/m", "Say", max_tokens=5, suffix="!", client=server.client, **OPTIONS)
    assert server.url == "https://api.openai.com/v1/completions"
    assert server.body == {"model": "m", "prompt": "Say", "max_tokens": 5, "suffix": "!"}
    assert response == DOCUMENT
    assert response.choices[0].text == "Hi you"
    assert response["usage"]["total_tokens"] == 4


@pytest.mark.parametrize("body", [STREAM, json.dumps(DOCUMENT).encode()])
def test_a_streamed_text_completion(body: bytes) -> None:
    kind = "text/event-stream" if body is STREAM else "application/json"

    def stream() -> Any:
        server = Server(body, kind=kind)
        answer = text_completion("openai/m", "Say", stream=True, client=server.client, **OPTIONS)
        assert server.body["stream_options"] == {"include_usage": True}
        return answer

    first = stream()
    chunks = list(first)
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Hi you"
    assert {chunk.object for chunk in chunks} == {"text_completion"}
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert "delta" not in chunks[0].choices[0]
    assert first.usage.total_tokens == 4
    assert "".join(stream().text()) == "Hi you"
    whole = stream().collect()
    assert (whole.object, whole.choices[0].text, whole.usage.total_tokens) == ("text_completion", "Hi you", 4)


def test_the_usage_chunk_of_text() -> None:
    server = Server(STREAM, kind="text/event-stream")
    include: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    stream: Any = text_completion("openai/m", "Say", client=server.client, **include, **OPTIONS)
    *_, last = stream
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 2


def test_text_under_asyncio() -> None:
    def client() -> httpx.AsyncClient:
        return Server(STREAM, kind="text/event-stream").async_client

    async def main() -> tuple[str, str, Any]:
        stream: Any = await atext_completion("openai/m", "Say", stream=True, client=client(), **OPTIONS)
        chunks = "".join([chunk.choices[0].text async for chunk in stream])
        stream = await atext_completion("openai/m", "Say", stream=True, client=client(), **OPTIONS)
        text = "".join([piece async for piece in stream.text()])
        stream = await atext_completion("openai/m", "Say", stream=True, client=client(), **OPTIONS)
        return chunks, text, await stream.collect()

    chunks, text, whole = asyncio.run(main())
    assert chunks == text == whole.choices[0].text == "Hi you"


def test_a_text_that_is_cut() -> None:
    server = Server(STREAM[:200], kind="text/event-stream")
    stream = text_completion("openai/m", "Say", stream=True, client=server.client, **OPTIONS)
    with pytest.raises(penstock.APIConnectionError) as caught:
        list(stream)
    assert caught.value.partial is not None
    assert caught.value.partial.choices[0].message.content == "Hi"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: text_completion("claude-sonnet-4-5", "Say", api_key="k" * 9), "has no text_completion"),
        (lambda: text_completion("openai/m", None, api_key="k" * 9), "prompt must be a text"),
        (lambda: text_completion("openai/m", "Say", api_key="k" * 9, sufix="!"), "did you mean suffix"),
    ],
)
def test_text_that_cannot_be(call: Callable[[], Any], says: str) -> None:
    with pytest.raises(BadRequestError, match=says):
        call()
