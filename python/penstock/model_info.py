"""What is known of a model and of the way to it, under the names that litellm's users know.

Facts about models are those of genai-prices (`penstock[prices]`) and of the caller's own table
(`configure(prices=...)`, in litellm's form); facts about providers are those of their rows. What neither says is None.
"""

import os
from collections.abc import Mapping
from typing import Any

from .catalogue import supported_params
from .configuration import current
from .cost import Price, entry, listed, price_of
from .errors import BadRequestError, NotFoundError
from .providers.resolve import first_set, resolve


def get_llm_provider(
    model: str,
    custom_llm_provider: str | None = None,
    api_base: str | None = None,
    api_key: str | None = None,
) -> tuple[str, str, str | None, str | None]:
    """The model as its provider knows it, the provider, and the key and base URL as given. No key is looked up.

    Raises:
        BadRequestError: no such provider.
    """
    row, name = resolve(model, custom_llm_provider)
    return name, row.slug, api_key, api_base


def get_supported_openai_params(model: str, custom_llm_provider: str | None = None) -> list[str]:
    """As `supported_params`.

    Raises:
        BadRequestError: no such provider.
    """
    row, name = resolve(model, custom_llm_provider)
    return supported_params(f"{row.slug}/{name}")


def validate_environment(model: str, api_key: str | None = None) -> dict[str, Any]:
    """Whether a call will find its key: {"keys_in_environment": bool, "missing_keys": [variable, ...]}.

    Missing are the variables of which one is wanted, and those without which no base URL is known. A provider whose
    requests can be signed with AWS credentials, or that needs no key, misses none.

    Raises:
        BadRequestError: no such provider.
    """
    row, _ = resolve(model)
    missing: list[str] = []
    names = [*row.key_env, *(name for token in row.tokens for name in token.env)]
    if row.key_required and not api_key and first_set(os.environ, tuple(names)) is None:
        missing += names or ["api_key"]
    if row.base_url is None and row.base_env and first_set(os.environ, row.base_env) is None:
        missing += row.base_env
    return {"keys_in_environment": not missing, "missing_keys": missing}


def get_model_info(model: str, custom_llm_provider: str | None = None) -> dict[str, Any]:
    """What is known of a model, with the keys of litellm's table; what is not known is None.

    key, litellm_provider, max_input_tokens, max_output_tokens, input_cost_per_token, output_cost_per_token,
    cache_read_input_token_cost, cache_creation_input_token_cost, source, price_date, deprecated,
    supported_openai_params, supports_...: as the functions of that name say.

    Raises:
        NotFoundError: neither genai-prices nor a table of the caller's own knows it.
        BadRequestError: no such provider.
    """
    row, name = resolve(model, custom_llm_provider)
    full = f"{row.slug}/{name}"
    own = entry(full, current().prices)
    try:
        price: Price | None = price_of(full)
        listing = None if own is not None else listed(full)[1]
    except BadRequestError as error:
        if own is None:
            raise NotFoundError(f"nothing is known of {full}: {error.message}", param="model") from error
        price = listing = None
    table: Mapping[str, Any] = own[1] if own is not None else {}
    info = {
        "key": listing.id if listing is not None else name,
        "litellm_provider": row.slug,
        "max_input_tokens": listing.context_window if listing is not None else None,
        "max_output_tokens": None,
        "input_cost_per_token": price.input if price is not None else None,
        "output_cost_per_token": price.output if price is not None else None,
        "cache_read_input_token_cost": price.cached if price is not None else None,
        "cache_creation_input_token_cost": price.cache_write if price is not None else None,
        "source": price.source if price is not None else "prices",
        "price_date": price.date if price is not None else None,
        "deprecated": listing.deprecated if listing is not None else None,
        "supported_openai_params": supported_params(full),
    }
    for ability in ABILITIES:
        info[f"supports_{ability}"] = _supports(ability, full)
    return {**info, **table}


ABILITIES: Mapping[str, tuple[str | None, str | None]] = {
    "vision": (None, "input_image_mtok"),
    "audio_input": (None, "input_audio_mtok"),
    "audio_output": ("audio", "output_audio_mtok"),
    "function_calling": ("tools", None),
    "parallel_function_calling": ("parallel_tool_calls", None),
    "tool_choice": ("tool_choice", None),
    "response_schema": ("response_format", None),
    "reasoning": ("reasoning_effort", "output_reasoning_mtok"),
    "web_search": ("web_search_options", None),
    "prompt_caching": (None, "cache_read_mtok"),
}
"""What a model may be able to do: the parameter without which it cannot, and the price that only one has which can."""


def _supports(ability: str, model: str, custom_llm_provider: str | None = None) -> bool | None:
    """Whether a model can do this; None where nobody here knows.

    The caller's own table says it; a provider without the parameter cannot; a price for it says yes.
    """
    row, name = resolve(model, custom_llm_provider)
    full = f"{row.slug}/{name}"
    own = entry(full, current().prices)
    if own is not None and own[1].get(f"supports_{ability}") is not None:
        return bool(own[1][f"supports_{ability}"])
    parameter, price = ABILITIES[ability]
    if parameter in row.unsupported:
        return False
    if price is None:
        return None
    try:
        _, info = listed(full)
    except BadRequestError:
        return None
    lists = [info.prices] if not isinstance(info.prices, list) else [each.prices for each in info.prices]
    return True if any(getattr(prices, price, None) is not None for prices in lists) else None


def supports_vision(model: str, custom_llm_provider: str | None = None) -> bool | None:
    """Whether the model takes images; None where that is not known."""
    return _supports("vision", model, custom_llm_provider)


def supports_audio_input(model: str, custom_llm_provider: str | None = None) -> bool | None:
    """Whether the model takes audio; None where that is not known."""
    return _supports("audio_input", model, custom_llm_provider)


def supports_audio_output(model: str, custom_llm_provider: str | None = None) -> bool | None:
    """Whether the model speaks; None where that is not known."""
    return _supports("audio_output", model, custom_llm_provider)


def supports_function_calling(model: str, custom_llm_provider: str | None = None) -> bool | None:
    """Whether the model calls tools; None where that is not known."""
    return _supports("function_calling", model, custom_llm_provider)


def supports_parallel_function_calling(model: str, custom_llm_provider: str | None = None) -> bool | None:
    """Whether several calls of tools in one answer can be switched; None where that is not known."""
    return _supports("parallel_function_calling", model, custom_llm_provider)


def supports_tool_choice(model: str, custom_llm_provider: str | None = None) -> bool | None:
    """Whether a tool can be demanded; None where that is not known."""
    return _supports("tool_choice", model, custom_llm_provider)


def supports_response_schema(model: str, custom_llm_provider: str | None = None) -> bool | None:
    """Whether the model answers in a JSON schema; None where that is not known."""
    return _supports("response_schema", model, custom_llm_provider)


def supports_reasoning(model: str, custom_llm_provider: str | None = None) -> bool | None:
    """Whether the model reasons before it answers; None where that is not known."""
    return _supports("reasoning", model, custom_llm_provider)


def supports_web_search(model: str, custom_llm_provider: str | None = None) -> bool | None:
    """Whether the model searches the web by web_search_options; None where that is not known."""
    return _supports("web_search", model, custom_llm_provider)


def supports_prompt_caching(model: str, custom_llm_provider: str | None = None) -> bool | None:
    """Whether what a prompt begins with is kept for the next; None where that is not known."""
    return _supports("prompt_caching", model, custom_llm_provider)
