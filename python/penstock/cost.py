"""What a call cost, by the prices of the package genai-prices (`penstock[prices]`) or by a table of the caller's own.

A price is somebody's record of a provider's page: it may be late, and knows nothing of discounts. The result says whose
price it is and since when it holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from typing import Any

from ._native import CompletionUsage
from .configuration import current
from .errors import BadRequestError
from .providers.registry import PROVIDERS
from .providers.resolve import resolve

PER = 1_000_000
"""Tokens that a price in genai-prices is for."""


class Cost(float):
    """US dollars, and how they came about. Parts are None where the price of the part is not known apart.

    input: for the prompt, without what follows. cached: for tokens read from the cache. cache_write: for those written
        to it. output: for the answer, its reasoning included.
    provider, model: as the price list calls them. source: "genai-prices VERSION" or "prices".
    price_date: since when the price holds, where the list says it. None: always, as far as it knows.
    estimated: whether the tokens are an estimate, or the answer was cut short, so that they may be more.
    """

    input: float | None
    cached: float | None
    cache_write: float | None
    output: float | None
    provider: str | None
    model: str
    source: str
    price_date: date | None
    estimated: bool

    def __repr__(self) -> str:
        return f"Cost({float(self):.10g}, {', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"

    def __str__(self) -> str:
        return float.__repr__(self)


@dataclass(frozen=True, slots=True)
class Price:
    """What a model's tokens cost: US dollars for one. A part without a price of its own has that of the whole."""

    provider: str | None
    model: str
    source: str
    date: date | None
    input: float
    output: float
    cached: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None
    input_audio: float | None = None
    output_audio: float | None = None
    reasoning: float | None = None

    def cost(self, usage: Any) -> Cost:
        """The cost of a usage, which is OpenAI's in shape."""
        prompt, completion = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
        parts, pieces = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
        read, written = parts.get("cached_tokens") or 0, parts.get("cache_write_tokens") or 0
        # Audio that was cached is in both counts, and nobody says how much: it is taken to be the uncached part.
        heard = min(parts.get("audio_tokens") or 0, max(prompt - read - written, 0))
        spoken, thought = pieces.get("audio_tokens") or 0, pieces.get("reasoning_tokens") or 0
        long = min(_written_for_an_hour(usage), written)

        def or_(price: float | None, whole: float) -> float:
            return whole if price is None else price

        write = or_(self.cache_write, self.input)
        bill = {
            "input": max(prompt - read - written - heard, 0) * self.input + heard * or_(self.input_audio, self.input),
            "cached": read * or_(self.cached, self.input),
            "cache_write": (written - long) * write + long * or_(self.cache_write_1h, write),
            "output": max(completion - spoken - thought, 0) * self.output
            + spoken * or_(self.output_audio, self.output)
            + thought * or_(self.reasoning, self.output),
        }
        cost = Cost(sum(bill.values()))
        cost.__dict__.update(bill)
        cost.provider, cost.model, cost.source, cost.price_date = self.provider, self.model, self.source, self.date
        cost.estimated = getattr(usage, "source", "reported") != "reported" or not getattr(usage, "complete", True)
        return cost


def completion_cost(
    completion_response: Any = None,
    *,
    model: str | None = None,
    usage: Any = None,
    prices: Mapping[str, Mapping[str, Any]] | None = None,
    at: datetime | None = None,
) -> Cost:
    """What a call cost, in US dollars: a float that says how it came about.

    Args:
        completion_response: a response, a Stream or AsyncStream (then so far), an ended call as hooks get it, or their
            usage.
        model: `provider/model`, where the response does not know whose it is: most responses name the model alone.
        usage: the tokens, where there is no response.
        prices: a table in litellm's form, by `provider/model` or model: `input_cost_per_token`,
            `output_cost_per_token`, `cache_read_input_token_cost`, `cache_creation_input_token_cost`, ...; it comes
            before genai-prices, and before the table of `configure(prices=...)`.
        at: when the call was made, for prices that have changed since. Default: now.

    Raises:
        BadRequestError: the price or the usage is not known; or genai-prices is not installed and no table has the
            model.
    """
    answer = completion_response
    if usage is None:
        usage = answer if isinstance(answer, CompletionUsage) else _of(answer, "usage")
    if usage is None:
        raise BadRequestError(
            "no usage was reported, so no cost is known. estimate_usage=True estimates it", param="completion_response"
        )
    if model is None:
        model = _model_of(answer)
    # How much it was is a part of the price: some models cost more from a certain length on.
    return price_of(model, prices=prices, at=at, prompt_tokens=_of(usage, "prompt_tokens") or 0).cost(usage)


def price_of(
    model: str,
    *,
    prices: Mapping[str, Mapping[str, Any]] | None = None,
    at: datetime | None = None,
    prompt_tokens: int = 0,
) -> Price:
    """The price of a model's tokens for a prompt of this length.

    Raises:
        BadRequestError: it is not known.
    """
    for table in (prices, current().prices):
        found = entry(model, table)
        if found is not None:
            return _own(found[0], found[1], prompt_tokens)
    provider, info = listed(model)
    return _listed(provider, info, at or datetime.now(UTC), prompt_tokens)


def entry(model: str, table: Mapping[str, Mapping[str, Any]] | None) -> tuple[str, Mapping[str, Any]] | None:
    """The name and the row of a model in a table of litellm's form, by its full name, else by the model's alone."""
    names = [model]
    try:
        row, name = resolve(model)
        names += [f"{row.slug}/{name}", name]
    except BadRequestError:
        names.append(model.partition("/")[2])
    return next(((name, table[name]) for name in names if table and name in table), None)


def listed(model: str) -> tuple[Any, Any]:
    """genai-prices' provider and model.

    Raises:
        BadRequestError: it is not installed, or does not know the model.
    """
    try:
        from genai_prices.data_snapshot import find_provider_by_id, get_snapshot
    except ModuleNotFoundError as error:
        raise BadRequestError(
            f"no price of {model}: pip install 'penstock[prices]', or give a table: prices={{{model!r}: "
            "{'input_cost_per_token': ..., 'output_cost_per_token': ...}}",
            param="prices",
        ) from error
    snapshot = get_snapshot()
    vendor, slash, name = model.partition("/")
    names = [(None, model)] + ([(vendor, name)] if slash else [])
    try:
        row, known = resolve(model)
    except BadRequestError:
        pass
    else:
        names = [(row.slug if row.price_list is None else row.price_list, known)]
    for vendor_name, model_name in names:
        try:
            # An unknown provider is not looked for by its model: another's price is no price.
            if vendor_name is not None and not (vendor_name and find_provider_by_id(snapshot.providers, vendor_name)):
                continue
            provider, info = snapshot.find_provider_model(model_name, None, vendor_name, None)
        except LookupError:
            continue
        return provider, info
    raise BadRequestError(
        f"genai-prices knows no price of {model}. prices={{{model!r}: {{'input_cost_per_token': ..., "
        "'output_cost_per_token': ...}} gives one",
        param="model",
    )


@cache
def _edition() -> str:
    """Of the price list. It is read from a file, which takes longer than all the rest."""
    from importlib.metadata import version

    return f"genai-prices {version('genai-prices')}"


def _listed(provider: Any, info: Any, at: datetime, prompt_tokens: int) -> Price:
    prices = info.get_prices(at)

    def per_token(name: str) -> float | None:
        price = getattr(prices, name, None)
        if price is None:
            return None
        if hasattr(price, "tiers"):
            reached = [tier.price for tier in price.tiers if prompt_tokens > tier.start]
            price = reached[-1] if reached else price.base
        return float(price) / PER

    since = None
    if isinstance(info.prices, list):
        dates = [getattr(each.constraint, "start_date", None) for each in info.prices if each.prices is prices]
        since = dates[-1] if dates else None
    return Price(
        provider=provider.id,
        model=info.id,
        source=_edition(),
        date=since,
        input=per_token("input_mtok") or 0.0,
        output=per_token("output_mtok") or 0.0,
        cached=per_token("cache_read_mtok"),
        cache_write=per_token("cache_write_mtok"),
        cache_write_1h=per_token("cache_write_1h_mtok"),
        input_audio=per_token("input_audio_mtok"),
        output_audio=per_token("output_audio_mtok"),
        reasoning=per_token("output_reasoning_mtok"),
    )


STEPS = ((512_000, "512k"), (272_000, "272k"), (256_000, "256k"), (200_000, "200k"), (128_000, "128k"))
"""Lengths of a prompt from which a table may have other prices, and how its fields are called."""


def _own(name: str, row: Mapping[str, Any], prompt_tokens: int) -> Price:
    def per_token(field: str) -> float | None:
        for length, called in STEPS:
            price = row.get(f"{field}_above_{called}_tokens") if prompt_tokens > length else None
            if price is not None:
                return float(price)
        price = row.get(field)
        return None if price is None else float(price)

    priced = per_token("input_cost_per_token")
    if priced is None:
        raise BadRequestError(f"prices: {name} has no input_cost_per_token", param="prices")
    return Price(
        provider=row.get("litellm_provider"),
        model=name,
        source="prices",
        date=row.get("price_date"),
        input=priced,
        output=per_token("output_cost_per_token") or 0.0,
        cached=per_token("cache_read_input_token_cost"),
        cache_write=per_token("cache_creation_input_token_cost"),
        cache_write_1h=per_token("cache_creation_input_token_cost_above_1hr"),
        input_audio=per_token("input_cost_per_audio_token"),
        output_audio=per_token("output_cost_per_audio_token"),
        reasoning=per_token("output_cost_per_reasoning_token"),
    )


def _written_for_an_hour(usage: Any) -> int:
    """Tokens written to the cache for an hour instead of five minutes, where the provider's own usage tells them."""
    raw = getattr(usage, "raw", None) or {}
    written = raw.get("cache_creation")
    return (written.get("ephemeral_1h_input_tokens") or 0) if isinstance(written, Mapping) else 0


def _of(answer: Any, name: str) -> Any:
    value = getattr(answer, name, None)
    return answer.get(name) if value is None and isinstance(answer, Mapping) else value


def _model_of(answer: Any) -> str:
    """`provider/model` of whatever knows it: a stream by its last attempt, a call that has ended, a response."""
    attempts = getattr(answer, "attempts", None)
    who = attempts[-1] if attempts else answer
    provider, model = _of(who, "provider"), _of(who, "model")
    if not model:
        raise BadRequestError(
            "model says whose price it is: completion_cost(..., model='provider/model')", param="model"
        )
    return f"{provider}/{model}" if isinstance(provider, str) and provider in PROVIDERS else str(model)
