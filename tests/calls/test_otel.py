"""Spans and metrics, as the semantic conventions for generative AI name them and OpenTelemetry's SDK receives them."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import pytest

import penstock
from penstock import completion

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, Tracer

from penstock.otel import OpenTelemetry
from penstock.providers.registry import ROWS

MESSAGES = [{"role": "user", "content": "Hello"}]


class Sdk(NamedTuple):
    hook: OpenTelemetry
    spans: InMemorySpanExporter
    reader: InMemoryMetricReader
    tracer: Tracer

    def span(self) -> ReadableSpan:
        (span,) = self.spans.get_finished_spans()
        assert not self.hook._spans
        return span

    def metrics(self) -> dict[str, list[HistogramDataPoint]]:
        data: Any = self.reader.get_metrics_data()
        (resource,) = data.resource_metrics
        (scope,) = resource.scope_metrics
        return {metric.name: list(metric.data.data_points) for metric in scope.metrics}


@pytest.fixture
def sdk() -> Iterator[Sdk]:
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    yield Sdk(OpenTelemetry(tracers, meters), spans, reader, tracers.get_tracer("test"))
    tracers.shutdown()
    meters.shutdown()


def test_a_stream(world: Any, sdk: Sdk) -> None:
    _, stream = world.stream("hello", hooks=[sdk.hook], temperature=0.5, max_tokens=9, stop="x", n=1)
    span = sdk.span()
    assert (span.name, span.kind, span.status.status_code) == ("chat hello", SpanKind.CLIENT, StatusCode.UNSET)
    attributes = dict(span.attributes or {})
    assert attributes.pop("server.port") > 0  # type: ignore[operator]
    assert 0 < attributes.pop("gen_ai.response.time_to_first_chunk") < 30  # type: ignore[operator]
    response = stream._collected()
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "hello",
        "gen_ai.request.stream": True,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.stop_sequences": ("x",),
        "gen_ai.response.id": response.id,
        "gen_ai.response.model": response.model,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": stream.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": stream.usage.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": stream.usage.prompt_tokens_details.cached_tokens,
        "gen_ai.usage.reasoning.output_tokens": stream.usage.completion_tokens_details.reasoning_tokens,
        "server.address": "127.0.0.1",
        "penstock.ended": "complete",
    }
    metrics = sdk.metrics()
    assert set(metrics) == {
        "gen_ai.client.operation.duration",
        "gen_ai.client.operation.time_to_first_chunk",
        "gen_ai.client.token.usage",
    }
    tokens = {point.attributes["gen_ai.token.type"]: point.sum for point in metrics["gen_ai.client.token.usage"]}  # type: ignore[index]
    assert tokens == {"input": stream.usage.prompt_tokens, "output": stream.usage.completion_tokens}
    (duration,) = metrics["gen_ai.client.operation.duration"]
    assert duration.attributes is not None
    assert duration.attributes["gen_ai.response.model"] == response.model
    assert duration.explicit_bounds[0] == 0.01


def test_a_whole_response_has_no_first_chunk(world: Any, sdk: Sdk) -> None:
    world.ask("hello", hooks=[sdk.hook])
    attributes = sdk.span().attributes or {}
    assert "gen_ai.request.stream" not in attributes
    assert "gen_ai.response.time_to_first_chunk" not in attributes
    assert "gen_ai.client.operation.time_to_first_chunk" not in sdk.metrics()


def test_an_error(world: Any, sdk: Sdk) -> None:
    world.fails(penstock.RateLimitError, "hello?status=429", hooks=[sdk.hook])
    span = sdk.span()
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "RateLimitError"
    (duration,) = sdk.metrics()["gen_ai.client.operation.duration"]
    assert (duration.attributes or {})["error.type"] == "RateLimitError"
    assert "gen_ai.client.token.usage" not in sdk.metrics()


def test_what_was_left_is_no_error(up: Any, sdk: Sdk) -> None:
    with completion("replay/hello", MESSAGES, stream=True, hooks=[sdk.hook]) as stream:
        next(stream)
    span = sdk.span()
    assert span.status.status_code is StatusCode.UNSET
    assert (span.attributes or {})["penstock.ended"] == "left"


def test_the_span_is_within_the_callers(up: Any, sdk: Sdk) -> None:
    with sdk.tracer.start_as_current_span("outer") as outer:
        completion("replay/hello", MESSAGES, hooks=[sdk.hook])
    inner, _ = sdk.spans.get_finished_spans()
    assert inner.parent is not None
    assert inner.parent.span_id == outer.get_span_context().span_id


def test_no_key_and_no_word_of_what_was_said(up: Any, sdk: Sdk) -> None:
    key = "sk-this-is-a-secret-0123456789"
    for case in ("hello", "hello?status=401"):
        with suppress(penstock.APIError):
            completion(f"openai/{case}", MESSAGES, api_key=key, api_base=up.base_url, hooks=[sdk.hook])
    text = "".join(span.to_json() for span in sdk.spans.get_finished_spans())
    assert key not in text
    assert "Hello" not in text


def test_names_of_providers_are_those_of_the_conventions() -> None:
    from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

    values = gen_ai_attributes.GenAiProviderNameValues  # an older copy, with one name less
    known = {item.value for item in values} | {"moonshot_ai"}
    named = {row.telemetry for row in ROWS if row.telemetry is not None}
    assert named <= known
    assert {"anthropic", "cohere", "deepseek", "groq", "perplexity"} <= {row.slug for row in ROWS} & known
