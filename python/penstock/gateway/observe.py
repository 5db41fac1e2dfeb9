"""What others may see of the requests: lines for a log, and spans. Both are made of spend rows, after the fact.

Never in either: keys, their hashes, headers, messages and answers, and who a client says its user is. The request's id
leads to the rest, in the database.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from queue import Full, Queue
from typing import TYPE_CHECKING, Any

import orjson

from .keys import dollars
from .store import columns, record_of

if TYPE_CHECKING:
    from typing import TextIO

    from opentelemetry.trace import TracerProvider

log = logging.getLogger("penstock.gateway")

LOGGED = (
    "id", "route", "status", "outcome", "error", "group", "deployment", "provider", "model", "stream", "seconds",
    "first_token", "prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "cache_write_tokens",
    "reasoning_tokens", "usage_complete", "cost", "chunks", "trace",
)  # fmt: skip
"""What a line of JSON has of a row, as far as it is known."""

WAITING = 20
"""Batches of lines that wait to be written: those of some seconds, a few megabytes."""

NameOf = Callable[[str], str | None]
"""Gives the name of a key by its id, if it has one."""

# What somebody else wrote must not steer a terminal, nor begin a line of its own.
_STEERS = (*range(127, 160), 0x2028, 0x2029)
_TAME = dict.fromkeys((*range(32), *_STEERS), 0xFFFD)
_ESCAPED = {code: f"\\u{code:04x}" for code in _STEERS}  # JSON escapes the others itself


def usage_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The tokens of a row, in OpenAI's shape."""
    return {
        "prompt_tokens": row.get("prompt_tokens"),
        "completion_tokens": row.get("completion_tokens"),
        "prompt_tokens_details": {name: row.get(name) for name in ("cached_tokens", "cache_write_tokens")},
        "completion_tokens_details": {"reasoning_tokens": row.get("reasoning_tokens")},
    }


class AccessLog:
    """A line for each request, when it has ended.

    Lines are written by a thread of its own: a pipe that nobody reads, or a terminal that was stopped, must not keep
    rows from the books. Of what is waiting then, the newest are left out.

    Args:
        form: "json", a line of JSON; or "console", a line for people.
        file: where the lines go. Default: standard output, as it is when a line is written.
        name_of: gives the name of a key by its id, if it has one.
    """

    def __init__(
        self,
        form: str = "console",
        file: "TextIO | None" = None,
        *,
        name_of: NameOf = lambda _id: None,
    ) -> None:
        self._line = {"json": _json, "console": _console}[form]
        self._file = file
        self._name_of = name_of
        self._texts: Queue[str | None] = Queue(WAITING)
        self._left_out = 0
        self._thread = threading.Thread(target=self._write, name="penstock-access-log", daemon=True)
        self._thread.start()

    def close(self, seconds: float) -> None:
        """Writes what is left, in so many seconds."""
        until = time.monotonic() + seconds
        with suppress(Full):
            self._texts.put(None, timeout=seconds)
        self._thread.join(max(until - time.monotonic(), 0.0))

    def observe(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Has the lines written, for as long as somebody reads them."""
        if not self._thread.is_alive():
            return
        try:
            self._texts.put_nowait("\n".join([self._line(row, self._name_of) for row in rows]) + "\n")
        except Full:
            self._left_out += len(rows)

    def _write(self) -> None:
        while (text := self._texts.get()) is not None:
            file = self._file or sys.stdout
            try:
                file.write(text)
                file.flush()
            except (OSError, ValueError) as error:  # a file that was closed is a ValueError
                log.warning("there are no more lines of requests: %s", error)
                return
            if self._left_out and self._texts.empty():
                log.warning("the lines of %d requests were left out: nobody read them", self._left_out)
                self._left_out = 0


def _json(row: Mapping[str, Any], name_of: NameOf) -> str:
    ended = row["started"] + (row.get("seconds") or 0.0)
    line: dict[str, Any] = {
        "time": datetime.fromtimestamp(ended, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": "error" if row.get("outcome") in ("failed", "cut") else "info",
        "event": "request",
    }
    line |= {field: value for field in LOGGED if (value := row.get(field)) is not None}
    name = name_of(row["key"]) if row["key"] else None
    if name is not None:
        line["key_name"] = name
    reason = _reason(row)
    if reason is not None:
        line["reason"] = reason
    tried = row.get("attempts") or ()
    if len(tried) > 1:
        line["attempts"] = [
            {part: attempt.get(part) for part in ("deployment", "status", "error", "seconds")} for attempt in tried
        ]
    text = orjson.dumps(line).decode()
    return text if text.isascii() and "\x7f" not in text else text.translate(_ESCAPED)


_told = columns(
    "id", "started", "seconds", "status", "model_group", "route", "provider", "model", "key_id", "prompt_tokens",
    "completion_tokens", "cost", "outcome", "error", "attempts",
)  # fmt: skip


def _console(row: Mapping[str, Any], name_of: NameOf) -> str:
    (
        request, started, seconds, status, group, route, provider, model, key,
        prompt, completion, cost, outcome, error, attempts,
    ) = _told(record_of(row))  # fmt: skip
    seconds = seconds or 0.0
    tokens = spent = whose = how = often = ""
    if prompt is not None or completion is not None:
        tokens = f" {'?' if prompt is None else prompt}+{'?' if completion is None else completion} tokens"
    if cost is not None:
        spent = f" ${dollars(cost):.6f}"
    if key and (name := name_of(key)) is not None:
        whose = f" key={_tame(name)}"
    if outcome != "complete":
        reason = _reason(row)
        how = _tame("".join(f" {part}" for part in (outcome, error, reason and f"({reason})") if part))
    tried = attempts.count('"deployment"')  # JSON: within a name the quotes would be escaped
    if tried > 1:
        often = f" {tried} attempts"
    who = _who(group or route or "-", provider, model)
    begin = f"{_clock(int(started + seconds))} {status or '---'} {seconds:.2f}s"
    return f"{begin} {who}{tokens}{spent}{whose}{how}{often} {_tame(request)}"


@lru_cache(1024)
def _who(group: str, provider: str | None, model: str | None) -> str:
    """Who was asked. Most are asked again: a long line takes longer to look through than to put together."""
    asked = "/".join(filter(None, (provider, model)))
    return _tame(f"{group} ({asked})" if asked else group)


def _tame(text: str) -> str:
    return text if text.isprintable() else text.translate(_TAME)


def _reason(row: Mapping[str, Any]) -> str | None:
    """Why the last upstream did not answer, if it did not."""
    tried = row.get("attempts") if row.get("outcome") in ("failed", "cut") else None
    return tried[-1].get("reason") if tried else None


@lru_cache(64)
def _clock(second: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(second))


class Spans:
    """Spans of each request: that the gateway served it, and within it that a model was asked (`penstock[otel]`).

    The client's `traceparent` is their parent, and whether they are kept is the client's decision where it made one.

    Args:
        provider: OpenTelemetry's own unless given; `exporting` makes one that sends them.
    """

    def __init__(self, provider: "TracerProvider | None" = None) -> None:
        from opentelemetry import trace

        from .._native import __version__

        self._provider = provider
        self._tracer = trace.get_tracer("penstock", __version__, provider)

    def close(self) -> None:
        """Sends what is left."""
        shutdown = getattr(self._provider, "shutdown", None)
        if shutdown is not None:
            shutdown()

    def observe(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Makes the spans."""
        for row in rows:
            self._span(row)

    def _span(self, row: Mapping[str, Any]) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        from ..otel import used, whose

        begin = int(row["started"] * 1e9)
        end = begin + int((row.get("seconds") or 0.0) * 1e9)
        parent = None
        if row.get("trace"):
            from opentelemetry.context import Context

            parent = TraceContextTextMapPropagator().extract({"traceparent": row["trace"]}, Context())
        route, status = row.get("route") or "/", row.get("status")
        failed: dict[str, Any] = {}
        wrong = None
        if row.get("outcome") in ("failed", "cut"):
            failed["error.type"] = row.get("error") or row["outcome"]
            wrong = Status(StatusCode.ERROR)
        served = self._tracer.start_span(
            f"POST {route}",
            parent,
            kind=SpanKind.SERVER,
            start_time=begin,
            attributes={
                "http.request.method": "POST",
                "http.route": route,
                **({} if status is None else {"http.response.status_code": status}),
                "penstock.request.id": str(row.get("id")),
                "penstock.group": row.get("group") or "",
                "penstock.ended": row.get("outcome") or "",
                **failed,
            },
        )
        tried = row.get("attempts") or ()
        if served.is_recording() and (tried or row.get("deployment")):
            operation = "embeddings" if route.endswith("/embeddings") else "chat"
            model = row.get("model") or row.get("group") or ""
            attributes = whose(operation, row.get("provider"), model) | used(usage_of(row)) | failed
            attributes["gen_ai.request.stream"] = row.get("stream")
            attributes["gen_ai.response.time_to_first_chunk"] = row.get("first_token")
            attributes["penstock.cost"] = row.get("cost")
            attributes["penstock.deployment"] = row.get("deployment")
            asked = self._tracer.start_span(
                f"{operation} {model}",
                set_span_in_context(served, parent),
                kind=SpanKind.CLIENT,
                start_time=begin,
                attributes={name: value for name, value in attributes.items() if value is not None},
            )
            at = begin
            for attempt in tried[:-1]:
                # Pauses between attempts are not told: an attempt that failed is put where the last one ended.
                at += int((attempt.get("seconds") or 0.0) * 1e9)
                said = {name: value for name in ("deployment", "status", "error") if (value := attempt.get(name))}
                asked.add_event("penstock.attempt.failed", said, min(at, end))
            if wrong is not None:
                asked.set_status(wrong)
            asked.end(end)
        if wrong is not None:
            served.set_status(wrong)
        served.end(end)


def exporting() -> "TracerProvider":
    """A provider that sends spans where the variables of OpenTelemetry say, such as OTEL_EXPORTER_OTLP_ENDPOINT.

    Raises:
        ModuleNotFoundError: `opentelemetry-sdk` or `opentelemetry-exporter-otlp-proto-http` is not installed.
    """
    import os
    from importlib import import_module

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    exporter = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter").OTLPSpanExporter()
    # Its name by the variable, if there is one; else ours.
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "penstock"}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
