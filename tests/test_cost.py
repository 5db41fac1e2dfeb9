"""What a call cost: by genai-prices, or by a table of the caller's own."""

import asyncio
import sys
from datetime import UTC, date, datetime
from typing import Any

import pytest

import penstock
from penstock import BadRequestError, CompletionUsage, NotFoundError, acompletion, completion, completion_cost
from penstock.configuration import configured

MESSAGES = [{"role": "user", "content": "Hello"}]
USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 100,
    "total_tokens": 1100,
    "prompt_tokens_details": {"cached_tokens": 500, "cache_write_tokens": 100},
    "completion_tokens_details": {"reasoning_tokens": 40},
}
ROW = {
    "input_cost_per_token": 1e-6,
    "output_cost_per_token": 4e-6,
    "cache_read_input_token_cost": 1e-7,
    "cache_creation_input_token_cost": 1.25e-6,
    "litellm_provider": "acme",
}


def usage(**changes: Any) -> CompletionUsage:
    return CompletionUsage({**USAGE, **changes})


# genai-prices


@pytest.mark.parametrize(
    ("model", "vendor"),
    [("openai/gpt-4o", "openai"), ("claude-sonnet-4-5", "anthropic"), ("gemini/gemini-2.5-pro", "google")],
)
@pytest.mark.parametrize("long", [False, True])
def test_as_genai_prices_has_it(model: str, vendor: str, long: bool) -> None:
    prices = pytest.importorskip("genai_prices")
    tokens = 300_000 if long else 1000
    cost = completion_cost(model=model, usage=usage(prompt_tokens=tokens))
    counts = prices.Usage(input_tokens=tokens, cache_read_tokens=500, cache_write_tokens=100, output_tokens=100)
    theirs = prices.calc_price(counts, model.rpartition("/")[2], provider_id=vendor)
    assert cost == pytest.approx(float(theirs.total_price))
    assert isinstance(cost, float)
    assert cost.provider == vendor
    assert cost.source == f"genai-prices {prices.__version__}"
    assert not cost.estimated


def test_cached_and_written_tokens_have_prices_of_their_own() -> None:
    cost = completion_cost(model="claude-sonnet-4-5", usage=usage())
    assert cost.input is not None
    assert cost.cached is not None
    assert cost.cache_write is not None
    assert cost.cached / 500 == pytest.approx(cost.input / 400 / 10)
    assert cost.cache_write / 100 == pytest.approx(cost.input / 400 * 1.25)
    assert cost == pytest.approx(sum([cost.input, cost.cached, cost.cache_write, cost.output or 0]))


def test_what_is_kept_for_an_hour_costs_more() -> None:
    raw = {"cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 100}}
    long = completion_cost(model="claude-sonnet-4-5", usage=CompletionUsage(USAGE, raw=raw))
    short = completion_cost(model="claude-sonnet-4-5", usage=usage())
    assert (long.cache_write or 0) / (short.cache_write or 1) == pytest.approx(2 / 1.25)


def test_the_price_has_a_date_where_the_list_has_one() -> None:
    from genai_prices.data_snapshot import get_snapshot
    from genai_prices.types import StartDateConstraint

    provider = next(each for each in get_snapshot().providers if each.id == "openai")
    dated = next(
        model
        for model in provider.models
        if isinstance(model.prices, list) and isinstance(model.prices[-1].constraint, StartDateConstraint)
    )
    assert isinstance(dated.prices, list)
    assert isinstance(dated.prices[-1].constraint, StartDateConstraint)
    since = dated.prices[-1].constraint.start_date
    later = datetime(since.year + 1, 1, 1, tzinfo=UTC)
    assert completion_cost(model=f"openai/{dated.id}", usage=usage(), at=later).price_date == since
    earlier = completion_cost(model=f"openai/{dated.id}", usage=usage(), at=datetime(2020, 1, 1, tzinfo=UTC))
    assert earlier.price_date != since


@pytest.mark.parametrize("model", ["custom_openai/gpt-4o", "openai/nobody-has-this", "replay/hello", "no/such"])
def test_a_price_that_nobody_knows(model: str) -> None:
    with pytest.raises(BadRequestError, match=f"no price of {model}.*prices="):
        completion_cost(model=model, usage=usage())


def test_without_genai_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)
    with pytest.raises(BadRequestError, match=r"pip install 'penstock\[prices\]'"):
        completion_cost(model="gpt-4o", usage=usage())


# A table of one's own


@pytest.mark.parametrize("name", ["openai/gpt-4o", "gpt-4o"])
def test_an_own_table_comes_first(name: str) -> None:
    cost = completion_cost(model="openai/gpt-4o", usage=usage(), prices={name: ROW})
    assert cost == pytest.approx(400e-6 + 500e-7 + 125e-6 + 400e-6)
    assert (cost.source, cost.provider, cost.price_date) == ("prices", "acme", None)
    with configured(prices={name: ROW}):
        assert completion_cost(model="openai/gpt-4o", usage=usage()) == cost


def test_the_fields_of_litellms_table() -> None:
    row = {
        **ROW,
        "input_cost_per_token_above_200k_tokens": 2e-6,
        "output_cost_per_reasoning_token": 1e-5,
        "input_cost_per_audio_token": 5e-5,
        "output_cost_per_audio_token": 9e-5,
        "price_date": date(2026, 1, 1),
    }
    counts = usage(
        prompt_tokens=250_000,
        prompt_tokens_details={"audio_tokens": 10},
        completion_tokens_details={"reasoning_tokens": 40, "audio_tokens": 20},
    )
    cost = completion_cost(model="acme-1", usage=counts, prices={"acme-1": row})
    assert cost.input == pytest.approx(249_990 * 2e-6 + 10 * 5e-5)
    assert cost.output == pytest.approx(40 * 4e-6 + 40 * 1e-5 + 20 * 9e-5)
    assert cost.price_date == date(2026, 1, 1)


def test_a_table_without_a_price() -> None:
    with pytest.raises(BadRequestError, match="acme-1 has no input_cost_per_token"):
        completion_cost(model="acme-1", usage=usage(), prices={"acme-1": {"mode": "chat"}})


# Of what


def test_of_a_response_and_of_a_stream() -> None:
    prices = {"replay/hello": ROW}
    response = completion("replay/hello", MESSAGES)
    whole = completion_cost(response, model="replay/hello", prices=prices)
    assert whole > 0
    stream = completion("replay/hello", MESSAGES, stream=True)
    with pytest.raises(BadRequestError, match="no usage was reported"):
        completion_cost(stream, prices=prices)
    stream.collect()
    assert completion_cost(stream, prices=prices) == whole

    async def main() -> Any:
        stream = await acompletion("replay/hello", MESSAGES, stream=True)
        await stream.drain()
        return completion_cost(stream, prices=prices)

    assert asyncio.run(main()) == whole


def test_of_a_call_that_has_ended() -> None:
    costs = []

    class Meter:
        def ended(self, call: Any, end: Any) -> None:
            costs.append(completion_cost(end, prices={"replay/hello": ROW}))

    completion("replay/hello", MESSAGES, hooks=[Meter()])
    assert costs[0] > 0


def test_an_estimate_says_so() -> None:
    stream = completion("replay/hello?nousage=1", MESSAGES, stream=True, estimate_usage=True)
    stream.collect()
    assert completion_cost(stream, prices={"replay/hello?nousage=1": ROW}).estimated
    cut = completion("replay/anthropic/hello", MESSAGES, stream=True)
    with cut:
        next(cut)
    assert completion_cost(cut, prices={"replay/anthropic/hello": ROW}).estimated


def test_the_model_has_to_be_known() -> None:
    with pytest.raises(BadRequestError, match="model='provider/model'"):
        completion_cost(usage=usage())


def test_it_shows_itself() -> None:
    cost = completion_cost(model="acme-1", usage=usage(), prices={"acme-1": ROW})
    assert str(cost) == repr(float(cost))
    assert "cache_write=0.000125" in repr(cost)


# What is known of models


def test_get_model_info() -> None:
    info = penstock.get_model_info("gpt-4o")
    assert info["key"] == "gpt-4o"
    assert info["litellm_provider"] == "openai"
    assert info["input_cost_per_token"] > 0
    assert info["cache_read_input_token_cost"] < info["input_cost_per_token"]
    assert info["max_input_tokens"] == 128_000
    assert "temperature" in info["supported_openai_params"]
    with pytest.raises(NotFoundError, match="nothing is known of openai/nobody-has-this"):
        penstock.get_model_info("openai/nobody-has-this")


def test_get_model_info_of_an_own_table() -> None:
    with configured(prices={"gpt-4o": {**ROW, "max_output_tokens": 5, "supports_vision": True}}):
        info = penstock.get_model_info("gpt-4o")
        assert (info["max_output_tokens"], info["supports_vision"], info["input_cost_per_token"]) == (5, True, 1e-6)


def test_what_a_model_can_do() -> None:
    assert penstock.supports_prompt_caching("gpt-4o") is True
    assert penstock.supports_vision("openai/nobody-has-this") is None
    assert penstock.supports_function_calling("gpt-4o") is None
    assert penstock.supports_web_search("ollama/llama3") is False
    with configured(prices={"gpt-4o": {"supports_function_calling": True, "supports_response_schema": False}}):
        assert penstock.supports_function_calling("gpt-4o") is True
        assert penstock.supports_response_schema("gpt-4o") is False
    with pytest.raises(BadRequestError):
        penstock.supports_vision("no/such")


def test_get_llm_provider() -> None:
    assert penstock.get_llm_provider("gpt-4o") == ("gpt-4o", "openai", None, None)
    assert penstock.get_llm_provider("together/a/b", api_key="k") == ("a/b", "together_ai", "k", None)
    assert penstock.get_llm_provider("a/b", custom_llm_provider="groq")[:2] == ("a/b", "groq")


def test_get_supported_openai_params() -> None:
    params = penstock.get_supported_openai_params("claude-sonnet-4-5")
    assert "tools" in params
    assert "logprobs" not in params
    assert params == penstock.supported_params("claude-sonnet-4-5")


def test_validate_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert penstock.validate_environment("gpt-4o") == {
        "keys_in_environment": False,
        "missing_keys": ["OPENAI_API_KEY"],
    }
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    assert penstock.validate_environment("gpt-4o") == {"keys_in_environment": True, "missing_keys": []}
    assert penstock.validate_environment("azure/x", api_key="k")["missing_keys"] == ["AZURE_API_BASE"]
    assert penstock.validate_environment("ollama/llama3")["keys_in_environment"]
    assert penstock.validate_environment("bedrock/x")["keys_in_environment"]
