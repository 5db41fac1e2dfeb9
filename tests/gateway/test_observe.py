"""Lines and spans made of spend rows: what is in them, and what never is."""

import io
import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from penstock.gateway.observe import WAITING, AccessLog, Spans

Row = Callable[..., dict[str, Any]]
Until = Callable[[Callable[[], Any]], None]

SECRET = {"key": "a" * 64, "user": "somebody@example.org"}


def line(form: str, row: dict[str, Any], name: str | None = None) -> str:
    file = io.StringIO()
    requests = AccessLog(form, file, name_of=lambda _: name)
    requests.observe([row])
    requests.close(5)
    (only,) = file.getvalue().splitlines()
    return only


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_line_tells_who_it_was(form: str, row: Row) -> None:
    said = line(form, row(**SECRET), "alice")
    assert "alice" in said
    assert not any(secret in said for secret in SECRET.values())


def test_a_line_of_json(row: Row) -> None:
    written = row(started=1_800_000_000.0, seconds=1.5)
    said = json.loads(line("json", written))
    assert said == {
        "time": "2027-01-15T08:00:01.500Z",
        "level": "info",
        "event": "request",
        "id": written["id"],
        "route": "/v1/chat/completions",
        "status": 200,
        "outcome": "complete",
        "group": "fast",
        "deployment": "fast-1",
        "provider": "openai",
        "model": "gpt-4o",
        "stream": True,
        "seconds": 1.5,
        "first_token": 0.25,
        "prompt_tokens": 19,
        "completion_tokens": 87,
        "total_tokens": 106,
        "cached_tokens": 8,
        "reasoning_tokens": 41,
        "usage_complete": True,
        "cost": 0.0009175,
        "chunks": 24,
    }


def test_attempts_are_told_where_there_were_several(row: Row) -> None:
    tried = [
        {"deployment": "fast-1", "status": 503, "error": "ServiceUnavailableError", "seconds": 0.1, "more": "x"},
        {"deployment": "fast-2", "status": 200, "error": None, "seconds": 1.0},
    ]
    said = json.loads(line("json", row(attempts=tried, outcome="failed", error="ServiceUnavailableError")))
    assert said["level"] == "error"
    assert [each["deployment"] for each in said["attempts"]] == ["fast-1", "fast-2"]
    assert "more" not in said["attempts"][0]
    assert "2 attempts" in line("console", row(attempts=tried))


def test_a_line_for_people(row: Row) -> None:
    said = line("console", row(id="req_7", key="a" * 64), "alice")
    assert said[8:] == " 200 1.25s fast (openai/gpt-4o) 19+87 tokens $0.000918 key=alice req_7"
    said = line("console", row(id="req_8", outcome="left", status=None, cost=None, completion_tokens=None))
    assert said[8:] == " --- 1.25s fast (openai/gpt-4o) 19+? tokens left req_8"


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_others_wrote_begins_no_line_of_its_own_and_steers_no_terminal(form: str, row: Row) -> None:
    said = line(form, row(group="fast\n200 forged \x1b[2J\x9b\u2028"))
    assert said.isprintable()
    if form == "json":
        assert json.loads(said)["group"] == "fast\n200 forged \x1b[2J\x9b\u2028"


def test_why_nobody_answered_is_told(row: Row) -> None:
    tried = [{"deployment": "fast-1", "status": None, "error": "APIConnectionError", "reason": "refused", "seconds": 0}]
    failed = row(attempts=tried, outcome="failed", error="APIConnectionError", status=502)
    assert json.loads(line("json", failed))["reason"] == "refused"
    assert " failed APIConnectionError (refused) " in line("console", failed)
    assert "refused" not in line("console", row(attempts=tried))


class Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_whoever_stops_reading_is_told_of_once(row: Row, caplog: pytest.LogCaptureFixture) -> None:
    requests = AccessLog("console", Closed())
    for _ in range(3):
        requests.observe([row()])
    requests.close(5)
    assert [record.getMessage() for record in caplog.records] == [
        "there are no more lines of requests: [Errno 32] Broken pipe"
    ]


def test_a_reader_who_does_not_read_holds_nothing_up(row: Row, until: Until, caplog: pytest.LogCaptureFixture) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader) as read, os.fdopen(writer, "w") as file:
        requests = AccessLog("console", file)
        for _ in range(WAITING + 5):
            requests.observe([row()] * 1000)
        begun = time.monotonic()
        requests.close(0.1)
        assert time.monotonic() - begun < 2
        threading.Thread(target=read.readlines, daemon=True).start()
        until(lambda: caplog.records)
        requests.close(5)
    # The writer may have had one batch already.
    assert caplog.records[0].getMessage() in {
        f"the lines of {count} requests were left out: nobody read them" for count in (4000, 5000)
    }


def spans(*rows: dict[str, Any]) -> list[ReadableSpan]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    told = Spans(provider)
    told.observe(rows)
    told.close()
    return list(exporter.get_finished_spans())


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_request_is_a_span_and_the_model_is_asked_within_it(row: Row) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    asked, served = spans(row(started=1_800_000_000.0, seconds=1.5, trace=trace, **SECRET))
    assert (served.name, served.kind) == ("POST /v1/chat/completions", SpanKind.SERVER)
    assert (asked.name, asked.kind) == ("chat gpt-4o", SpanKind.CLIENT)
    assert served.parent is not None
    assert f"{served.parent.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{served.parent.span_id:016x}" == "b7ad6b7169203331"
    assert asked.parent is not None
    assert asked.parent.span_id == (served.context.span_id if served.context else None)
    assert (served.start_time, served.end_time) == (1_800_000_000_000_000_000, 1_800_000_001_500_000_000)
    assert attributes(asked) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.request.stream": True,
        "gen_ai.response.time_to_first_chunk": 0.25,
        "gen_ai.usage.input_tokens": 19,
        "gen_ai.usage.output_tokens": 87,
        "gen_ai.usage.cache_read.input_tokens": 8,
        "gen_ai.usage.reasoning.output_tokens": 41,
        "penstock.cost": 0.0009175,
        "penstock.deployment": "fast-1",
    }
    assert attributes(served)["http.response.status_code"] == 200
    told = str([attributes(asked), attributes(served)])
    assert not any(secret in told for secret in SECRET.values())


def test_a_client_that_keeps_no_trace_gets_none(row: Row) -> None:
    assert spans(row(trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")) == []


@pytest.mark.parametrize("trace", [None, "", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_without_a_parent_a_span_is_a_root(row: Row, trace: str | None) -> None:
    _, served = spans(row(trace=trace))
    assert served.parent is None


def test_what_failed_says_so(row: Row) -> None:
    tried = [
        {"deployment": "fast-1", "status": 500, "error": "InternalServerError", "seconds": 0.1},
        {"deployment": "fast-2", "status": None, "error": "Timeout", "seconds": 1.0},
    ]
    asked, served = spans(row(outcome="failed", error="Timeout", status=504, attempts=tried))
    for span in (asked, served):
        assert span.status.status_code is StatusCode.ERROR
        assert attributes(span)["error.type"] == "Timeout"
    (event,) = asked.events
    assert dict(event.attributes or {}) == {"deployment": "fast-1", "status": 500, "error": "InternalServerError"}


def test_what_was_refused_asked_no_model(row: Row) -> None:
    (served,) = spans(row(outcome="refused", status=429, attempts=[], deployment=None, provider=None, model=None))
    assert served.kind is SpanKind.SERVER
    assert attributes(served)["penstock.ended"] == "refused"
