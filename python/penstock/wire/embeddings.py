"""Embeddings, by family: the request for a list of texts, and the answer in OpenAI's shape.

    build(family, model, texts, parameters) -> dict
    read(family, document, model) -> dict

Here in one place, for a family's embeddings have nothing in common with its chat.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import APIResponseValidationError, UnsupportedParamsError

Build = Callable[[str, Sequence[Any], Mapping[str, Any]], dict[str, Any]]
Read = Callable[[Any], tuple[Sequence[Any], dict[str, int]]]

PARAMETERS = frozenset({"dimensions", "encoding_format", "user", "input_type"})
"""OpenAI's, and one that the other families share: what the vectors are for."""

LACKS: Mapping[str, frozenset[str]] = {
    "chat": frozenset(),
    "cohere": frozenset({"user"}),
    "gemini": frozenset({"user"}),
    "ollama": frozenset({"user", "input_type"}),
}
"""The families that have embeddings, and the parameters that each has nothing for."""

PURPOSES: Mapping[str, str] = {
    "search_document": "RETRIEVAL_DOCUMENT",
    "search_query": "RETRIEVAL_QUERY",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
}
"""`input_type` as Cohere names it, and the task type of the Gemini family that is the same."""


def build(family: str, model: str, texts: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The request body.

    Raises:
        UnsupportedParamsError: something that the family has nothing for.
    """
    if family != "chat":
        texts = [texts] if isinstance(texts, str) else texts
        if not all(isinstance(text, str) for text in texts):
            raise UnsupportedParamsError("input must be texts: tokens are for those that do as OpenAI", param="input")
        wanted = parameters.get("encoding_format", "float")
        if wanted != "float":
            raise UnsupportedParamsError(f"encoding_format {wanted!r}: here are floats only", param="encoding_format")
    return _FAMILIES[family][0](model, texts, parameters)


def read(family: str, document: Any, model: str) -> dict[str, Any]:
    """The response, in OpenAI's shape.

    Raises:
        APIResponseValidationError: the document is none of the family's.
    """
    if family == "chat":
        if not isinstance(document, Mapping) or not isinstance(document.get("data"), list):
            raise APIResponseValidationError("the answer has no list of embeddings in `data`", body=document)
        return {"object": "list", "model": model, **document}
    try:
        vectors, usage = _FAMILIES[family][1](document)
        data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    except (KeyError, TypeError, AttributeError) as error:
        raise APIResponseValidationError(f"the answer has no embeddings: {error}", body=document) from error
    response: dict[str, Any] = {"object": "list", "model": model, "data": data}
    return {**response, "usage": usage} if usage else response


def _tokens(count: Any) -> dict[str, int]:
    return {} if count is None else {"prompt_tokens": int(count), "total_tokens": int(count)}


def _build_chat(model: str, texts: Sequence[Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {"model": model, "input": texts, **parameters}


def _build_gemini(model: str, texts: Sequence[Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    same: dict[str, Any] = {"model": f"models/{model}"}
    if "dimensions" in parameters:
        same["outputDimensionality"] = parameters["dimensions"]
    if "input_type" in parameters:
        purpose = parameters["input_type"]
        same["taskType"] = PURPOSES.get(purpose, purpose)
    return {"requests": [{**same, "content": {"parts": [{"text": text}]}} for text in texts]}


def _read_gemini(document: Any) -> tuple[list[Any], dict[str, int]]:
    usage = document.get("usageMetadata") or {}
    return [each["values"] for each in document["embeddings"]], _tokens(usage.get("promptTokenCount"))


def _build_cohere(model: str, texts: Sequence[Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    body = {
        "model": model,
        "texts": list(texts),
        # Version 3 and later want to know; a document is what is embedded most.
        "input_type": parameters.get("input_type", "search_document"),
        "embedding_types": ["float"],
    }
    return {**body, "output_dimension": parameters["dimensions"]} if "dimensions" in parameters else body


def _read_cohere(document: Any) -> tuple[list[Any], dict[str, int]]:
    billed = (document.get("meta") or {}).get("billed_units") or {}
    return document["embeddings"]["float"], _tokens(billed.get("input_tokens"))


def _build_ollama(model: str, texts: Sequence[Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    body = {"model": model, "input": list(texts)}
    return {**body, "dimensions": parameters["dimensions"]} if "dimensions" in parameters else body


def _read_ollama(document: Any) -> tuple[list[Any], dict[str, int]]:
    return document["embeddings"], _tokens(document.get("prompt_eval_count"))


_FAMILIES: Mapping[str, tuple[Build, Read]] = {
    "chat": (_build_chat, lambda document: (document["data"], {})),
    "cohere": (_build_cohere, _read_cohere),
    "gemini": (_build_gemini, _read_gemini),
    "ollama": (_build_ollama, _read_ollama),
}
