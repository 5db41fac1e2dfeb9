"""Every LLM through one OpenAI-shaped call.

    from penstock import completion

    for chunk in completion(model="gpt-4o", messages=messages, stream=True):
        print(chunk.choices[0].delta.content or "", end="")

Importing this package loads nothing: each name is loaded when it is first used.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._native import (
        ChatCompletion,
        ChatCompletionChunk,
        ChatCompletionMessage,
        Choice,
        ChoiceDelta,
        ChunkChoice,
        CompletionTokensDetails,
        CompletionUsage,
        Function,
        PromptTokensDetails,
        Record,
        ToolCall,
        __version__,
    )
    from .api import acompletion, completion, stream_chunk_builder
    from .catalogue import list_providers, supported_params
    from .clocks import Timeouts
    from .configuration import Defaults, configure, configured
    from .cost import Cost, completion_cost
    from .counting import TokenCount, token_counter
    from .endpoints import AsyncTextStream, TextStream, aembedding, atext_completion, embedding, text_completion
    from .errors import (
        APIConnectionError,
        APIError,
        APIResponseValidationError,
        APIStatusError,
        APITimeoutError,
        AuthenticationError,
        BadGatewayError,
        BadRequestError,
        BudgetExceededError,
        ConflictError,
        ContentPolicyViolationError,
        ContextWindowExceededError,
        InternalServerError,
        NotFoundError,
        PaymentRequiredError,
        PermissionDeniedError,
        RateLimitError,
        ServiceUnavailableError,
        Timeout,
        UnprocessableEntityError,
        UnsupportedParamsError,
    )
    from .hooks import CallEnded, CallStarted, Hook
    from .many.rows import BulkRow
    from .many.run import AsyncBulk, Bulk, abulk, bulk
    from .model_info import (
        get_llm_provider,
        get_model_info,
        get_supported_openai_params,
        supports_audio_input,
        supports_audio_output,
        supports_function_calling,
        supports_parallel_function_calling,
        supports_prompt_caching,
        supports_reasoning,
        supports_response_schema,
        supports_tool_choice,
        supports_vision,
        supports_web_search,
        validate_environment,
    )
    from .parsed import ParsedChatCompletion, ParsedChatCompletionMessage, ParsedChoice
    from .router import Router
    from .stream import AsyncStream, Stream
    from .tools import FunctionCall

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIResponseValidationError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncBulk",
    "AsyncStream",
    "AsyncTextStream",
    "AuthenticationError",
    "BadGatewayError",
    "BadRequestError",
    "BudgetExceededError",
    "Bulk",
    "BulkRow",
    "CallEnded",
    "CallStarted",
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatCompletionMessage",
    "Choice",
    "ChoiceDelta",
    "ChunkChoice",
    "CompletionTokensDetails",
    "CompletionUsage",
    "ConflictError",
    "ContentPolicyViolationError",
    "ContextWindowExceededError",
    "Cost",
    "Defaults",
    "Function",
    "FunctionCall",
    "Hook",
    "InternalServerError",
    "NotFoundError",
    "ParsedChatCompletion",
    "ParsedChatCompletionMessage",
    "ParsedChoice",
    "PaymentRequiredError",
    "PermissionDeniedError",
    "PromptTokensDetails",
    "RateLimitError",
    "Record",
    "Router",
    "ServiceUnavailableError",
    "Stream",
    "TextStream",
    "Timeout",
    "Timeouts",
    "TokenCount",
    "ToolCall",
    "UnprocessableEntityError",
    "UnsupportedParamsError",
    "__version__",
    "abulk",
    "acompletion",
    "aembedding",
    "atext_completion",
    "bulk",
    "completion",
    "completion_cost",
    "configure",
    "configured",
    "embedding",
    "get_llm_provider",
    "get_model_info",
    "get_supported_openai_params",
    "list_providers",
    "stream_chunk_builder",
    "supported_params",
    "supports_audio_input",
    "supports_audio_output",
    "supports_function_calling",
    "supports_parallel_function_calling",
    "supports_prompt_caching",
    "supports_reasoning",
    "supports_response_schema",
    "supports_tool_choice",
    "supports_vision",
    "supports_web_search",
    "text_completion",
    "token_counter",
    "validate_environment",
]

_HOMES = {
    "_native": (
        "ChatCompletion",
        "ChatCompletionChunk",
        "ChatCompletionMessage",
        "Choice",
        "ChoiceDelta",
        "ChunkChoice",
        "CompletionTokensDetails",
        "CompletionUsage",
        "Function",
        "PromptTokensDetails",
        "Record",
        "ToolCall",
        "__version__",
    ),
    "api": ("acompletion", "completion", "stream_chunk_builder"),
    "catalogue": ("list_providers", "supported_params"),
    "clocks": ("Timeouts",),
    "router": ("Router",),
    "configuration": ("Defaults", "configure", "configured"),
    "counting": ("TokenCount", "token_counter"),
    "endpoints": ("AsyncTextStream", "TextStream", "aembedding", "atext_completion", "embedding", "text_completion"),
    "hooks": ("CallEnded", "CallStarted", "Hook"),
    "many.rows": ("BulkRow",),
    "many.run": ("AsyncBulk", "Bulk", "abulk", "bulk"),
    "parsed": ("ParsedChatCompletion", "ParsedChatCompletionMessage", "ParsedChoice"),
    "stream": ("AsyncStream", "Stream"),
    "tools": ("FunctionCall",),
    "cost": (
        "Cost",
        "completion_cost",
    ),
    "model_info": (
        "get_llm_provider",
        "get_model_info",
        "get_supported_openai_params",
        "validate_environment",
        "supports_vision",
        "supports_audio_input",
        "supports_audio_output",
        "supports_function_calling",
        "supports_parallel_function_calling",
        "supports_tool_choice",
        "supports_response_schema",
        "supports_reasoning",
        "supports_web_search",
        "supports_prompt_caching",
    ),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> "Any":
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # What has no home of its own is an exception.
    module = __import__(f"{__name__}.{_HOME.get(name, 'errors')}", fromlist=[name])
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(type(sys)):  # type: ignore[misc]  # the class of modules, without importing `types`
    """This module. It has no flags: one that is set would change nothing, so it is an error."""

    def __setattr__(self, name: str, value: "Any") -> None:
        if name in self.__dict__ or name.startswith("_") or name in __all__ or isinstance(value, type(sys)):
            super().__setattr__(name, value)
            return
        raise AttributeError(
            f"penstock has no flag {name}: defaults for all calls are set by penstock.configure(...), which tells "
            "those it knows; all else is given with each call"
        )


sys.modules[__name__].__class__ = _Package
