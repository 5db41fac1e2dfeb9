"""Every LLM through one OpenAI-shaped call.

    from penstock import completion

    for chunk in completion(model="gpt-4o", messages=messages, stream=True):
        print(chunk.choices[0].delta.content or "", end="")

Importing this package loads nothing: each name is loaded when it is first used.
"""

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
    from .many.rows import BulkRow
    from .many.run import AsyncBulk, Bulk, abulk, bulk
    from .stream import AsyncStream, Stream

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIResponseValidationError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncBulk",
    "AsyncStream",
    "AuthenticationError",
    "BadGatewayError",
    "BadRequestError",
    "BudgetExceededError",
    "Bulk",
    "BulkRow",
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
    "Function",
    "InternalServerError",
    "NotFoundError",
    "PaymentRequiredError",
    "PermissionDeniedError",
    "PromptTokensDetails",
    "RateLimitError",
    "Record",
    "ServiceUnavailableError",
    "Stream",
    "Timeout",
    "Timeouts",
    "ToolCall",
    "UnprocessableEntityError",
    "UnsupportedParamsError",
    "__version__",
    "abulk",
    "acompletion",
    "bulk",
    "completion",
    "list_providers",
    "stream_chunk_builder",
    "supported_params",
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
    "many.rows": ("BulkRow",),
    "many.run": ("AsyncBulk", "Bulk", "abulk", "bulk"),
    "stream": ("AsyncStream", "Stream"),
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
