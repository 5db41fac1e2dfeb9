"""Many requests at once: the loop that feeds them, and the two iterators over what became of them."""

import asyncio
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from heapq import heappop, heappush
from time import monotonic
from typing import Any, Literal, Self, Unpack

from .. import retry
from ..api import answer_of, check
from ..call import Options
from ..configuration import current
from ..cost import completion_cost
from ..errors import (
    APIConnectionError,
    APIError,
    AuthenticationError,
    BadGatewayError,
    BadRequestError,
    NotFoundError,
    PaymentRequiredError,
    PermissionDeniedError,
    RateLimitError,
    ServiceUnavailableError,
)
from ..stream import Attempt
from ..wire import encode
from .checkpoint import Checkpoint, Output
from .pace import Limits
from .rows import BulkRow, Lines, asked, name_of, read, rows_of

RETRIES = 5
"""A row's further attempts unless the caller says otherwise: nobody waits for it, and the pace is found by refusals."""

OVERLOAD = (RateLimitError, ServiceUnavailableError, BadGatewayError, APIConnectionError)
"""Errors that say that it is too much."""

LONGEST_WAIT = 60.0
"""Seconds. A provider that asks for longer is asked again all the same."""

HOPELESS = (AuthenticationError, PermissionDeniedError, PaymentRequiredError, NotFoundError)
IN_A_ROW = 10
"""So many rows one after the other that fail through no fault of theirs end the run: the next million would fail too.
They are not done then."""

HELD = 8
"""Rows per place in flight that may wait for an earlier one, where the order is kept."""

TOKEN = 4
"""Characters of JSON per token, to keep `tpm` before the provider has counted."""

LANE = 8
"""Places in flight that share a pool of connections."""

SKIPPED = 1000
"""Rows done before that are passed over between two turns of the event loop."""

UNPRICED = 1000
"""Models without a price that are remembered: where no price list is installed it takes long to find that out."""


@dataclass(slots=True)
class Progress:
    """How far a run is.

    rows: results of this run, `failed` of them errors. resumed: rows that were done before it. in_flight: sent and not
    answered; limit: how many may be. place, size: bytes of the input file read, and in all; None for other inputs.
    cost: in US dollars, of the rows whose price is known.
    """

    rows: int = 0
    failed: int = 0
    resumed: int = 0
    in_flight: int = 0
    limit: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    place: int | None = None
    size: int | None = None


class _Attempts(list[Attempt]):
    """The attempts of one row, seen by the run as they end."""

    def __init__(self, seen: Callable[[Attempt, int], None]) -> None:
        super().__init__()
        self._seen = seen

    def append(self, attempt: Attempt, /) -> None:
        super().append(attempt)
        self._seen(attempt, len(self))


class Run:
    """The rows in flight, on one event loop. `notify` is called there when something is ready, or it is over."""

    def __init__(
        self,
        requests: Any,
        *,
        limits: Limits,
        model: str | None,
        checkpoint: "str | os.PathLike[str] | None" = None,
        output: "str | os.PathLike[str] | None" = None,
        ordered: bool = False,
        options: Mapping[str, Any],
    ) -> None:
        for name in ("api_key", "api_base", "base_url", "client"):
            if options.get(name) is not None and model is None and options.get("custom_llm_provider") is None:
                raise BadRequestError(f"{name} needs model, or rows would choose where it goes", param=name)
        check(model, options)
        self.model = model
        self.options = dict(options)
        if (options.get("max_retries"), options.get("num_retries"), current().max_retries) == (None, None, None):
            self.options["max_retries"] = RETRIES
        self.ordered = ordered
        self.limits = limits
        self.pace, self.requests_rate, self.tokens_rate = limits.pace, limits.requests, limits.tokens
        self.rows = rows_of(requests)
        if output is not None and checkpoint is None:
            checkpoint = f"{os.fspath(output)}.checkpoint"
        source = requests if isinstance(requests, str | os.PathLike) else None
        self.checkpoint = None if checkpoint is None else Checkpoint(checkpoint, source)
        self.output: Output | None = None
        try:
            if output is not None and self.checkpoint is not None:
                self.output = Output(output, self.checkpoint)
        except BaseException:
            self.close()
            raise
        self.context = copy_context()  # with the defaults that hold where the run was made
        self.progress = Progress(resumed=self.checkpoint.done.count if self.checkpoint else 0)
        self.ready: deque[BulkRow] = deque()
        self.over = False
        self.stopping = False
        self.failure: BaseException | None = None
        self.notify: Callable[[], None] = lambda: None
        self._in_flight = 0
        self._places: list[int] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiter: asyncio.Future[None] | None = None
        self._suspects: list[BulkRow] = []
        self._order: deque[int] = deque()
        self._held: dict[int, BulkRow] = {}
        self._completion_tokens = 0.0
        self._unpriced: set[str] = set()

    # Feeding

    async def feed(self, next_row: Callable[[], Awaitable[tuple[int, Any] | None]]) -> None:
        """Sends rows while there are any, and returns when all of them have come to an end."""
        try:
            while not self.stopping and (item := await next_row()) is not None:
                index, raw = item
                tokens = self._estimate(raw) if self.tokens_rate is not None else 0.0
                if not await self._room(tokens):
                    break
                self._start(index, raw, tokens)
            while self._tasks:
                await self.woken()
            self._release()
        except asyncio.CancelledError:
            pass  # closed
        except BaseException as error:  # noqa: BLE001  raised where the caller is
            self.failure = self.failure or error
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self.over = True
            self.notify()

    async def _room(self, tokens: float) -> bool:
        """Waits until one more may be sent; False if none shall be any more."""
        while not self.stopping:
            limit = int(self.pace.limit)
            free = self.pace.room(self._in_flight) and len(self.ready) < limit
            if free and not (self.ordered and len(self._order) >= HELD * limit):
                now = monotonic()
                wait = self.pace.wait(now)
                if self.requests_rate is not None:
                    wait = max(wait, self.requests_rate.wait(now, 1))
                if self.tokens_rate is not None:
                    wait = max(wait, self.tokens_rate.wait(now, tokens))
                if not wait:
                    return True
                await self.woken(wait)
            else:
                await self.woken()
        return False

    async def woken(self, seconds: float | None = None) -> None:
        """Waits for `wake`, or for so long."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, self.wake)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def wake(self) -> None:
        """Something has changed for the feeding loop. To be called on the event loop."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def stop(self) -> None:
        """Sends no more rows; what is in flight comes to its end. To be called on the event loop."""
        self.stopping = True
        self.wake()

    def _estimate(self, raw: Any) -> float:
        length = len(raw) if isinstance(raw, bytes) else len(encode(raw))
        return length / TOKEN + self._completion_tokens

    def _start(self, index: int, raw: Any, tokens: float) -> None:
        if self.requests_rate is not None:
            self.requests_rate.take(1)
        if self.tokens_rate is not None:
            self.tokens_rate.take(tokens)
        if self.ordered:
            self._order.append(index)
        # The lowest free place, so that connections are used again and not many are open.
        place = heappop(self._places) if self._places else self._in_flight
        self._in_flight += 1
        task = asyncio.create_task(self._ask(index, raw, tokens, place))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._in_flight -= 1
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failure = self.failure or error
            self.stopping = True
        self.wake()

    # One row

    async def _ask(self, index: int, raw: Any, tokens: float, place: int) -> None:
        began = monotonic()
        attempts = _Attempts(self._seen)
        request, response, failed = raw, None, None
        try:
            request = read(raw)
            model, messages, given = asked(request, self.model)
            response = await answer_of(model, messages, {**self.options, **given}, attempts, place // LANE)
        except APIError as error:
            failed = error
        finally:
            heappush(self._places, place)
        usage = response.usage if response is not None else failed.usage if failed is not None else None
        if self.tokens_rate is not None:
            self._settle(usage, tokens)
        cost = self._cost(usage, attempts)
        name = name_of(request)
        latency = monotonic() - began
        self._judge(BulkRow(index, name, request, response, failed, usage, cost, latency, tuple(attempts)))

    def _cost(self, usage: Any, attempts: list[Attempt]) -> float | None:
        """What a usage cost, by whom was asked last. An answer is not lost for want of a price, or for a wrong one."""
        if usage is None or not attempts:
            return None
        model = f"{attempts[-1].provider}/{attempts[-1].model}"
        if model not in self._unpriced:
            try:
                return float(completion_cost(model=model, usage=usage))
            except Exception:  # noqa: BLE001
                if len(self._unpriced) < UNPRICED:
                    self._unpriced.add(model)
        return None

    def _seen(self, attempt: Attempt, number: int) -> None:
        """Learns from an attempt how much the provider bears."""
        now, error = monotonic(), attempt.error
        if number > 1 and self.requests_rate is not None:
            self.requests_rate.take(1)
        if error is None:
            self.pace.answered(now, attempt.seconds, self._in_flight)
        elif isinstance(error, OVERLOAD):
            wait = error.retry_after
            self.pace.refused(now, attempt.seconds, None if wait is None else min(wait, LONGEST_WAIT))

    def _settle(self, usage: Any, tokens: float) -> None:
        """Puts what was used in the place of what was reserved for it."""
        total = usage.total_tokens if usage is not None else None
        if total is not None and self.tokens_rate is not None:
            self.tokens_rate.take(total - tokens)
            self._completion_tokens += ((usage.completion_tokens or 0) - self._completion_tokens) / 8

    def _judge(self, row: BulkRow) -> None:
        """Gives a result out, unless it looks as if all the others would fail the same way."""
        if row.error is None or not _hopeless(row.error):
            self.limits.failing = 0
            if self.failure is None:
                for suspect in self._suspects:
                    self._place(suspect)
                self._suspects.clear()
            self._place(row)
            return
        self._suspects.append(row)
        self.limits.failing += 1
        if self.limits.failing >= IN_A_ROW and self.failure is None:
            row.error.add_note(f"{IN_A_ROW} rows in succession failed like this: they, and the rest, are not done")
            self.failure = row.error
            self.stopping = True

    def _release(self) -> None:
        """At the end: what waited for something that will not come any more."""
        if self.failure is None:
            for suspect in self._suspects:
                self._place(suspect)
        for index in sorted(self._held):
            self._give(self._held.pop(index))

    def _place(self, row: BulkRow) -> None:
        if not self.ordered:
            self._give(row)
            return
        self._held[row.index] = row
        while self._order and self._order[0] in self._held:
            self._give(self._held.pop(self._order.popleft()))

    def _give(self, row: BulkRow) -> None:
        if self.output is not None:
            self.output.write(row.index, row.to_json())
        progress = self.progress
        progress.rows += 1
        progress.failed += row.error is not None
        progress.cost += row.cost or 0.0
        if row.usage is not None:
            progress.prompt_tokens += row.usage.prompt_tokens or 0
            progress.completion_tokens += row.usage.completion_tokens or 0
        self.ready.append(row)
        self.notify()

    # The caller's side

    def handled(self, index: int) -> None:
        """The caller is done with a row. With an output it was done when it was written there."""
        if self.checkpoint is not None and self.output is None:
            self.checkpoint.add(index)
            self.checkpoint.commit(sync=self.checkpoint.due())

    def left(self, rows: Iterable[Any]) -> Iterator[tuple[int, Any] | None]:
        """The rows that are not done, with their numbers; None now and then where many of them are passed over."""
        done = self.checkpoint.done if self.checkpoint is not None else ()
        passed = 0
        for index, raw in enumerate(rows):
            if raw == b"" or index in done:
                passed += 1
                if passed % SKIPPED == 0:
                    yield None
            else:
                yield index, raw

    def report(self) -> Progress:
        """The progress, as of now."""
        progress = self.progress
        progress.in_flight, progress.limit = self._in_flight, int(self.pace.limit)
        if isinstance(self.rows, Lines):
            progress.place, progress.size = self.rows.place, self.rows.size
        return progress

    def close(self) -> None:
        """Lets go of the files, when nothing runs any more."""
        if isinstance(self.rows, Lines):
            self.rows.close()
        if self.output is not None:
            self.output.close()
        if self.checkpoint is not None:
            self.checkpoint.close()


def _hopeless(error: APIError) -> bool:
    """Whether this is no fault of the row, and nothing that passes by itself."""
    spent = isinstance(error, RateLimitError) and not retry.retryable(error)
    return spent or isinstance(error, HOPELESS) or type(error) is APIConnectionError


class Bulk:
    """The results of many requests, as an iterator and a context manager. A thread of its own does the asking.

    A row counts as done when the next one is asked for: then the checkpoint has it. With `output` it is done when it is
    written there.

    Raises, while iterating, what ends the whole run:
        APIError: rows one after the other fail in a way that all would: no key, no credit, no such model, no server.
        OSError: the output or the checkpoint cannot be written.
        (and what the iterable of requests raises)
    """

    def __init__(self, run: Run) -> None:
        if hasattr(run.rows, "__aiter__"):
            run.close()
            raise BadRequestError("bulk() takes an ordinary iterable; abulk() an asynchronous one", param="requests")
        self._run = run
        self._left = run.left(run.rows)
        self._inbox: deque[tuple[int, Any]] = deque()
        self._exhausted = False
        self._unread: BaseException | None = None
        self._last: int | None = None
        self._changed = threading.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> BulkRow:
        run = self._run
        if self._last is not None:
            run.handled(self._last)
            self._last = None
        while True:
            if run.ready:
                row = run.ready.popleft()
                self._last = row.index
                if self._hungry():
                    self._fill()
                self._wake()
                return row
            if run.over or self._closed:
                if run.ready:
                    continue  # given out in the last moment
                self.close()
                failure = run.failure or self._unread
                if failure is not None:
                    run.failure = self._unread = None
                    raise failure
                raise StopIteration
            if self._hungry():
                self._fill()
                self._begin()
                self._wake()
                continue
            with self._changed:
                self._changed.wait_for(self._something)

    def _something(self) -> bool:
        """Whether there is anything to do but to wait."""
        return bool(self._run.ready) or self._run.over or self._hungry()

    def _hungry(self) -> bool:
        return not self._exhausted and len(self._inbox) < max(16, self._run.pace.limit)

    def _fill(self) -> None:
        """Takes rows in, in the caller's thread, until there are enough of them or a result is there."""
        target = 2 * max(16, self._run.pace.limit)
        try:
            for item in self._left:
                if item is not None:
                    self._inbox.append(item)
                    if len(self._inbox) >= target or (self._run.ready and self._inbox):
                        return
        except Exception as error:  # noqa: BLE001  raised when what was read before it has been answered
            self._unread = error
        self._exhausted = True

    async def _next_row(self) -> tuple[int, Any] | None:
        while not self._run.stopping:
            if self._inbox:
                item = self._inbox.popleft()
                if self._hungry():
                    self._notify()
                return item
            if self._exhausted:
                return None
            self._notify()
            await self._run.woken()
        return None

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify()

    def _wake(self) -> None:
        self._call(self._run.wake)

    def _call(self, function: Callable[[], None]) -> None:
        """Has the event loop call this, if it still runs."""
        if self._loop is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(function)

    def _begin(self) -> None:
        if self._thread is not None:
            return
        self._run.notify = self._notify
        begun = threading.Event()

        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._task = asyncio.current_task()
            begun.set()
            await self._run.feed(self._next_row)

        self._thread = threading.Thread(
            target=self._run.context.run, args=(asyncio.run, main()), name="penstock-bulk", daemon=True
        )
        self._thread.start()
        begun.wait()

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return self._run.report()

    def stop(self) -> None:
        """Sends no more rows. What is in flight comes to its end, and iterating on gives it out."""
        self._run.stopping = True
        self._call(self._run.stop)

    def close(self) -> None:
        """Ends it at once: what is in flight is aborted, and not done."""
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            self._call(self._abort)
            self._thread.join()
        self._run.close()
        self._run.ready.clear()

    def _abort(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncBulk:
    """The results of many requests, as an asynchronous iterator and context manager. As Bulk, with `aclose()`."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._rows = run.rows
        self._task: asyncio.Task[None] | None = None
        self._last: int | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BulkRow:
        run = self._run
        if self._task is None and not self._closed:
            self._begin()
        if self._last is not None:
            run.handled(self._last)
            self._last = None
        while not run.ready:
            if run.over or self._closed:
                await self.aclose()
                failure, run.failure = run.failure, None
                if failure is not None:
                    raise failure
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        row = run.ready.popleft()
        run.wake()
        self._last = row.index
        return row

    def _begin(self) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError("abulk() needs asyncio; bulk() in a thread works under any event loop") from None
        items = self._items()
        self._run.notify = self._notify

        async def next_row() -> tuple[int, Any] | None:
            return await anext(items, None)

        self._task = asyncio.create_task(self._run.feed(next_row), context=self._run.context)

    async def _items(self) -> AsyncIterator[tuple[int, Any]]:
        if hasattr(self._rows, "__aiter__"):
            done, index = self._run.checkpoint.done if self._run.checkpoint else (), 0
            async for raw in self._rows:
                if index not in done:
                    yield index, raw
                index += 1
            return
        for item in self._run.left(self._rows):
            if item is None:
                await asyncio.sleep(0)
            else:
                yield item

    def _notify(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return self._run.report()

    def stop(self) -> None:
        """Sends no more rows. What is in flight comes to its end, and iterating on gives it out."""
        self._run.stop()

    async def aclose(self) -> None:
        """Ends it at once: what is in flight is aborted, and not done."""
        if self._closed:
            return
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._run.close()
        self._run.ready.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def bulk(
    requests: Any,
    *,
    model: str | None = None,
    max_in_flight: int | Literal["auto"] = "auto",
    rpm: float | None = None,
    tpm: float | None = None,
    checkpoint: "str | os.PathLike[str] | None" = None,
    output: "str | os.PathLike[str] | None" = None,
    ordered: bool = False,
    **options: Unpack[Options],
) -> Bulk:
    """Asks a model many times at once, in bounded memory, and gives one BulkRow for each row, as they come.

    Args:
        requests: the path of a JSON Lines file, an iterable, an Arrow table. A row is a dict of messages (or a prompt)
            with parameters of its own, a row of OpenAI's batch format, a list of messages, or a text.
        model: asked for every row. Without it each row names its own.
        max_in_flight: how many at once; "auto" finds out, by refusals and by the latency. A number is a ceiling.
        rpm: requests a minute, spent evenly.
        tpm: tokens a minute; what a row will need is estimated, and then put right.
        checkpoint: a file that remembers what is done. The same call with the same file does the rest.
        output: a JSON Lines file of the results; its checkpoint is beside it (`.checkpoint`) unless another is named.
        ordered: give results in the order of the rows; those that wait for an earlier one are not done yet.
        options: as `completion`'s, for every row; parameters in a row win. max_retries is 5, unless it or
            `configure` says otherwise.

    Raises:
        BadRequestError: an argument, or a file that does not belong to this run.
        AuthenticationError: no key.
        OSError: a file cannot be read or written.
    """
    return Bulk(Run(requests, **_arguments(locals())))


def abulk(
    requests: Any,
    *,
    model: str | None = None,
    max_in_flight: int | Literal["auto"] = "auto",
    rpm: float | None = None,
    tpm: float | None = None,
    checkpoint: "str | os.PathLike[str] | None" = None,
    output: "str | os.PathLike[str] | None" = None,
    ordered: bool = False,
    **options: Unpack[Options],
) -> AsyncBulk:
    """`bulk` for asyncio. `requests` may be an asynchronous iterable too; an ordinary one must not block the loop."""
    return AsyncBulk(Run(requests, **_arguments(locals())))


def _arguments(given: dict[str, Any]) -> dict[str, Any]:
    limits = Limits(given["max_in_flight"], given["rpm"], given["tpm"], monotonic())
    same = ("model", "checkpoint", "output", "ordered", "options")
    return {"limits": limits, **{name: given[name] for name in same}}
