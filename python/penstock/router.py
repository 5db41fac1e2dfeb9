"""Router: several deployments behind one model name, and what happens when one of them fails.

    router = Router(model_list=[{"model_name": "fast", "litellm_params": {"model": "gpt-4o-mini"}}, ...])
    response = router.completion("fast", messages)

Which deployment is asked, and which is left alone, are the native module's rules (`Pool`); here they meet calls. One
coroutine serves both worlds, as in `api`.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from random import random
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from . import retry, transport
from ._native import ChatCompletion, CompletionUsage, Lease, Pool, Refusal, RetryBudget
from .api import OpenPort, observed, open_blocking, pursue
from .call import CHAT, Options, UnformattedOptions, check_keywords, one_of, plan
from .clocks import NEVER, Timeouts
from .configuration import current
from .cost import price_of
from .counting import prompt_tokens
from .errors import (
    APIError,
    BadRequestError,
    ContextWindowExceededError,
    RateLimitError,
    ServiceUnavailableError,
)
from .providers.resolve import resolve
from .stream import AsyncStream, Attempt, Flow, Outcome, Stream

if TYPE_CHECKING:
    from .parsed import ParsedChatCompletion

T = TypeVar("T")

STRATEGIES = {
    "simple-shuffle": "shuffle",
    "least-busy": "least-busy",
    "latency-based-routing": "lowest-latency",
    "cost-based-routing": "lowest-cost",
    "usage-based-routing": "lowest-usage",
    "usage-based-routing-v2": "lowest-usage",
}
"""litellm's names, and those of the rules behind them."""

PATIENCE = 60.0
"""Seconds that a call waits for a place at most: what `retry-after` may ask for at most."""

SHORTEST_NAP, LONGEST_NAP = 0.002, 0.05
"""Seconds between two looks for a place that another request has to leave."""

RESERVE = 100.0
"""Retries a minute beside those that `retry_budget` allows: those who ask seldom may retry as often as they say."""

ENVIRONMENT = "os.environ/"

ENTRY = ("model_name", "litellm_params", "model_info", "rpm", "tpm")

ROUTING = (
    "rpm",
    "tpm",
    "max_parallel_requests",
    "weight",
    "order",
    "tags",
    "cooldown_time",
    "input_cost_per_token",
    "output_cost_per_token",
)
"""Of `litellm_params`, what is for the router and not for the call."""

OF_DEPLOYMENTS = ("api_key", "api_base", "base_url", "api_version", "organization", "custom_llm_provider")
"""What a call through a router cannot say: it would go to whichever deployment answers, another vendor's too."""

FALLBACKS = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks")

ANY = "*"
"""In fallbacks: every model that has none of its own."""

ELSEWHERE = {
    **dict.fromkeys(
        ("redis_url", "redis_host", "redis_port", "redis_password", "cache_kwargs"),
        "limits and cooldowns are counted in this process; share one router between threads and tasks",
    ),
    **dict.fromkeys(("cache_responses", "caching_groups", "client_ttl"), "there is no cache of responses"),
    **dict.fromkeys(("set_verbose", "debug_level"), "errors say what was tried, deployments() what is known"),
    **dict.fromkeys(
        ("retry_policy", "model_group_retry_policy"), "errors say themselves whether to retry; num_retries"
    ),
    "allowed_fails_policy": "errors say themselves whose fault they are; allowed_fails",
    "stream_timeout": "timeout takes penstock.Timeouts(first_token=..., idle=...)",
    "routing_strategy_args": "strategies have no arguments",
    "max_fallbacks": "no model is asked twice",
    "semaphore": "default_max_parallel_requests",
    **dict.fromkeys(
        ("polling_interval", "default_priority"), "there is no queue by priority; `order` is for deployments"
    ),
    **dict.fromkeys(
        ("provider_budget_config", "alerting_config", "router_general_settings"), "there is none of it here"
    ),
}
"""litellm's arguments that this router lacks, with what to use instead or why."""


class UnformattedRoutedOptions(UnformattedOptions, total=False):
    """RoutedOptions without the response format, whose type is that of the result."""

    context_window_fallbacks: "Sequence[str | Mapping[str, Any]] | None"


class RoutedOptions(Options, UnformattedRoutedOptions, total=False):
    """What a call through a router takes: what `completion` takes, and these."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment as it was when asked for.

    health: "up", "cooling" (left alone for `cooldown` more seconds) or "probing" (one request is on its way to see).
    answered, failed, tokens: in all; failures are the deployment's own, tokens those that were reported.
    rpm, tpm: requests and tokens of the last minute. first_token, whole: seconds to the beginning of a stream and to a
    whole response, on a moving average that slow answers raise at once.
    """

    id: str
    model_name: str
    model: str
    health: str
    cooldown: float
    in_flight: int
    answered: int
    failed: int
    tokens: int
    rpm: int
    tpm: int
    first_token: float | None
    whole: float | None
    last_error: str | None


@dataclass(slots=True)
class _Member:
    """One deployment: what a call to it needs. Its repr shows no key."""

    id: str
    model: str
    options: dict[str, Any] = field(repr=False)
    rules: dict[str, Any]
    last_error: str | None = None


@dataclass(slots=True)
class _Group:
    """The deployments of one model name."""

    name: str
    members: list[_Member]
    filters: bool
    estimates: bool
    pool: Pool = field(init=False)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a call asks of whichever deployment it gets."""

    messages: Sequence[Any]
    stream: bool
    options: Mapping[str, Any] = field(repr=False)
    tags: Sequence[str]
    max_retries: int
    timeouts: Timeouts
    started: float
    fallbacks: Mapping[str, Mapping[str, Sequence[Any]]]

    @property
    def due(self) -> float:
        """When it must be over."""
        return self.started + (self.timeouts.total or NEVER)


Target = tuple[str, Mapping[str, Any]]
"""A model name, and options that go with it."""


class Router:
    """Calls by a name of your own, answered by any of the deployments behind it. For any number of threads and tasks.

    Args:
        model_list: deployments, as {"model_name", "litellm_params", "model_info"}; several may have one model_name.
            litellm_params: what `completion` takes, from `model` and `api_key` on, and for the router: rpm, tpm,
            max_parallel_requests; weight, order (lowest first), tags; cooldown_time; input_cost_per_token,
            output_cost_per_token. "os.environ/NAME" stands for the value of a variable.
            model_info: id (else the name and a number), the two costs, max_input_tokens; the rest is yours.
        routing_strategy: "simple-shuffle" (by weight, else rpm, else tpm), "least-busy", "latency-based-routing",
            "cost-based-routing" or "usage-based-routing".
        num_retries: further attempts after a failed one, with another deployment if there is one; 2 by default.
        timeout: as of `completion`; a call's or a deployment's own goes first.
        fallbacks: [{"name": ["other", {"model": "third", **options}]}], asked in turn; "*" is every name without its
            own. context_window_fallbacks and content_policy_fallbacks are for those errors, default_fallbacks ([name])
            the same as "*".
        allowed_fails: failures in a row that are put up with; with one more a deployment is left alone for
            cooldown_time seconds. It is too when most of a minute's requests fail, and where there are others at once
            after 401, 402, 403, 404 and 429. disable_cooldowns: never.
        retry_after: seconds before each retry at least.
        retry_budget: retries may be this part of the requests, and 100 a minute more; None: as many as num_retries.
        default_max_parallel_requests: for deployments without max_parallel_requests.
        default_litellm_params: options of all calls.
        model_group_alias: other names: {"alias": "name"}.
        enable_pre_call_checks: leave out deployments whose max_input_tokens the prompt exceeds, at about four
            characters a token. (`order` needs no such thing here.)
        enable_tag_filtering: whether metadata={"tags": [...]} chooses deployments; by default where any has tags.
        tag_filtering_match_any: one of the tags is enough; else all are needed.

    Raises:
        BadRequestError: something in it cannot be, and `param` says what.
    """

    def __init__(
        self,
        model_list: Sequence[Mapping[str, Any]],
        *,
        routing_strategy: str = "simple-shuffle",
        num_retries: int | None = None,
        timeout: "float | Timeouts | None" = None,
        fallbacks: Sequence[Mapping[str, Any]] = (),
        context_window_fallbacks: Sequence[Mapping[str, Any]] = (),
        content_policy_fallbacks: Sequence[Mapping[str, Any]] = (),
        default_fallbacks: Sequence[Any] = (),
        allowed_fails: int = 3,
        cooldown_time: float = 5.0,
        disable_cooldowns: bool = False,
        retry_after: float = 0.0,
        retry_budget: float | None = 0.2,
        default_max_parallel_requests: int | None = None,
        default_litellm_params: Mapping[str, Any] | None = None,
        model_group_alias: Mapping[str, Any] | None = None,
        enable_pre_call_checks: bool = False,
        enable_tag_filtering: bool | None = None,
        tag_filtering_match_any: bool = True,
        **unknown: Any,
    ) -> None:
        for name in unknown:
            if name in ELSEWHERE:
                raise BadRequestError(f"Router has no {name}: {ELSEWHERE[name]}", param=name)
            known = ["model_list", *(Router.__init__.__kwdefaults__ or ())]
            raise BadRequestError(f"Router has no {name}{_nearest(name, known)}", param=name)
        if routing_strategy not in STRATEGIES:
            raise BadRequestError(
                f"routing_strategy is one of {', '.join(STRATEGIES)}, not {routing_strategy!r}",
                param="routing_strategy",
            )
        _number("num_retries", num_retries or 0, whole=True)
        _number("retry_after", retry_after)
        _number("retry_budget", retry_budget or 0)
        _number("default_max_parallel_requests", default_max_parallel_requests or 0, whole=True)
        Timeouts.of(timeout, stream=True)
        self._num_retries = num_retries
        self._timeout = timeout
        self._retry_after = retry_after
        self._cooldowns = not disable_cooldowns
        self._budget = RetryBudget(retry_budget, RESERVE) if retry_budget is not None else None
        self._all_tags = not tag_filtering_match_any
        self._groups: dict[str, _Group] = {}
        defaults = {
            "allowed_fails": None if disable_cooldowns else _number("allowed_fails", allowed_fails, whole=True),
            "cooldown": _number("cooldown_time", cooldown_time),
            "max_parallel": default_max_parallel_requests,
            "priced": STRATEGIES[routing_strategy] == "lowest-cost",
        }
        for place, entry in enumerate(model_list):
            where = f"model_list[{place}]"
            try:
                name, member = _member(entry, default_litellm_params or {}, defaults)
            except BadRequestError as error:
                raise BadRequestError(f"{where}: {error.message}", param=error.param or "model_list") from None
            group = self._groups.setdefault(name, _Group(name, [], filters=False, estimates=False))
            member.id = member.id or f"{name}#{len(group.members)}"
            group.members.append(member)
        if not self._groups:
            raise BadRequestError("model_list is empty", param="model_list")
        for group in self._groups.values():
            rules = [member.rules for member in group.members]
            group.filters = enable_tag_filtering if enable_tag_filtering is not None else any(r["tags"] for r in rules)
            weigh(rules)
            for rule in rules:
                rule["tags"] = rule["tags"] if group.filters else []
                rule["max_prompt"] = rule["max_prompt"] if enable_pre_call_checks else None
            group.estimates = any(rule["tpm"] or rule["max_prompt"] for rule in rules)
            group.pool = Pool(STRATEGIES[routing_strategy], rules)
        self._aliases: dict[str, str] = {}
        for alias, named in (model_group_alias or {}).items():
            self._aliases[alias] = self._group(named["model"] if isinstance(named, Mapping) else named).name
        tables = (fallbacks, context_window_fallbacks, content_policy_fallbacks)
        self._fallbacks = {name: self._table(name, given) for name, given in zip(FALLBACKS, tables, strict=True)}
        if default_fallbacks:
            self._fallbacks["fallbacks"].setdefault(ANY, self._targets("default_fallbacks", default_fallbacks))

    def __repr__(self) -> str:
        groups = ", ".join(f"{group.name} ({len(group.members)})" for group in self._groups.values())
        return f"<Router {groups}>"

    @property
    def model_names(self) -> list[str]:
        """The names that can be called, aliases too."""
        return [*self._groups, *self._aliases]

    def deployments(self, model: str | None = None) -> list[Deployment]:
        """The deployments as they are now: all, or those of one name."""
        groups = list(self._groups.values()) if model is None else [self._group(model)]
        now = monotonic()
        return [
            Deployment(
                id=member.id,
                model_name=group.name,
                model=member.model,
                health=status.health,
                cooldown=status.cooling,
                in_flight=status.in_flight,
                answered=status.answered,
                failed=status.failed,
                tokens=status.tokens,
                rpm=status.rpm,
                tpm=status.tpm,
                first_token=status.first_token,
                whole=status.whole,
                last_error=member.last_error,
            )
            for group in groups
            for member, status in zip(group.members, group.pool.status(now), strict=True)
        ]

    @overload
    def completion(
        self,
        model: str,
        messages: Sequence[Any],
        *,
        response_format: type[T],
        stream: Literal[True],
        **options: Unpack[UnformattedRoutedOptions],
    ) -> "Stream[ParsedChatCompletion[T]]": ...
    @overload
    def completion(
        self,
        model: str,
        messages: Sequence[Any],
        *,
        response_format: type[T],
        stream: Literal[False] | None = None,
        **options: Unpack[UnformattedRoutedOptions],
    ) -> "ParsedChatCompletion[T]": ...
    @overload
    def completion(
        self, model: str, messages: Sequence[Any], *, stream: Literal[True], **options: Unpack[RoutedOptions]
    ) -> Stream: ...
    @overload
    def completion(
        self,
        model: str,
        messages: Sequence[Any],
        *,
        stream: Literal[False] | None = None,
        **options: Unpack[RoutedOptions],
    ) -> ChatCompletion: ...
    @overload
    def completion(
        self, model: str, messages: Sequence[Any], *, stream: bool | None = None, **options: Unpack[RoutedOptions]
    ) -> Stream | ChatCompletion: ...
    def completion(
        self, model: str, messages: Sequence[Any], *, stream: bool | None = None, **options: Any
    ) -> Stream | ChatCompletion:
        """`penstock.completion` by one of the deployments of `model`.

        While all of them are at their limits it waits, as long as `timeout` allows and never more than 60 seconds; a
        model with fallbacks does not wait.

        Args:
            model: a name of the model_list, or an alias.
            messages: as of `completion`.
            stream: as of `completion`.
            options: as of `completion`, but for keys and addresses, which are the deployments'.
                metadata={"tags": [...]} stays here and chooses deployments. fallbacks, context_window_fallbacks and
                content_policy_fallbacks ([name or {"model": name, **options}]) replace the router's for this call.

        Raises:
            RateLimitError: without status_code: all deployments are at their limits, for `retry_after` more seconds.
            ServiceUnavailableError: without status_code: all fail, and are left alone for so long.
            (and what `completion` raises)
        """
        answer = transport.run(self._perform(open_blocking, model, messages, stream, options, blocking=True))
        return Stream(answer) if isinstance(answer, Flow) else answer

    @overload
    async def acompletion(
        self,
        model: str,
        messages: Sequence[Any],
        *,
        response_format: type[T],
        stream: Literal[True],
        **options: Unpack[UnformattedRoutedOptions],
    ) -> "AsyncStream[ParsedChatCompletion[T]]": ...
    @overload
    async def acompletion(
        self,
        model: str,
        messages: Sequence[Any],
        *,
        response_format: type[T],
        stream: Literal[False] | None = None,
        **options: Unpack[UnformattedRoutedOptions],
    ) -> "ParsedChatCompletion[T]": ...
    @overload
    async def acompletion(
        self, model: str, messages: Sequence[Any], *, stream: Literal[True], **options: Unpack[RoutedOptions]
    ) -> AsyncStream: ...
    @overload
    async def acompletion(
        self,
        model: str,
        messages: Sequence[Any],
        *,
        stream: Literal[False] | None = None,
        **options: Unpack[RoutedOptions],
    ) -> ChatCompletion: ...
    @overload
    async def acompletion(
        self, model: str, messages: Sequence[Any], *, stream: bool | None = None, **options: Unpack[RoutedOptions]
    ) -> AsyncStream | ChatCompletion: ...
    async def acompletion(
        self, model: str, messages: Sequence[Any], *, stream: bool | None = None, **options: Any
    ) -> AsyncStream | ChatCompletion:
        """`completion` for asyncio and trio."""
        answer = await self._perform(transport.async_port, model, messages, stream, options, blocking=False)
        return AsyncStream(answer) if isinstance(answer, Flow) else answer

    # What is asked for

    def _wanted(self, model: str, messages: Sequence[Any], stream: bool | None, given: Mapping[str, Any]) -> _Wanted:
        """The call without what is for the router."""
        options = {name: value for name, value in given.items() if value is not None}
        for name in OF_DEPLOYMENTS:
            if name in options:
                raise BadRequestError(
                    f"{name} belongs into litellm_params of a deployment: any of them may answer this call", param=name
                )
        retries = one_of(options, "max_retries", "num_retries")
        for name in ("max_retries", "num_retries"):
            options.pop(name, None)
        fallbacks = {}
        for name in FALLBACKS:
            own = options.pop(name, None)
            table = self._fallbacks[name]
            fallbacks[name] = table if own is None else {**table, self._group(model).name: self._own(name, own, model)}
        tags: Sequence[str] = ()
        if isinstance(metadata := options.get("metadata"), Mapping) and "tags" in metadata:
            tags = _strings("metadata", metadata["tags"])
            options["metadata"] = {name: value for name, value in metadata.items() if name != "tags"} or None
        defaults = current()
        asked = (retries, self._num_retries, defaults.max_retries, 2)
        waits = defaults.timeout if self._timeout is None else self._timeout
        return _Wanted(
            messages=messages,
            stream=bool(stream),
            options=options,
            tags=tags,
            max_retries=_number("max_retries", next(each for each in asked if each is not None), whole=True),
            timeouts=Timeouts.of(options.get("timeout", waits), stream=bool(stream)),
            started=monotonic(),
            fallbacks=fallbacks,
        )

    def _group(self, name: Any) -> _Group:
        """The deployments of this name.

        Raises:
            BadRequestError: there are none.
        """
        group = self._groups.get(self._aliases.get(name, name)) if isinstance(name, str) else None
        if group is None:
            raise BadRequestError(
                f"no deployment is named {name!r}{_nearest(str(name), self.model_names)}", param="model"
            )
        return group

    def _table(self, name: str, given: Any) -> dict[str, Sequence[Target]]:
        """Fallbacks in litellm's shape: a list of {name: [other, ...]}."""
        table: dict[str, Sequence[Target]] = {}
        for entry in given if isinstance(given, Sequence) and not isinstance(given, str) else [given]:
            if not isinstance(entry, Mapping):
                raise BadRequestError(f'{name} must be like [{{"name": ["other"]}}], not {given!r}', param=name)
            for source, targets in entry.items():
                table[source if source == ANY else self._group(source).name] = self._targets(name, targets)
        return table

    def _own(self, name: str, given: Any, model: str) -> Sequence[Target]:
        """Fallbacks of one call: as `completion` has them, or in litellm's shape."""
        if isinstance(given, Sequence) and all(isinstance(each, Mapping) and "model" not in each for each in given):
            return _of(self._table(name, given), self._group(model).name)
        return self._targets(name, given)

    def _targets(self, name: str, given: Any) -> Sequence[Target]:
        targets = []
        for each in given if isinstance(given, Sequence) and not isinstance(given, str) else [given]:
            options = dict(each) if isinstance(each, Mapping) else {"model": each}
            try:
                targets.append((self._group(options.pop("model", None)).name, options))
            except BadRequestError as error:
                raise BadRequestError(f"{name}: {error.message}", param=name) from None
        return targets

    # Performing

    async def _perform(
        self,
        open_port: OpenPort,
        model: str,
        messages: Sequence[Any],
        stream: bool | None,
        options: dict[str, Any],
        *,
        blocking: bool,
    ) -> Flow | ChatCompletion:
        """The call, and those who are told of it."""
        options["hooks"] = (*current().hooks, *(options.get("hooks") or ()))
        ask = partial(self._fall_back, open_port)
        answer: Flow | ChatCompletion = await observed(ask, CHAT, model, messages, stream, options, blocking=blocking)
        return answer

    async def _fall_back(
        self,
        open_port: OpenPort,
        model: str,
        messages: Sequence[Any],
        stream: bool | None,
        options: Mapping[str, Any],
        attempts: list[Attempt],
        *,
        blocking: bool,
    ) -> Flow | ChatCompletion:
        """The deployments of the name, and of others if those fail."""
        wanted = self._wanted(model, messages, stream, options)
        names: list[Target] = [(self._group(model).name, {})]
        tried: set[str] = set()
        while True:
            name, changes = names.pop(0)
            tried.add(name)
            group = self._groups[name]
            others = (*_of(wanted.fallbacks["fallbacks"], name), *names)
            patient = all(other in tried for other, _ in others)  # nobody else can be asked meanwhile
            try:
                return await self._ask(open_port, group, wanted, changes, attempts, patient=patient, blocking=blocking)
            except APIError as error:
                following = _following(error, name, wanted.fallbacks)
                if following is not None:
                    names = [target for target in (*following, *names) if target[0] not in tried]
                if following is None or not names:
                    for attempt in attempts:
                        if attempt.error is not None and attempt.error is not error:
                            error.add_note(f"before it: {attempt.error}")
                    raise

    async def _ask(
        self,
        open_port: OpenPort,
        group: _Group,
        wanted: _Wanted,
        changes: Mapping[str, Any],
        attempts: list[Attempt],
        *,
        patient: bool,
        blocking: bool,
    ) -> Flow | ChatCompletion:
        """The deployments of one name, until one answers or it is of no use to ask again."""
        options = {**wanted.options, **changes}
        lease = partial(self._lease, group, wanted, _estimate(wanted.messages, options) if group.estimates else (0, 0))
        if self._budget is not None:
            self._budget.request(monotonic())
        failed: list[int] = []
        leased = await self._place(lease, group, wanted, patient=patient, blocking=blocking)
        while True:
            try:
                return await self._send(open_port, group, leased, wanted, options, attempts, blocking=blocking)
            except APIError as error:
                failed.append(leased.index)
                pause = self._pause(error, len(failed) - 1, group, wanted)
                if pause is None:
                    raise
                # No place is held while time passes.
                await _rest(self._retry_after, blocking=blocking)
                found = lease(failed)
                if isinstance(found, Refusal):
                    # Nobody else: the same once more.
                    if monotonic() + pause >= wanted.due:
                        raise
                    await _rest(pause - self._retry_after, blocking=blocking)
                    try:
                        found = await self._place(lease, group, wanted, patient=patient, blocking=blocking)
                    except (RateLimitError, ServiceUnavailableError):
                        raise error from None  # it says more
                leased = found

    def _pause(self, error: APIError, retries: int, group: _Group, wanted: _Wanted) -> float | None:
        """Seconds before the same deployment may be asked again, NEVER if only another one may, None if nobody."""
        failure = retry.failure(error)
        if retries >= wanted.max_retries or not failure.elsewhere:
            return None
        chance = random()  # noqa: S311  to spread clients, not to hide anything
        pause = failure.pause(retries, wanted.max_retries, chance, first=retry.FIRST_PAUSE)
        if pause is not None and self._cooldowns:
            # The pool knows for how long this one is left alone, and what else is there meanwhile.
            pause = failure.backoff(retries, chance, first=retry.FIRST_PAUSE)
        if (pause is None and len(group.members) == 1) or monotonic() + self._retry_after >= wanted.due:
            return None
        if self._budget is not None and not self._budget.retry(monotonic()):
            error.add_note("not tried again: retries have had their part of the requests (retry_budget)")
            return None
        return NEVER if pause is None else max(pause, self._retry_after)

    def _lease(
        self, group: _Group, wanted: _Wanted, estimate: tuple[int, int], without: Sequence[int] = ()
    ) -> Lease | Refusal:
        prompt, tokens = estimate
        return group.pool.lease(
            monotonic(),
            random(),  # noqa: S311  to spread requests
            tags=wanted.tags if group.filters else (),
            all_tags=self._all_tags,
            prompt=prompt,
            tokens=tokens,
            stream=wanted.stream,
            without=without,
        )

    async def _place(self, lease: Any, group: _Group, wanted: _Wanted, *, patient: bool, blocking: bool) -> Lease:
        """A deployment, waited for if all are at their limits.

        Raises:
            RateLimitError: none has room in time.
            ServiceUnavailableError: all are left alone.
            BadRequestError: none has the tags.
        """
        clocks = (wanted.timeouts.total, wanted.timeouts.first_token, PATIENCE)
        due = wanted.started + min(clock for clock in clocks if clock is not None)
        nap = SHORTEST_NAP
        while True:
            found: Lease | Refusal = lease()
            if isinstance(found, Lease):
                return found
            left = due - monotonic()
            wait = NEVER if found.after is None else found.after
            if found.cause != "limited" or not patient or left <= 0 or not (found.busy or wait <= left):
                raise _refused(found, group, wanted)
            if found.busy:
                wait = min(wait, nap)
                nap = min(nap * 2, LONGEST_NAP)
            await _rest(min(wait, left), blocking=blocking)

    async def _send(
        self,
        open_port: OpenPort,
        group: _Group,
        lease: Lease,
        wanted: _Wanted,
        options: Mapping[str, Any],
        attempts: list[Attempt],
        *,
        blocking: bool,
    ) -> Flow | ChatCompletion:
        """One request to one deployment, and what it tells about it."""
        member = group.members[lease.index]
        asked = False
        try:
            timeout = {} if self._timeout is None else {"timeout": self._timeout}
            merged = current().under({**timeout, **member.options, **options, "max_retries": 0}, CHAT.options)
            call = plan(CHAT, member.model, wanted.messages, wanted.stream, merged)
            call.deployment = member.id
            asked, began = True, monotonic()
            answer: Flow | ChatCompletion = await pursue(open_port, call, attempts, wanted.started, blocking=blocking)
            call.max_retries = wanted.max_retries  # for on_stream_cut, which asks the same deployment again
        except APIError as error:
            if asked or not isinstance(error, BadRequestError):
                lease.failed(retry.failure(error), monotonic(), tokens=_tokens(error.usage))
                member.last_error = f"{type(error).__name__}: {error}"
            else:
                lease.left(monotonic(), tokens=0)  # nothing was sent
            raise
        except BaseException:
            lease.left(monotonic())
            raise
        now = monotonic()
        if isinstance(answer, Flow):
            lease.began(now - began, now)
            answer.on_settled(partial(_settled, lease, member))
        else:
            lease.answered(now, seconds=now - began, tokens=_tokens(answer.usage))
        return answer


def _settled(lease: Lease, member: _Member, outcome: Outcome) -> None:
    """A stream has ended. One that the caller has left was a good one."""
    error, tokens = outcome.error, _tokens(outcome.usage)
    if outcome.how == "failed" and isinstance(error, APIError):
        lease.failed(retry.failure(error), monotonic(), tokens=tokens)
        member.last_error = f"{type(error).__name__}: {error}"
    else:
        lease.answered(monotonic(), tokens=tokens)


def _tokens(usage: CompletionUsage | None) -> int | None:
    """All tokens of a request, if the provider has had its last word on them."""
    return usage.total_tokens if usage is not None and usage.complete else None


def _following(
    error: APIError, name: str, fallbacks: Mapping[str, Mapping[str, Sequence[Target]]]
) -> Sequence[Target] | None:
    """Whom to ask after this error; None if nobody is any better."""
    if retry.refused_content(error):
        tables: Iterable[str] = ("content_policy_fallbacks",)
    elif isinstance(error, ContextWindowExceededError):
        tables = ("context_window_fallbacks", "fallbacks")
    elif retry.falls_back(error):
        tables = ("fallbacks",)
    else:
        return None
    return next((found for table in tables if (found := _of(fallbacks[table], name))), ())


def _of(table: Mapping[str, Sequence[Target]], name: str) -> Sequence[Target]:
    """Whom a table has for this name."""
    return table.get(name, table.get(ANY, ()))


def _refused(refusal: Refusal, group: _Group, wanted: _Wanted) -> APIError:
    """The error for a group of which no deployment can be asked."""
    after = refusal.after
    free = f"; the next can be asked in {after:.1f} s" if after is not None else ""
    if refusal.cause == "limited":
        return RateLimitError(
            f"all deployments of {group.name} are at their limits{free}",
            model=group.name,
            code="limited",
            retry_after=after,
        )
    if refusal.cause == "failing":
        last = next((member.last_error for member in group.members if member.last_error), None)
        because = f". {last}" if last else ""
        return ServiceUnavailableError(
            f"all deployments of {group.name} have failed and are left alone{free}{because}",
            model=group.name,
            code="failing",
            retry_after=after,
        )
    known = sorted({tag for member in group.members for tag in member.rules["tags"]})
    return BadRequestError(
        f"no deployment of {group.name} has the tags {list(wanted.tags)}; there are {known}",
        param="metadata",
        model=group.name,
    )


async def _rest(seconds: float, *, blocking: bool) -> None:
    """Lets time pass in whichever world this is."""
    if seconds <= 0:
        return
    if blocking:
        sleep(seconds)  # noqa: ASYNC251  no event loop runs this
        return
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        import trio

        await trio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)


# How much


def _estimate(messages: Sequence[Any], options: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens of the prompt, and of the prompt and the longest answer that was asked for; about."""
    prompt = prompt_tokens(messages, options.get("tools"))
    answer = options.get("max_completion_tokens") or options.get("max_tokens") or 0
    return prompt, prompt + answer * (options.get("n") or 1)


def _price(model: str, given: Mapping[str, Any], *, listed: bool) -> float | None:
    """Of a token read and one written: as given, or as `completion_cost` has it; None where nobody knows."""
    own = [given.get(name) for name in ("input_cost_per_token", "output_cost_per_token")]
    known: list[float] = [_number("cost_per_token", price) for price in own if price is not None]
    if known:
        return sum(known)
    if listed:
        with suppress(BadRequestError):
            price = price_of(model)
            return price.input + price.output
    return None


def weigh(rules: Sequence[dict[str, Any]]) -> None:
    """Gives each its share: its weight where any has one, else what it may be asked, where all say that."""
    if any(rule["weight"] is not None for rule in rules):
        shares = [1.0 if rule["weight"] is None else rule["weight"] for rule in rules]
    else:
        limits = ([rule[name] for rule in rules] for name in ("rpm", "tpm"))
        shares = next((given for given in limits if all(given)), [1.0] * len(rules))
    for rule, share in zip(rules, shares, strict=True):
        rule["weight"] = float(share)


# What is in the list


def _member(entry: Any, common: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[str, _Member]:
    """One entry of a model_list: its model_name, and the deployment.

    Raises:
        BadRequestError: something in it cannot be.
    """
    if not isinstance(entry, Mapping) or not {"model_name", "litellm_params"} <= set(entry):
        raise BadRequestError(f"a deployment is a dict with model_name and litellm_params, not {type(entry).__name__}")
    for name in entry:
        if name not in ENTRY:
            raise BadRequestError(f"a deployment has no {name}{_nearest(name, ENTRY)}", param=name)
    name, info = entry["model_name"], entry.get("model_info") or {}
    if not isinstance(name, str) or ANY in name:
        raise BadRequestError(f"model_name is a name, not {name!r}; there are no wildcards", param="model_name")
    params = {key: _resolved(value) for key, value in {**common, **entry["litellm_params"]}.items()}
    options = {key: value for key, value in params.items() if key not in ROUTING and value is not None}
    model = options.pop("model", None)
    if not isinstance(model, str):
        raise BadRequestError("litellm_params lacks model", param="model")
    for key in ("max_retries", "num_retries", "hooks", *FALLBACKS):
        if key in options:
            raise BadRequestError(f"{key} is the router's, or a call's", param=key)
    check_keywords(CHAT, resolve(model, options.get("custom_llm_provider"))[0], options)
    routing = {
        "rpm": entry.get("rpm"),
        "tpm": entry.get("tpm"),
        **{key: params.get(key) for key in ROUTING if key in params},
    }
    for key in ("rpm", "tpm", "max_parallel_requests"):
        _number(key, routing.get(key) or 0, whole=True)
    tags = _strings("tags", routing.get("tags") or ())
    for key in ("weight", "cooldown_time"):
        _number(key, routing.get(key) or 0)
    _number("max_input_tokens", info.get("max_input_tokens") or 0, whole=True)
    order = routing.get("order") or 0
    if not isinstance(order, int):
        raise BadRequestError(f"order must be a whole number, not {order!r}", param="order")
    parallel, cooldown = routing.get("max_parallel_requests"), routing.get("cooldown_time")
    rules = {
        "rpm": routing.get("rpm"),
        "tpm": routing.get("tpm"),
        "max_parallel": defaults["max_parallel"] if parallel is None else parallel,
        "allowed_fails": defaults["allowed_fails"],
        "cooldown": float(defaults["cooldown"] if cooldown is None else cooldown),
        "weight": routing.get("weight"),
        "order": order,
        "price": _price(model, {**info, **routing}, listed=defaults["priced"]),
        "tags": tags,
        "max_prompt": info.get("max_input_tokens"),
    }
    return name, _Member(str(info.get("id") or ""), model, options, rules)


def _resolved(value: Any) -> Any:
    """The value, with those of variables for "os.environ/NAME".

    Raises:
        BadRequestError: there is no such variable.
    """
    if isinstance(value, Mapping):
        return {key: _resolved(inner) for key, inner in value.items()}
    if not isinstance(value, str) or not value.startswith(ENVIRONMENT):
        return value
    name = value.removeprefix(ENVIRONMENT)
    if name not in os.environ:
        raise BadRequestError(f"the variable {name} is not set")
    return os.environ[name]


def _number(name: str, value: Any, *, whole: bool = False) -> Any:
    """The number that it must be, from 0 on."""
    good = isinstance(value, int) if whole else isinstance(value, int | float)
    if not good or isinstance(value, bool) or not 0 <= value < NEVER:
        kind = "whole number" if whole else "number"
        raise BadRequestError(f"{name} must be a {kind} from 0 on, not {value!r}", param=name)
    return value


def _strings(name: str, value: Any) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(each, str) for each in value):
        raise BadRequestError(f"{name}: tags are a list of strings, not {value!r}", param=name)
    return list(value)


def _nearest(name: str, known: Iterable[str]) -> str:
    nearest = get_close_matches(name, list(known), n=1)
    return f": did you mean {nearest[0]}?" if nearest else ""
