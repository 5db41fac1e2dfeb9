"""Requests of the Invocations family: those of the text family, for what it carries is theirs."""

from .text import build

__all__ = ["build"]
