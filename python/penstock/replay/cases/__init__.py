"""The wire families that replay speaks, one row each. A family joins here and nowhere else."""

from ..family import Family
from . import anthropic, chat, cohere, converse, gemini, invocations, invoke, ollama, predictions, responses, text

FAMILIES: dict[str, Family] = {
    module.FAMILY.name: module.FAMILY
    for module in (chat, anthropic, cohere, converse, invoke, gemini, ollama, responses, text, invocations, predictions)
}
