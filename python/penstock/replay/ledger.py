"""What the callers did, kept by the server's thread alone."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .family import Json

LOG_LIMIT = 1000
"""Requests that are kept one by one; the counts go on."""


@dataclass(slots=True)
class Exchange:
    """One request and what became of it."""

    id: str
    """The x-request-id it was answered with."""
    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case; a secret's value is replaced by the start of its SHA-256."""
    body: Any
    """The JSON of the request, else its text."""
    model: str = ""
    """As sent, less the script."""
    script: str = ""
    status: int = 0
    """0 until the answer begins."""
    bytes: int = 0
    """Body bytes handed to the kernel, without the framing of chunks."""
    chunks: int = 0
    """Pieces in which they were written: one for each event unless the script says otherwise."""
    finished: bool = False
    """Whether the answer was sent as meant, faults included."""
    closed_early: bool = False
    """Whether the client went away before that."""
    seconds: float | None = None
    """From the request to the end of the answer, or to the client's going; None while it runs."""


class Ledger:
    """Connections, requests, and counts by model."""

    def __init__(self) -> None:
        self.open: set[Any] = set()
        self.clear()

    def clear(self) -> None:
        """Forgets everything but the connections that are open now."""
        self.opened = len(self.open)
        self.log: deque[Exchange] = deque(maxlen=LOG_LIMIT)
        self.models: dict[str, dict[str, int]] = {}
        self.failed: dict[tuple[str, str], int] = {}

    def connect(self, connection: Any) -> None:
        """Notes a new connection."""
        self.open.add(connection)
        self.opened += 1

    def settle(self, exchange: Exchange) -> None:
        """Adds a request that is over to the counts of its model."""
        if not exchange.model:
            return
        row = self.models.setdefault(exchange.model, {"requests": 0, "chunks": 0, "bytes": 0, "closed_early": 0})
        row["requests"] += 1
        row["chunks"] += exchange.chunks
        row["bytes"] += exchange.bytes
        row["closed_early"] += exchange.closed_early

    def fails(self, model: str, script: str, limit: int) -> bool:
        """Whether a request of this model and script is among the first `limit`; counts it."""
        count = self.failed[model, script] = self.failed.get((model, script), 0) + 1
        return count <= limit

    def snapshot(self) -> Json:
        """The statistics as plain data."""
        return {
            "connections": {"opened": self.opened, "open": len(self.open)},
            "models": {name: dict(counts) for name, counts in self.models.items()},
            "requests": [asdict(exchange) for exchange in self.log],
        }
