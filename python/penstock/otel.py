"""The hook for OpenTelemetry (`penstock[otel]`): a span for each call, and the metrics of GenAI clients.

    penstock.configure(hooks=[OpenTelemetry()])

Names and attributes are those of the semantic conventions for generative AI, which are in development: they may change
with a minor release. What was said is in no span. `gen_ai.client.operation.time_per_output_chunk` is not recorded: it
would cost a look at the clock for each chunk.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import metrics, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from ._native import __version__
from .hooks import CallEnded, CallStarted
from .providers.registry import PROVIDERS

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS = tuple(4**power for power in range(14))
FIRST_CHUNK = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

REQUESTED = {
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "max_tokens": "gen_ai.request.max_tokens",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
    "temperature": "gen_ai.request.temperature",
    "top_k": "gen_ai.request.top_k",
    "top_p": "gen_ai.request.top_p",
}
"""Parameters that a span shows as they are."""

PARTS = {
    "gen_ai.usage.cache_read.input_tokens": ("prompt_tokens_details", "cached_tokens"),
    "gen_ai.usage.cache_creation.input_tokens": ("prompt_tokens_details", "cache_write_tokens"),
    "gen_ai.usage.reasoning.output_tokens": ("completion_tokens_details", "reasoning_tokens"),
}
"""Parts of a usage, and where they stand in it."""


class OpenTelemetry:
    """A hook that makes a span of each call, and records how long it took and how many tokens.

    Args:
        tracer_provider, meter_provider: OpenTelemetry's own unless given.
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self._tracer = trace.get_tracer("penstock", __version__, tracer_provider)
        meter = metrics.get_meter("penstock", __version__, meter_provider)

        def histogram(name: str, unit: str, what: str, bounds: Sequence[float]) -> metrics.Histogram:
            return meter.create_histogram(name, unit, what, explicit_bucket_boundaries_advisory=bounds)

        self._duration = histogram("gen_ai.client.operation.duration", "s", "GenAI operation duration.", SECONDS)
        self._tokens = histogram(
            "gen_ai.client.token.usage", "{token}", "Number of input and output tokens used.", TOKENS
        )
        self._first_chunk = histogram(
            "gen_ai.client.operation.time_to_first_chunk", "s", "Time to receive the first chunk.", FIRST_CHUNK
        )
        self._spans: dict[str, tuple[Span, float | None]] = {}

    def started(self, call: CallStarted) -> None:
        """Begins the span, within the one that is current."""
        model = call.model.removeprefix(f"{call.model.partition('/')[0]}/" if "/" in call.model else "")
        attributes = {**whose(call.operation, call.provider, model), **_asked(call)}
        name = f"{call.operation} {model}"
        span = self._tracer.start_span(
            name, kind=SpanKind.CLIENT, attributes=attributes, start_time=int(call.time * 1e9)
        )
        self._spans[call.id] = span, None

    def first_token(self, call: CallStarted, seconds: float) -> None:
        """Keeps the time, for the span and the metric."""
        if call.id in self._spans:
            self._spans[call.id] = self._spans[call.id][0], seconds

    def ended(self, call: CallStarted, end: CallEnded) -> None:
        """Ends the span and records the metrics."""
        span, first = self._spans.pop(call.id, (trace.INVALID_SPAN, None))
        common = whose(call.operation, end.provider, end.model)
        common |= _where(end.attempts[-1].base_url if end.attempts else "")
        answered = {name: value for name, value in _answered(end).items() if value is not None}
        model = answered.get("gen_ai.response.model")
        if model is not None:
            common["gen_ai.response.model"] = model
        failed: dict[str, Any] = {}
        if end.error is not None:
            failed["error.type"] = type(end.error).__name__
            span.set_status(Status(StatusCode.ERROR, str(end.error)))
        if first is not None:
            answered["gen_ai.response.time_to_first_chunk"] = first
            self._first_chunk.record(first, common)
        span.set_attributes({**common, **answered, **failed, "penstock.ended": end.how})
        self._duration.record(end.seconds, {**common, **failed})
        for kind in ("input", "output"):
            tokens = answered.get(f"gen_ai.usage.{kind}_tokens")
            if tokens is not None:
                self._tokens.record(tokens, {**common, "gen_ai.token.type": kind})
        span.end(int((call.time + end.seconds) * 1e9))


def whose(operation: str, provider: str | None, model: str) -> dict[str, Any]:
    """What is asked of whom. provider: its slug."""
    row = PROVIDERS.get(provider or "")
    known = row.telemetry or row.slug if row is not None else "unknown"
    return {"gen_ai.operation.name": operation, "gen_ai.provider.name": known, "gen_ai.request.model": model}


def _where(base_url: str) -> dict[str, Any]:
    parts = urlsplit(base_url)
    if parts.hostname is None:
        return {}
    return {"server.address": parts.hostname, "server.port": parts.port or (443 if parts.scheme == "https" else 80)}


def _asked(call: CallStarted) -> dict[str, Any]:
    given = call.parameters
    asked = {attribute: given[name] for name, attribute in REQUESTED.items() if name in given}
    if call.stream:
        asked["gen_ai.request.stream"] = True
    if given.get("n") not in (None, 1):
        asked["gen_ai.request.choice.count"] = given["n"]
    stop = given.get("stop")
    if stop:
        asked["gen_ai.request.stop_sequences"] = [stop] if isinstance(stop, str) else list(stop)
    wanted = given.get("response_format")
    if wanted is not None:
        plain = isinstance(wanted, Mapping) and wanted.get("type") == "text"
        asked["gen_ai.output.type"] = "text" if plain else "json"
    return asked


def _answered(end: CallEnded) -> dict[str, Any]:
    response, usage = end.response, end.usage
    answered: dict[str, Any] = {}
    if response is not None:
        answered["gen_ai.response.id"] = response.get("id")
        answered["gen_ai.response.model"] = response.get("model")
        reasons = [choice.get("finish_reason") for choice in response.get("choices") or ()]
        answered["gen_ai.response.finish_reasons"] = [reason for reason in reasons if reason] or None
    return answered if usage is None else answered | used(usage)


def used(usage: Any) -> dict[str, Any]:
    """The tokens of a usage, which is OpenAI's in shape; None: not known."""
    tokens = {
        "gen_ai.usage.input_tokens": usage.get("prompt_tokens"),
        "gen_ai.usage.output_tokens": usage.get("completion_tokens"),
    }
    return tokens | {attribute: (usage.get(details) or {}).get(name) for attribute, (details, name) in PARTS.items()}
