"""What the families gemini, cohere and ollama are sent: golden bodies, URLs and headers."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from penstock import BadRequestError, ChatCompletionMessage, UnsupportedParamsError, completion

MESSAGES = [{"role": "user", "content": "Hello"}]
CALL = {"id": "abc", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object", "$defs": {}}, "strict": True},
}
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "developer", "content": [{"type": "text", "text": "Truly."}]},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": None, "reasoning_content": "Hm", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "abc", "content": "sunny"},
    {"role": "user", "content": [{"type": "text", "text": "And this?"}]},
]
PNG = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "X", "schema": SCHEMA}}


@dataclasses.dataclass
class Point:
    x: int


def sent(model: str, messages: Any = MESSAGES, **options: Any) -> httpx.Request:
    """The request of a call, which is answered with a refusal."""
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(400, json={"error": "enough"})

    with httpx.Client(transport=httpx.MockTransport(answer)) as client, pytest.raises(BadRequestError, match="enough"):
        completion(model, messages, client=client, **{"api_key": "k", **options})
    return requests[-1]


def body(model: str, messages: Any = MESSAGES, **options: Any) -> Any:
    return json.loads(sent(model, messages, **options).content)


def refused(model: str, messages: Any = MESSAGES, **options: Any) -> BadRequestError:
    with pytest.raises(BadRequestError) as caught:
        completion(model, messages, api_key="k", **options)
    assert "enough" not in str(caught.value)
    return caught.value


# Gemini --------------------------------------------------------------------------------------------------------------


def test_gemini_is_asked_at_the_model_s_url() -> None:
    base = "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash"
    request = sent("gemini/gemini-2.5-flash")
    assert str(request.url) == f"{base}:generateContent"
    assert request.headers["x-goog-api-key"] == "k"
    assert "authorization" not in request.headers
    assert json.loads(request.content) == {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
    streamed = sent("gemini-2.5-flash", stream=True, extra_query={"a": 1}, stream_options={"include_usage": True})
    assert str(streamed.url) == f"{base}:streamGenerateContent?alt=sse&a=1"
    assert streamed.content == request.content


@pytest.mark.parametrize(
    ("location", "host"),
    [
        (None, "aiplatform.googleapis.com"),
        ("europe-west4", "europe-west4-aiplatform.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
    ],
)
def test_vertex_is_asked_at_its_location(location: str | None, host: str) -> None:
    request = sent("vertex_ai/gemini-2.5-pro", vertex_project="p", vertex_location=location, api_key="token")
    path = f"/v1/projects/p/locations/{location or 'global'}/publishers/google/models/gemini-2.5-pro:generateContent"
    assert str(request.url) == f"https://{host}{path}"
    assert request.headers["authorization"] == "Bearer token"


def test_gemini_turns() -> None:
    assert body("gemini/gemini-2.5-flash", TURNS) == {
        "systemInstruction": {"parts": [{"text": "Be brief."}, {"text": "Truly."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Hello"}]},
            {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"a": 1}, "id": "abc"}}]},
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"name": "f", "response": {"output": "sunny"}, "id": "abc"}},
                    {"text": "And this?"},
                ],
            },
        ],
    }


def test_gemini_answers_go_back_as_they_came() -> None:
    code = {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "s0"}
    answer = ChatCompletionMessage(
        {
            "role": "assistant",
            "content": "x",
            "content_parts": [code],
            "thought_signature": "s1",
            "images": [{**PNG, "thought_signature": "s2"}],
            "tool_calls": [{**CALL, "id": "call_0_abc_0", "thought_signature": "s3"}, CALL],
        }
    )
    [_, turn] = body("gemini/gemini-3-pro", [*MESSAGES, answer])["contents"]
    call = {"name": "f", "args": {"a": 1}}
    assert turn["parts"] == [
        code,
        {"text": "x", "thoughtSignature": "s1"},
        {"inlineData": {"mimeType": "image/png", "data": "QUJD"}, "thoughtSignature": "s2"},
        {"functionCall": call, "thoughtSignature": "s3"},
        {"functionCall": {**call, "id": "abc"}},
    ]


def test_gemini_3_gets_a_stand_in_for_a_lost_signature() -> None:
    answer = {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]}
    [_, turn] = body("gemini/gemini-3-flash-preview", [*MESSAGES, answer])["contents"]
    assert [part.get("thoughtSignature") for part in turn["parts"]] == ["skip_thought_signature_validator", None]
    foreign = {**CALL, "extra_content": {"google": {"thought_signature": "s"}}}
    [_, turn] = body("gemini/gemini-3-pro", [*MESSAGES, {**answer, "tool_calls": [foreign]}])["contents"]
    assert turn["parts"][0]["thoughtSignature"] == "s"


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (PNG, {"inlineData": {"mimeType": "image/png", "data": "QUJD"}}),
        (
            {"type": "image_url", "image_url": {"url": "https://a/b.jpg?c=d"}},
            {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://a/b.jpg?c=d"}},
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            {"inlineData": {"mimeType": "audio/wav", "data": "AA=="}},
        ),
        (
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA=="}},
            {"inlineData": {"mimeType": "application/pdf", "data": "AA=="}},
        ),
        (
            {"type": "file", "file": {"file_data": "AA==", "filename": "a.pdf"}},
            {"inlineData": {"mimeType": "application/pdf", "data": "AA=="}},
        ),
        (
            {"type": "file", "file": {"file_id": "gs://b/c.mp4", "format": "video/mp4"}},
            {"fileData": {"mimeType": "video/mp4", "fileUri": "gs://b/c.mp4"}},
        ),
        ({"fileData": {"fileUri": "gs://b/c"}}, {"fileData": {"fileUri": "gs://b/c"}}),
    ],
)
def test_gemini_parts(part: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    [turn] = body("gemini/gemini-2.5-flash", [{"role": "user", "content": [part]}])["contents"]
    assert turn["parts"] == [expected]


def test_gemini_parameters() -> None:
    sent_body = body(
        "gemini/gemini-2.5-flash",
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        n=2,
        seed=1,
        stop="x",
        max_completion_tokens=7,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        logprobs=True,
        top_logprobs=3,
        modalities=["text", "image"],
        response_format=JSON_SCHEMA,
        service_tier="flex",
    )
    assert sent_body["serviceTier"] == "flex"
    assert sent_body["generationConfig"] == {
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 5,
        "candidateCount": 2,
        "seed": 1,
        "stopSequences": ["x"],
        "maxOutputTokens": 7,
        "presencePenalty": 0.1,
        "frequencyPenalty": 0.2,
        "responseLogprobs": True,
        "logprobs": 3,
        "responseModalities": ["TEXT", "IMAGE"],
        "responseMimeType": "application/json",
        "responseJsonSchema": SCHEMA,
    }
    of_type = body("gemini/gemini-2.5-flash", response_format=Point)["generationConfig"]["responseJsonSchema"]
    assert of_type["properties"] == {"x": {"type": "integer"}}


@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        ("gemini-2.5-flash", {"reasoning_effort": "none"}, {"thinkingBudget": 0}),
        ("gemini-2.5-pro", {"reasoning_effort": "high"}, {"thinkingBudget": 24576, "includeThoughts": True}),
        ("gemini-3-pro-preview", {"reasoning_effort": "none"}, {"thinkingLevel": "low"}),
        ("gemini-3.5-flash", {"reasoning_effort": "none"}, {"thinkingLevel": "minimal"}),
        ("gemini-3.5-flash", {"reasoning_effort": "xhigh"}, {"thinkingLevel": "high", "includeThoughts": True}),
        (
            "gemini-2.5-pro",
            {"thinking": {"type": "enabled", "budget_tokens": 128}},
            {"thinkingBudget": 128, "includeThoughts": True},
        ),
        ("gemini-2.5-pro", {"thinking": {"type": "disabled"}}, {"thinkingBudget": 0}),
    ],
)
def test_gemini_thinking(model: str, options: dict[str, Any], expected: Mapping[str, Any]) -> None:
    assert body(f"gemini/{model}", **options)["generationConfig"]["thinkingConfig"] == expected


def test_gemini_tools() -> None:
    search: dict[str, Any] = {"googleSearch": {}}
    sent_body = body("gemini/gemini-2.5-flash", tools=[TOOL, search], tool_choice=None)
    declaration = {"name": "f", "description": "d", "parametersJsonSchema": {"type": "object", "$defs": {}}}
    assert sent_body["tools"] == [{"functionDeclarations": [declaration]}, search]
    assert sent_body["toolConfig"] == {"functionCallingConfig": {"mode": "VALIDATED"}}
    loose = {"type": "function", "function": {"name": "f"}}
    choices: list[tuple[Any, Any]] = [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ({"type": "function", "function": {"name": "f"}}, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
    ]
    for choice, expected in choices:
        sent_body = body("gemini/gemini-2.5-flash", tools=[loose], tool_choice=choice)
        assert sent_body["toolConfig"] == {"functionCallingConfig": expected}
    assert "toolConfig" not in body("gemini/gemini-2.5-flash", tools=[loose])


def test_gemini_refuses_what_it_cannot_say() -> None:
    model = "gemini/gemini-2.5-flash"
    assert "has the id 'zzz'" in str(refused(model, [{"role": "tool", "tool_call_id": "zzz", "content": ""}]))
    assert "'poem'" in str(refused(model, [{"role": "user", "content": [{"type": "poem"}]}]))
    assert "unknown role" in str(refused(model, [{"role": "wizard", "content": ""}]))
    broken = {**CALL, "function": {"name": "f", "arguments": "{"}}
    assert "no JSON" in str(refused(model, [{"role": "assistant", "tool_calls": [broken]}]))
    with pytest.raises(UnsupportedParamsError):
        completion(model, MESSAGES, api_key="k", logit_bias={"1": 1})


# Cohere --------------------------------------------------------------------------------------------------------------


def test_cohere_turns() -> None:
    request = sent("command-a-03-2025", TURNS, stream=True, stream_options={"include_usage": True})
    assert str(request.url) == "https://api.cohere.com/v2/chat"
    assert request.headers["authorization"] == "Bearer k"
    assert json.loads(request.content) == {
        "model": "command-a-03-2025",
        "stream": True,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "system", "content": "Truly."},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "tool_plan": "Hm", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "abc", "content": "sunny"},
            {"role": "user", "content": [{"type": "text", "text": "And this?"}]},
        ],
    }


def test_cohere_answers_go_back_with_their_thinking() -> None:
    citation = {"start": 0, "end": 1, "text": "x", "sources": []}
    answer = {"role": "assistant", "content": "x", "reasoning_content": "Hm", "citations": [citation]}
    assert body("cohere/c", [*MESSAGES, answer])["messages"][1] == {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": "x"}],
        "citations": [citation],
    }


def test_cohere_parameters() -> None:
    sent_body = body(
        "cohere/command-a",
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        seed=1,
        stop="x",
        max_completion_tokens=7,
        logprobs=True,
        tools=[TOOL],
        tool_choice="required",
        response_format=JSON_SCHEMA,
        thinking={"type": "enabled", "budget_tokens": 9},
    )
    function = {name: value for name, value in TOOL["function"].items() if name != "strict"}  # type: ignore[attr-defined]
    assert sent_body == {
        "model": "command-a",
        "messages": MESSAGES,
        "stream": False,
        "temperature": 0.5,
        "p": 0.9,
        "k": 5,
        "seed": 1,
        "stop_sequences": ["x"],
        "max_tokens": 7,
        "logprobs": True,
        "tools": [{"type": "function", "function": function}],
        "strict_tools": True,
        "tool_choice": "REQUIRED",
        "response_format": {"type": "json_object", "json_schema": SCHEMA},
        "thinking": {"type": "enabled", "token_budget": 9},
    }
    assert body("cohere/c", reasoning_effort="none")["thinking"] == {"type": "disabled"}
    assert "tool_choice" not in body("cohere/c", tools=[TOOL], tool_choice="auto")


def test_cohere_refuses_what_it_cannot_say() -> None:
    with pytest.raises(UnsupportedParamsError):
        completion("cohere/c", MESSAGES, api_key="k", tool_choice={"type": "function", "function": {"name": "f"}})
    with pytest.raises(UnsupportedParamsError):
        completion("cohere/c", MESSAGES, api_key="k", n=2)
    assert "'input_audio'" in str(refused("cohere/c", [{"role": "user", "content": [{"type": "input_audio"}]}]))


# Ollama --------------------------------------------------------------------------------------------------------------


def test_ollama_turns() -> None:
    request = sent("ollama/qwen3:4b", [*TURNS, {"role": "user", "content": [PNG]}], api_key=None)
    assert str(request.url) == "http://localhost:11434/api/chat"
    assert "authorization" not in request.headers
    assert json.loads(request.content) == {
        "model": "qwen3:4b",
        "stream": False,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "system", "content": "Truly."},
            {"role": "user", "content": "Hello"},
            {
                "role": "assistant",
                "content": "",
                "thinking": "Hm",
                "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}],
            },
            {"role": "tool", "content": "sunny", "tool_name": "f"},
            {"role": "user", "content": "And this?"},
            {"role": "user", "content": "", "images": ["QUJD"]},
        ],
    }


def test_ollama_parameters() -> None:
    sent_body = body(
        "ollama/m",
        stream=True,
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        min_p=0.1,
        seed=1,
        stop=["x"],
        max_tokens=7,
        repetition_penalty=1.1,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        logprobs=True,
        top_logprobs=2,
        tools=[TOOL],
        response_format={"type": "json_object"},
        reasoning_effort="high",
    )
    assert sent_body == {
        "model": "m",
        "messages": MESSAGES,
        "stream": True,
        "tools": [TOOL],
        "format": "json",
        "think": "high",
        "logprobs": True,
        "top_logprobs": 2,
        "options": {
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 5,
            "min_p": 0.1,
            "seed": 1,
            "num_predict": 7,
            "presence_penalty": 0.1,
            "frequency_penalty": 0.2,
            "repeat_penalty": 1.1,
            "stop": ["x"],
        },
    }
    assert body("ollama/m", response_format=JSON_SCHEMA)["format"] == SCHEMA
    assert body("ollama/m", thinking={"type": "enabled"})["think"] is True
    assert body("ollama/m", reasoning_effort="none")["think"] is False


def test_ollama_refuses_what_it_cannot_say() -> None:
    for name, value in {"tool_choice": "auto", "n": 2}.items():
        with pytest.raises(UnsupportedParamsError):
            completion("ollama/m", MESSAGES, **{name: value})  # type: ignore[call-overload]
    image = {"type": "image_url", "image_url": {"url": "https://a/b.png"}}
    assert "data URLs" in str(refused("ollama/m", [{"role": "user", "content": [image]}]))


def test_a_server_at_home_is_nobody_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "home")
    request = sent("openai/m", api_key=None, api_base="http://localhost:8000/v1")
    assert request.headers["authorization"] == "Bearer home"
