"""The wire families that replay speaks, one row each. A family joins here and nowhere else."""

from ..family import Family
from . import chat, cohere, gemini, ollama

FAMILIES: dict[str, Family] = {
    family.name: family for family in (chat.FAMILY, cohere.FAMILY, gemini.FAMILY, ollama.FAMILY)
}
