"""The wire families that replay speaks, one row each. A family joins here and nowhere else."""

from ..family import Family
from . import anthropic, chat, converse, responses

FAMILIES: dict[str, Family] = {
    family.name: family for family in (chat.FAMILY, anthropic.FAMILY, converse.FAMILY, responses.FAMILY)
}
