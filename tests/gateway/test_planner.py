"""The planner: what a client may say, and what becomes of it."""

import asyncio
import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from penstock.call import CHAT
from penstock.gateway.compile import Compiled, tables_of
from penstock.gateway.config import Config, parse
from penstock.gateway.planner import Planner
from penstock.gateway.telling import MOST, Telling
from penstock.providers.registry import RowOptions

KEY = "sk-test-0123456789"
MESSAGES = [{"role": "user", "content": "Hello"}]
ENTRA = {"tenant_id": "t", "client_id": "c", "client_secret": "the-secret-of-the-client"}


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "OPENAI_", "ANTHROPIC_"))]:
        monkeypatch.delenv(name)


class Job:
    """A job as the native module has it."""

    def __init__(self, deployment: str, body: dict[str, Any], model: str = "m", operation: Any = "chat") -> None:
        self.id = "req_1"
        self.deployment = deployment
        self.operation = operation
        self.model = model
        self.stream_options = True
        self.body = json.dumps({"model": "asked", "messages": MESSAGES, **body}).encode()
        self.url = ""
        self.headers: dict[str, str] = {}
        self.sent: dict[str, Any] = {}
        self.how: dict[str, Any] = {}
        self.refused: dict[str, Any] | None = None
        self.done = threading.Event()

    def plan(self, url: str, headers: Any, body: bytes, /, **how: Any) -> None:
        self.url, self.headers, self.sent, self.how = url, dict(headers), json.loads(body), how
        self.done.set()

    def refuse(self, status: int, message: str, /, **more: Any) -> None:
        self.refused = {"status": status, "message": message, **more}
        self.done.set()


def compiled(*entries: dict[str, Any], **sections: Any) -> Compiled:
    config = Config("config.yaml")
    parse(json.dumps({"model_list": entries, **sections}), config, dict(os.environ))
    found = tables_of(config)
    assert found is not None, [str(problem) for problem in config.problems]
    return found


def entry(model: str, **params: Any) -> dict[str, Any]:
    return {"model_name": "m", "litellm_params": {"model": model, "api_key": KEY, **params}}


Plan = Callable[..., Job]


@pytest.fixture
def plan() -> Iterator[Plan]:
    """Plans a client's fields for a deployment of this model with these parameters."""
    planners: list[Planner] = []

    def plan(
        model: str,
        fields: dict[str, Any],
        asked: str = "m",
        operation: str = "chat",
        stream_options: bool = True,
        **params: Any,
    ) -> Job:
        planner = Planner(compiled(entry(model, **params)).deployments)
        planners.append(planner)
        job = Job("m#0", fields, asked, operation)
        job.stream_options = stream_options
        planner.plan(job)
        assert job.done.wait(10)
        return job

    yield plan
    for planner in planners:
        planner.close()


# What is sent ---------------------------------------------------------------------------------------------------------


def test_a_request_in_the_words_of_its_upstream(plan: Plan) -> None:
    job = plan("anthropic/claude-sonnet-4-5", {"stream": True, "max_completion_tokens": 7, "stop": "END"})
    assert job.url == "https://api.anthropic.com/v1/messages"
    assert (job.headers["x-api-key"], job.headers["accept"]) == (KEY, "text/event-stream")
    assert job.sent["max_tokens"] == 7
    assert (job.sent["model"], job.sent["stream"], job.sent["stop_sequences"]) == ("claude-sonnet-4-5", True, ["END"])
    assert job.how == {"family": "anthropic", "reasoning": "inside", "end": "finish", "answer_tool": None}


def test_the_dialect_and_the_answer_by_tool(plan: Plan) -> None:
    assert plan("xai/grok-4", {}).how["reasoning"] == "beside"
    job = plan("anthropic/claude-3-haiku-20240307", {"response_format": {"type": "json_object"}})
    assert job.how["answer_tool"] == job.sent["tool_choice"]["name"]


def test_the_usage_is_always_asked_for(plan: Plan) -> None:
    assert plan("openai/m", {"stream": True}).sent["stream_options"] == {"include_usage": True}
    asked = {"stream": True, "stream_options": {"include_usage": False, "include_obfuscation": False}}
    assert plan("openai/m", asked).sent["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert "stream_options" not in plan("openai/m", asked, stream_options=False).sent
    assert "stream_options" not in plan("mistral/m", asked).sent or "include_usage" not in str(
        plan("mistral/m", asked).sent["stream_options"]
    )
    assert "stream" not in plan("openai/m", {"stream": False}).sent


def test_what_is_null_is_not_said(plan: Plan) -> None:
    job = plan("openai/m", {"temperature": None, "api_key": None, "nonsense": None}, temperature=0.5)
    assert job.sent == {"model": "m", "messages": MESSAGES, "temperature": 0.5}


def test_a_client_goes_before_the_config_by_any_name(plan: Plan) -> None:
    job = plan("openai/m", {"max_completion_tokens": 5, "temperature": 1}, max_tokens=50, temperature=0, seed=3)
    assert job.sent == {"model": "m", "messages": MESSAGES, "max_completion_tokens": 5, "temperature": 1, "seed": 3}
    job = plan("hosted_vllm/m", {"max_tokens": 5}, api_base="http://localhost:1/v1", max_completion_tokens=50)
    assert job.sent == {"model": "m", "messages": MESSAGES, "max_tokens": 5}


def test_the_config_goes_before_a_client_in_extra_body(plan: Plan) -> None:
    params: dict[str, Any] = {"extra_body": {"a": 1}, "allowed_openai_params": ["a", "b"]}
    job = plan("openai/m", {"a": 2, "b": 3}, **params)
    assert (job.sent["a"], job.sent["b"]) == (1, 3)


def test_the_clients_name_stands_in_the_place_of_the_star() -> None:
    planner = Planner(
        compiled({"model_name": "az/*", "litellm_params": {**entry("azure/*")["litellm_params"], "api_base": "https://a"}})
        .deployments
    )  # fmt: skip
    job = Job("az/*#0", {}, "gpt-4o")
    planner.plan(job)
    assert job.url.startswith("https://a/openai/deployments/gpt-4o/chat/completions")
    job = Job("az/*#0", {}, "other?x=#/a b")
    planner.plan(job)
    assert job.url.startswith("https://a/openai/deployments/other%3Fx%3D%23/a%20b/chat/completions?api-version=")
    for name in ("../../other", "a/../b", ".."):
        job = Job("az/*#0", {}, name)
        planner.plan(job)
        assert job.refused is not None
    planner.close()


def test_tags_stay_here(plan: Plan) -> None:
    assert plan("openai/m", {"metadata": {"tags": ["paid"], "team": "a"}}).sent["metadata"] == {"team": "a"}
    assert "metadata" not in plan("openai/m", {"metadata": {"tags": ["paid"]}}).sent
    assert plan("openai/m", {"metadata": {"tags": "mine"}}).sent["metadata"] == {"tags": "mine"}


def test_dropped_parameters(plan: Plan) -> None:
    assert plan("openai/m", {"top_k": 3}, drop_params=True).sent == {"model": "m", "messages": MESSAGES}
    assert plan("openai/m", {"top_k": 3, "drop_params": True}).sent == {"model": "m", "messages": MESSAGES}
    assert plan("openai/m", {"top_k": 3, "allowed_openai_params": ["top_k"]}).sent["top_k"] == 3
    job = plan("openai/m", {"seed": 3, "n": 2, "additional_drop_params": ["n"]}, additional_drop_params=["seed"])
    assert job.sent == {"model": "m", "messages": MESSAGES}


def test_requests_of_the_messages_api(plan: Plan) -> None:
    system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    fields = {"max_tokens": 5, "system": system, "stop_sequences": ["END"], "stream": True}
    job = plan("openai/m", fields, operation="messages")
    # Each upstream in its own words: one knows marks for a cache, the other would refuse them.
    assert job.sent["messages"] == [{"role": "system", "content": "Be brief."}, *MESSAGES]
    assert (job.sent["max_completion_tokens"], job.sent["stop"], job.sent["stream"]) == (5, ["END"], True)
    job = plan("anthropic/claude-sonnet-4-5", fields, operation="messages")
    assert job.sent["system"] == system
    assert (job.sent["max_tokens"], job.sent["stop_sequences"], job.sent["stream"]) == (5, ["END"], True)
    fields = {"max_tokens": 5, "container": "c"}
    refused = plan("anthropic/claude-sonnet-4-5", fields, operation="messages").refused
    assert refused is not None
    assert (refused["status"], refused["param"]) == (400, "container")
    allowed = ["container"]
    job = plan("anthropic/claude-sonnet-4-5", fields, operation="messages", allowed_openai_params=allowed)
    assert job.sent["container"] == "c"


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted({*CHAT.options, *RowOptions.__optional_keys__, "base_url"}))
def test_nothing_of_a_clients_chooses_where_or_how(plan: Plan, name: str) -> None:
    allowed = {"drop_params", "additional_drop_params", "allowed_openai_params"}
    for fields in ({name: "x"}, {"extra_body": {name: "x"}}):
        job = plan("openai/m", fields, allowed_openai_params=[name])
        assert job.refused is not None
        assert (job.refused["status"], job.refused["name"]) == (400, "BadRequestError")
        assert job.refused["param"] == (name if name != "extra_body" or "extra_body" not in fields else "extra_body")
        if name not in allowed and name != "extra_body":
            assert "configuration" in job.refused["message"] or "not a client's" in job.refused["message"]


@pytest.mark.parametrize("name", ["model", "messages", "stream", "stream_options"])
def test_extra_body_is_no_way_around(plan: Plan, name: str) -> None:
    job = plan("openai/m", {"extra_body": {name: "other"}, "stream": True}, allowed_openai_params=[name])
    assert job.refused is not None
    assert job.sent == {}


def test_unknown_fields_name_the_nearest(plan: Plan) -> None:
    job = plan("openai/m", {"temprature": 1})
    assert job.refused == {
        "status": 400,
        "message": "unknown field temprature: did you mean temperature? (allowed_openai_params of the deployment lets "
        "others pass)",
        "name": "BadRequestError",
        "type": None,
        "param": "temprature",
        "code": None,
    }
    assert plan("openai/m", {"guided_json": {}}, allowed_openai_params=["guided_json"]).sent["guided_json"] == {}


def test_parameters_that_the_upstream_lacks(plan: Plan) -> None:
    job = plan("openai/m", {"top_k": 3})
    assert job.refused is not None
    assert (job.refused["name"], job.refused["param"]) == ("UnsupportedParamsError", "top_k")


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": "Hello"},
        {"messages": [1]},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        {"messages": None},
        {"tools": "all"},
        {"tools": [{"type": "function"}, 3]},
        {"drop_params": "yes"},
        {"additional_drop_params": "n"},
        {"extra_body": []},
        {"response_format": {"type": "regex"}},
    ],
)
def test_nonsense_is_the_clients_fault(plan: Plan, fields: dict[str, Any]) -> None:
    job = plan("anthropic/claude-3-haiku-20240307", fields)
    assert job.refused is not None
    assert job.refused["status"] == 400


@pytest.mark.parametrize("body", [b'{"messages":[],"seed":1e999}', b'{"messages":"\\ud83d"}', b'{"messages":"\xff"}'])
def test_json_that_is_none_is_the_clients_fault(body: bytes) -> None:
    planner = Planner(compiled(entry("openai/m")).deployments)
    job = Job("m#0", {})
    job.body = body
    planner.plan(job)
    assert job.refused is not None
    assert (job.refused["status"], job.refused["name"]) == (400, "BadRequestError")
    planner.close()


def test_what_nobody_foresaw_is_an_answer_too(plan: Plan, caplog: pytest.LogCaptureFixture) -> None:
    planner = Planner(compiled(entry("openai/m")).deployments)
    job = Job("nobody", {})
    planner.plan(job)
    assert job.refused is not None
    assert (job.refused["status"], job.refused["name"]) == (500, "InternalServerError")
    planner.close()


# Reloads --------------------------------------------------------------------------------------------------------------


def test_requests_that_have_begun_find_the_deployments_of_before() -> None:
    planner = Planner(compiled(entry("openai/old")).deployments)
    new = {**entry("openai/new"), "model_info": {"id": "new"}}
    planner.reload(compiled(new).deployments)
    for deployment, model in (("m#0", "old"), ("new", "new")):
        job = Job(deployment, {})
        planner.plan(job)
        assert job.sent["model"] == model
    planner.close()


# Tokens ---------------------------------------------------------------------------------------------------------------


class Authority(ThreadingHTTPServer):
    """Gives tokens, after a while."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked = 0
        self.open = threading.Event()
        self.status = 200


class Answer(BaseHTTPRequestHandler):
    server: Authority

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.asked += 1
        self.server.open.wait(10)
        body = json.dumps({"access_token": f"token-{self.server.asked}", "expires_in": 3600}).encode()
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def running_authority() -> Iterator[Authority]:
    with Authority() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.open.set()
        running.shutdown()


@pytest.fixture
def authority() -> Iterator[Authority]:
    with running_authority() as running:
        yield running


def with_a_token(authority: Authority) -> dict[str, Any]:
    params = {
        "model": "azure/m",
        "api_base": "https://mine.openai.azure.com",
        **ENTRA,
        "client_id": str(authority.server_port),  # a token of its own
        "azure_authority_host": f"http://127.0.0.1:{authority.server_port}",
    }
    return {"model_name": "t", "litellm_params": params}


def test_a_token_is_had_aside_and_kept(authority: Authority) -> None:
    planner = Planner(compiled(with_a_token(authority), entry("openai/m")).deployments)
    waiting = [Job("t#0", {}) for _ in range(12)]
    began = time.monotonic()
    for job in waiting:
        planner.plan(job)
    other = Job("m#0", {})
    planner.plan(other)
    assert other.done.is_set()
    assert time.monotonic() - began < 5
    assert not any(job.done.is_set() for job in waiting)
    authority.open.set()
    for job in waiting:
        assert job.done.wait(10)
        assert job.headers["authorization"] == "Bearer token-1"
    later = Job("t#0", {})
    planner.plan(later)
    assert later.done.is_set()
    assert authority.asked == 1
    planner.close()


def test_a_token_that_does_not_come_holds_up_no_other(authority: Authority) -> None:
    with running_authority() as other:
        other.open.set()
        entries = [with_a_token(authority), {**with_a_token(other), "model_name": "u"}]
        planner = Planner(compiled(*entries).deployments)
        waiting = [Job("t#0", {}) for _ in range(12)]
        for job in (*waiting, quick := Job("u#0", {})):
            planner.plan(job)
        assert quick.done.wait(5)
        assert not any(job.done.is_set() for job in waiting)
        authority.open.set()
        assert all(job.done.wait(10) for job in waiting)
        planner.close()


def one_more_is_refused(planner: Planner, authority: Authority, waiting: list[Job]) -> None:
    """And those before it have their answers once the authority has its own."""
    planner.plan(refused := Job("t#0", {}))
    assert refused.refused is not None
    assert (refused.refused["status"], refused.refused["name"]) == (503, "ServiceUnavailableError")
    authority.open.set()
    assert all(job.done.wait(10) and job.headers for job in waiting)
    planner.close()


def test_who_waits_for_a_token_is_not_without_number(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.gateway.planner.WAITING", 6)
    planner = Planner(compiled(with_a_token(authority)).deployments)
    waiting = [Job("t#0", {}) for _ in range(6)]
    for job in waiting:
        planner.plan(job)
    one_more_is_refused(planner, authority, waiting)


def test_who_waits_for_a_token_is_bounded_and_keeps_nobody_from_signing(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("botocore", reason="external: no botocore")
    monkeypatch.setattr("penstock.gateway.planner.WAITING", 6)
    keys = {"api_key": None, "aws_region_name": "eu-west-1", "aws_access_key_id": "A", "aws_secret_access_key": "S"}
    planner = Planner(compiled(with_a_token(authority), entry("bedrock/anthropic.claude-3-haiku", **keys)).deployments)
    waiting = [Job("t#0", {}) for _ in range(5)]
    for job in waiting:
        planner.plan(job)
    for _ in range(3):
        signed = Job("m#0", {})
        planner.plan(signed)
        assert signed.done.wait(10)
        assert signed.headers["authorization"].startswith("AWS4-HMAC-SHA256")
        time.sleep(0.05)  # its place is free a moment later
    waiting.append(Job("t#0", {}))
    planner.plan(waiting[-1])
    one_more_is_refused(planner, authority, waiting)


def test_a_token_that_was_not_accepted_is_forgotten(authority: Authority) -> None:
    authority.open.set()
    planner = Planner(compiled(with_a_token(authority)).deployments)
    tokens = []
    for status in (200, 401, 200):
        job = Job("t#0", {})
        planner.plan(job)
        assert job.done.wait(10)
        tokens.append(job.headers["authorization"])
        planner.observe([{"attempts": [{"deployment": "t#0", "status": status}]}, {"attempts": None}])
    assert tokens == ["Bearer token-1", "Bearer token-1", "Bearer token-2"]
    planner.close()


def test_a_token_that_is_not_given_is_an_error_without_the_secret(authority: Authority) -> None:
    authority.status = 401
    authority.open.set()
    planner = Planner(compiled(with_a_token(authority)).deployments)
    job = Job("t#0", {})
    planner.plan(job)
    assert job.done.wait(10)
    assert job.refused is not None
    assert (job.refused["status"], job.refused["name"]) == (401, "AuthenticationError")
    assert ENTRA["client_secret"] not in str(job.refused)
    planner.close()


def test_signatures_are_made_for_each_request(plan: Plan) -> None:
    pytest.importorskip("botocore", reason="external: no botocore")
    params = {"api_key": None, "aws_region_name": "eu-west-1", "aws_access_key_id": "A", "aws_secret_access_key": "S"}
    job = plan("bedrock/anthropic.claude-3-haiku", {"stream": True}, **params)
    assert job.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=A/")
    assert job.url.endswith("/converse-stream")


def test_requests_that_began_before_two_reloads_are_planned() -> None:
    planner = Planner(compiled(entry("openai/m")).deployments)
    for name in ("a", "b"):
        planner.reload(compiled({**entry("openai/other"), "model_name": name}).deployments)
    job = Job("m#0", {})
    planner.plan(job)
    assert job.sent["model"] == "m"
    planner.close()


# Hooks ----------------------------------------------------------------------------------------------------------------


class Hook:
    def __init__(self) -> None:
        self.told: list[Any] = []

    def started(self, call: Any) -> None:
        self.told.append(call)

    async def ended(self, call: Any, end: Any) -> None:
        self.told.append((call, end))


def test_hooks_are_told_once_of_start_and_end() -> None:
    hook = Hook()
    telling = Telling([hook])
    planner = Planner(compiled(entry("openai/m")).deployments, telling)
    for _ in range(2):  # two attempts
        planner.plan(Job("m#0", {"temperature": 1, "stream": True}))
    (call,) = hook.told
    assert (call.id, call.provider, call.model, call.stream) == ("req_1", "openai", "m", True)
    assert (call.input, call.parameters) == (MESSAGES, {"temperature": 1})
    row = {
        "id": "req_1", "outcome": "complete", "provider": "openai", "model": "m", "seconds": 1.5, "prompt_tokens": 3,
        "completion_tokens": 4, "total_tokens": 7, "usage_complete": True, "status": 200,
        "attempts": [{"deployment": "m#0", "status": 200, "error": None, "seconds": 1.0}],
    }  # fmt: skip
    telling.observe([row, {**row, "id": "req_2", "outcome": "refused", "error": "RateLimitError", "status": 429}])
    telling.close(10)
    (same, end), (other, refused) = hook.told[1:]
    assert same is call
    assert (end.how, end.usage.total_tokens, end.seconds, len(end.attempts)) == ("complete", 7, 1.5, 1)
    assert (other.id, other.input, refused.how) == ("req_2", None, "failed")
    assert type(refused.error).__name__ == "RateLimitError"
    planner.close()


def test_a_hook_that_fails_is_not_the_requests_fault(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def started(self, call: Any) -> None:
            raise RuntimeError("broken")

    planner = Planner(compiled(entry("openai/m")).deployments, Telling([Broken()]))
    job = Job("m#0", {})
    planner.plan(job)
    assert job.sent
    planner.close()


class Exits:
    """A hook that would end a thread."""

    def started(self, call: Any) -> None:
        sys.exit(3)

    async def ended(self, call: Any, end: Any) -> None:
        raise asyncio.CancelledError


def test_a_hook_ends_no_thread_of_the_gateways(caplog: pytest.LogCaptureFixture) -> None:
    telling, hook = Telling([Exits()]), Hook()
    planner = Planner(compiled(entry("openai/m")).deployments, telling)
    job = Job("m#0", {})
    planner.plan(job)
    assert job.sent
    telling.observe([{"id": "req_1"}])
    telling.reload([hook])
    telling.observe([{"id": "req_2"}])
    telling.close(10)
    ((call, _),) = hook.told
    assert call.id == "req_2"
    planner.close()


def test_a_hook_that_does_not_return_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    over = threading.Event()

    class Waits:
        def ended(self, call: Any, end: Any) -> None:
            over.wait(60)

    telling = Telling([Waits()])
    with caplog.at_level("WARNING", "penstock.gateway"):
        telling.observe([{"id": str(number)} for number in range(MOST + 10)])
        telling.observe([{"id": "another"}])
        telling.close(0.1)
    over.set()
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "hooks are slower than requests: they are not told of every end"
    assert "one does not return" in said[-1]
    assert len(said) == 2
