"""Several deployments behind one name: which is asked, which is left alone, and who answers instead."""

import asyncio
import gc
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pytest

import penstock
from penstock import (
    APIConnectionError,
    APIError,
    AuthenticationError,
    BadRequestError,
    ContentPolicyViolationError,
    InternalServerError,
    RateLimitError,
    Router,
    ServiceUnavailableError,
    Timeout,
    Timeouts,
    retry,
    router,
)
from penstock._native import Lease, Pool
from penstock.replay import Upstream

MESSAGES = [{"role": "user", "content": "Hello"}]
KEY = "sk-test-0123456789abcdef"

ANSWER = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]}
CONTEXT = "hello?status=400&code=context_length_exceeded"
REFUSED = "hello?status=400&code=content_filter"


def mocked(name: str, text: str, **params: Any) -> dict[str, Any]:
    """A deployment that answers with this text."""
    params = {"model": f"openai/{text}", "api_key": KEY, "mock_response": text, **params}
    return {"model_name": name, "litellm_params": params}


Make = Callable[..., dict[str, Any]]


@pytest.fixture
def at(up: Upstream) -> Make:
    """Makes deployments of the local upstream."""

    def deployment(name: str, script: str, **params: Any) -> dict[str, Any]:
        params = {"model": f"openai/{script}", "api_base": up.base_url, "api_key": KEY, **params}
        return {"model_name": name, "litellm_params": params}

    return deployment


class Clock:
    """The router's clock, which runs by itself and can be put forward; resting puts it forward too."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.rests: list[float] = []

    def __call__(self) -> float:
        return time.monotonic() + self.ahead

    async def rest(self, seconds: float, *, blocking: bool) -> None:
        if seconds > 0:
            self.rests.append(seconds)
            self.ahead += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(router, "monotonic", clock)
    monkeypatch.setattr(router, "_rest", clock.rest)
    return clock


@pytest.fixture(autouse=True)
def sleepless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.001)


@pytest.fixture
def even(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chance that goes evenly through all there is: a thousand calls have exactly their shares."""
    steps = itertools.cycle([step / 1000 for step in range(1000)])
    monkeypatch.setattr(router, "random", steps.__next__)


def asked(up: Upstream) -> Counter[str]:
    return Counter(exchange["model"] for exchange in up.stats()["requests"])


def text(response: Any) -> str:
    return str(response.choices[0].message.content)


def ask(routed: Router, world: Any, model: str = "m", **options: Any) -> Any:
    """Without streaming, in this world."""
    if world.name == "blocking":
        return routed.completion(model, MESSAGES, **options)

    async def main() -> Any:
        return await routed.acompletion(model, MESSAGES, **options)

    return world.run(main)


def stream(routed: Router, world: Any, model: str = "m", **options: Any) -> Any:
    """To its end, in this world."""
    if world.name == "blocking":
        streamed = routed.completion(model, MESSAGES, stream=True, **options)
        list(streamed)
        return streamed

    async def main() -> Any:
        streamed = await routed.acompletion(model, MESSAGES, stream=True, **options)
        async for _ in streamed:
            pass
        return streamed

    return world.run(main)


def in_flight(routed: Router) -> list[int]:
    return [deployment.in_flight for deployment in routed.deployments()]


def health(routed: Router) -> list[str]:
    return [deployment.health for deployment in routed.deployments()]


# The list ------------------------------------------------------------------------------------------------------------


def test_it_is_exported_when_it_is_asked_for() -> None:
    assert penstock.Router is Router


def test_the_deployments_can_be_looked_at(world: Any, at: Make) -> None:
    routed = Router([at("m", "hello"), {**at("other", "tools"), "model_info": {"id": "mine", "team": "x"}}])
    ask(routed, world)
    stream(routed, world)
    first, second = routed.deployments()
    assert (first.id, first.model_name, first.model, first.health) == ("m#0", "m", "openai/hello", "up")
    assert (first.answered, first.failed, first.in_flight, first.rpm) == (2, 0, 0, 2)
    assert first.tokens == first.tpm > 0
    assert first.whole is not None
    assert first.first_token is not None
    assert (second.id, second.answered, second.whole) == ("mine", 0, None)
    assert routed.deployments("other") == [second]
    assert routed.model_names == ["m", "other"]
    assert repr(routed) == "<Router m (1), other (1)>"


def test_keys_and_addresses_can_stand_in_variables(monkeypatch: pytest.MonkeyPatch, up: Upstream) -> None:
    monkeypatch.setenv("MY_BASE", up.base_url)
    monkeypatch.setenv("MY_SECRET", KEY)
    params = {
        "model": "openai/hello",
        "api_base": "os.environ/MY_BASE",
        "api_key": "os.environ/MY_SECRET",
        "extra_headers": {"x-own": "os.environ/MY_SECRET"},
    }
    Router([{"model_name": "m", "litellm_params": params}]).completion("m", MESSAGES)
    headers = up.stats()["requests"][0]["headers"]
    assert headers["authorization"].startswith("Bearer sha256:")  # it tells no key
    assert headers["x-own"] == KEY


def test_no_key_is_shown(at: Make) -> None:
    routed = Router([at("m", "hello?status=401")], num_retries=0)
    with pytest.raises(AuthenticationError) as caught:
        routed.completion("m", MESSAGES)
    assert KEY not in repr(vars(routed)) + repr(routed.deployments()) + repr(caught.value)


def test_options_of_the_call_go_before_those_of_the_deployment_and_of_all(up: Upstream, at: Make) -> None:
    routed = Router(
        [at("m", "hello", temperature=0.2, seed=2)],
        default_litellm_params={"temperature": 0.1, "seed": 1, "top_p": 0.1},
    )
    routed.completion("m", MESSAGES, temperature=0.3, seed=None)
    body = up.stats()["requests"][0]["body"]
    assert (body["temperature"], body["seed"], body["top_p"]) == (0.3, 2, 0.1)


ENTRY = mocked("m", "a")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"model_list": []}, "model_list is empty"),
        ({"model_list": [{"model_name": "m"}]}, r"model_list\[0\]: a deployment is a dict with model_name and"),
        ({"model_list": [{**ENTRY, "model_infos": {}}]}, "no model_infos: did you mean model_info?"),
        ({"model_list": [mocked("m/*", "a")]}, "no wildcards"),
        ({"model_list": [mocked("m", "a", model=None)]}, "litellm_params lacks model"),
        ({"model_list": [mocked("m", "a", temprature=1)]}, "unknown keyword temprature: did you mean temperature?"),
        ({"model_list": [mocked("m", "a", model="nobody/x")]}, "nobody"),
        ({"model_list": [mocked("m", "a", num_retries=3)]}, "num_retries is the router's, or a call's"),
        ({"model_list": [ENTRY, mocked("m", "a", rpm=-1)]}, r"model_list\[1\]: rpm must be a whole number from 0 on"),
        ({"model_list": [mocked("m", "a", rpm=True)]}, "rpm must be a whole number"),
        ({"model_list": [mocked("m", "a", weight="2")]}, "weight must be a number"),
        ({"model_list": [mocked("m", "a", order="x")]}, "order must be a whole number"),
        ({"model_list": [mocked("m", "a", tags="free")]}, "tags are a list of strings"),
        ({"model_list": [mocked("m", "a", input_cost_per_token="x")]}, "cost_per_token must be a number"),
        ({"model_list": [mocked("m", "a", api_key="os.environ/NOT_THERE")]}, "the variable NOT_THERE is not set"),
        ({"routing_strategy": "fastest"}, "routing_strategy is one of simple-shuffle, least-busy, latency-based"),
        ({"routing_stratgy": "least-busy"}, "no routing_stratgy: did you mean routing_strategy?"),
        ({"redis_host": "localhost"}, "no redis_host: limits and cooldowns are counted in this process"),
        ({"stream_timeout": 3}, "no stream_timeout: timeout takes penstock.Timeouts"),
        ({"num_retries": -1}, "num_retries must be a whole number"),
        ({"cooldown_time": float("inf")}, "cooldown_time must be a number"),
        ({"timeout": "soon"}, "timeout must be a number of seconds or Timeouts"),
        ({"fallbacks": [{"m": ["n"]}]}, "fallbacks: no deployment is named 'n'"),
        ({"fallbacks": [{"n": ["m"]}]}, "no deployment is named 'n'"),
        ({"fallbacks": ["m"]}, "fallbacks must be like"),
        ({"default_fallbacks": ["mm"]}, "did you mean m?"),
        ({"model_group_alias": {"x": "y"}}, "no deployment is named 'y'"),
    ],
)
def test_what_cannot_be_is_refused_at_once(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRequestError, match=says):
        Router(**{"model_list": [ENTRY], **arguments})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model": "n"}, "no deployment is named 'n'"),
        ({"api_key": "sk"}, "api_key belongs into litellm_params"),
        ({"api_base": "http://x"}, "api_base belongs into litellm_params"),
        ({"metadata": {"tags": "free"}}, "tags are a list of strings"),
        ({"max_retries": 1, "num_retries": 2}, "are the same"),
        ({"fallbacks": ["n"]}, "fallbacks: no deployment is named 'n'"),
        ({"tempreature": 1}, "did you mean temperature?"),
    ],
)
def test_so_is_what_a_call_cannot_say(options: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRequestError, match=says):
        Router([ENTRY]).completion(**{"model": "m", "messages": MESSAGES, **options})


def test_aliases() -> None:
    routed = Router([mocked("m", "a")], model_group_alias={"n": "m", "o": {"model": "m", "hidden": True}})
    assert [text(routed.completion(name, MESSAGES)) for name in ("m", "n", "o")] == ["a"] * 3
    assert routed.model_names == ["m", "n", "o"]


# Which one -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "shares"),
    [
        ([{}, {}], (500, 500)),
        ([{"weight": 9}, {"weight": 1}], (900, 100)),
        ([{"weight": 3}, {}], (750, 250)),
        ([{"rpm": 9000}, {"rpm": 3000}], (750, 250)),
        ([{"rpm": 9000}, {}], (500, 500)),
        ([{"tpm": 90000}, {"tpm": 10000}], (900, 100)),
        ([{"rpm": 9000, "weight": 1}, {"rpm": 3000, "weight": 1}], (500, 500)),
    ],
)
def test_shares(even: None, params: list[dict[str, Any]], shares: tuple[int, int]) -> None:
    routed = Router([mocked("m", name, **own) for name, own in zip("ab", params, strict=True)])
    counts = Counter(text(routed.completion("m", MESSAGES)) for _ in range(1000))
    assert (counts["a"], counts["b"]) == shares


def test_limits_can_stand_beside_the_parameters(even: None) -> None:
    routed = Router([{**mocked("m", "a"), "rpm": 9000}, {**mocked("m", "b"), "rpm": 1000}])
    counts = Counter(text(routed.completion("m", MESSAGES)) for _ in range(1000))
    assert counts == {"a": 900, "b": 100}


def test_the_least_busy(at: Make) -> None:
    routed = Router([at("m", "hello?stall=3&tag=a"), at("m", "hello?stall=3&tag=b")], routing_strategy="least-busy")
    streams = [routed.completion("m", MESSAGES, stream=True) for _ in range(6)]
    assert in_flight(routed) == [3, 3]
    for each in streams:
        each.close()
    assert in_flight(routed) == [0, 0]


def test_the_quickest(world: Any, up: Upstream, at: Make) -> None:
    slow, fast = at("m", "hello?first_byte=0.2"), at("m", "hello")
    routed = Router([slow, fast], routing_strategy="latency-based-routing")
    for _ in range(12):
        stream(routed, world)
    first, second = routed.deployments()
    assert first.answered <= 2
    assert second.answered >= 10
    assert first.first_token is not None
    assert second.first_token is not None
    assert first.first_token >= 0.2 > second.first_token


def test_the_cheapest() -> None:
    prices = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
    dear = {**mocked("m", "dear"), "model_info": {name: 2 * price for name, price in prices.items()}}
    routed = Router(
        [mocked("m", "unknown"), dear, mocked("m", "cheap", **prices)], routing_strategy="cost-based-routing"
    )
    assert {text(routed.completion("m", MESSAGES)) for _ in range(20)} == {"cheap"}


def test_the_least_used() -> None:
    busy = {**ANSWER, "usage": {"prompt_tokens": 50, "completion_tokens": 50, "total_tokens": 100}}
    list_of_two = [mocked("m", "a", mock_response=busy, tpm=1000), mocked("m", "b", mock_response=busy, tpm=4000)]
    routed = Router(list_of_two, routing_strategy="usage-based-routing-v2")
    for _ in range(25):
        routed.completion("m", MESSAGES)
    assert [deployment.tpm for deployment in routed.deployments()] == [500, 2000]


def test_the_next_order_when_the_first_cannot(at: Make, world: Any) -> None:
    routed = Router([at("m", "hello?status=500", order=1), mocked("m", "second", order=2)])
    assert text(ask(routed, world)) == "second"
    assert [deployment.failed for deployment in routed.deployments()] == [1, 0]


def test_tags_choose(up: Upstream, at: Make) -> None:
    routed = Router([at("m", "hello?tag=a", tags=["free"]), at("m", "hello?tag=b", tags=["paid", "eu"]), ENTRY])
    for _ in range(5):
        routed.completion("m", MESSAGES, metadata={"tags": ["paid"], "trace": "7"})
    assert [deployment.answered for deployment in routed.deployments()] == [0, 5, 0]
    assert [exchange["body"]["metadata"] for exchange in up.stats()["requests"]] == [{"trace": "7"}] * 5
    with pytest.raises(
        BadRequestError, match=r"no deployment of m has the tags \['secret'\]; there are \['eu', 'free'"
    ):
        routed.completion("m", MESSAGES, metadata={"tags": ["secret"]})
    routed.completion("m", MESSAGES)  # without tags any will do


def test_all_of_the_tags() -> None:
    tagged = [mocked("m", "a", tags=["x"]), mocked("m", "b", tags=["x", "y"]), mocked("m", "c", tags=["default"])]
    routed = Router(tagged, tag_filtering_match_any=False)
    answers = [text(routed.completion("m", MESSAGES, metadata={"tags": tags})) for tags in (["x", "y"], ["y", "z"])]
    assert [*answers, text(routed.completion("m", MESSAGES))] == ["b", "c", "c"]


def test_tags_can_be_switched_off_and_on() -> None:
    off = Router([mocked("m", "a", tags=["x"])], enable_tag_filtering=False)
    assert text(off.completion("m", MESSAGES, metadata={"tags": ["y"]})) == "a"
    untagged = Router([mocked("m", "a")])
    assert text(untagged.completion("m", MESSAGES, metadata={"tags": ["y"]})) == "a"
    with pytest.raises(BadRequestError, match="tags"):
        Router([mocked("m", "a")], enable_tag_filtering=True).completion("m", MESSAGES, metadata={"tags": ["y"]})


def test_a_prompt_goes_where_it_fits() -> None:
    small = {**mocked("m", "small"), "model_info": {"max_input_tokens": 10}}
    routed = Router([small, mocked("m", "large")], enable_pre_call_checks=True)
    parts = [{"role": "user", "content": [{"type": "text", "text": "x" * 100}]}]
    assert {text(routed.completion("m", parts)) for _ in range(20)} == {"large"}
    assert {text(routed.completion("m", MESSAGES)) for _ in range(50)} == {"small", "large"}


# Limits --------------------------------------------------------------------------------------------------------------


def test_over_the_limit_the_error_says_when(world: Any, clock: Clock) -> None:
    routed = Router([mocked("m", "a", rpm=1), mocked("m", "b", rpm=1)], timeout=5)
    assert {text(ask(routed, world)), text(ask(routed, world))} == {"a", "b"}
    with pytest.raises(
        RateLimitError, match="all deployments of m are at their limits; the next can be asked in"
    ) as caught:
        ask(routed, world)
    assert caught.value.retry_after is not None
    assert 59 < caught.value.retry_after <= 61
    assert (caught.value.status_code, caught.value.model, caught.value.code) == (None, "m", "limited")
    clock.ahead += caught.value.retry_after
    ask(routed, world)


def test_it_waits_when_that_is_soon(world: Any, clock: Clock) -> None:
    routed = Router([mocked("m", "a", rpm=1)])
    ask(routed, world)
    clock.ahead += 30
    ask(routed, world)
    (rest,) = clock.rests
    assert 29 < rest <= 31


def test_tokens_are_guessed_first_and_counted_then(clock: Clock) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
    routed = Router([mocked("m", "a", mock_response={**ANSWER, "usage": usage}, tpm=100)], timeout=1)
    for _ in range(4):
        routed.completion("m", MESSAGES, max_tokens=30)
    assert routed.deployments()[0].tpm == 80
    with pytest.raises(RateLimitError):
        routed.completion("m", MESSAGES, max_completion_tokens=30)
    routed.completion("m", MESSAGES, max_tokens=5)


def test_with_fallbacks_nobody_waits(clock: Clock) -> None:
    routed = Router([mocked("m", "a", rpm=1), mocked("n", "b")], fallbacks=[{"m": ["n"]}])
    assert [text(routed.completion("m", MESSAGES)) for _ in range(3)] == ["a", "b", "b"]
    assert clock.rests == []


def test_the_last_that_can_answer_is_waited_for(clock: Clock) -> None:
    routed = Router([mocked("m", "a", rpm=1), mocked("n", "b", rpm=1)], fallbacks=[{"m": ["n"]}, {"n": ["m"]}])
    assert [text(routed.completion("m", MESSAGES)) for _ in range(2)] == ["a", "b"]
    clock.ahead += 30
    assert text(routed.completion("m", MESSAGES)) == "b"
    assert 29 < sum(clock.rests) <= 31


def test_a_place_is_waited_for(up: Upstream, at: Make) -> None:
    routed = Router([at("m", "hello?stall=3", max_parallel_requests=1)])
    streamed = routed.completion("m", MESSAGES, stream=True)
    with ThreadPoolExecutor() as threads:
        second = threads.submit(routed.completion, "m", MESSAGES, stream=True)
        time.sleep(0.1)
        assert not second.done()
        streamed.close()
        second.result(timeout=5).close()
    assert in_flight(routed) == [0]


def test_but_not_for_ever(world: Any, at: Make) -> None:
    routed = Router([at("m", "hello?stall=3")], default_max_parallel_requests=1)
    with routed.completion("m", MESSAGES, stream=True), pytest.raises(RateLimitError) as caught:
        ask(routed, world, timeout=0.1)
    assert caught.value.retry_after is None


class Crowd:
    """An upstream that counts who is there at once."""

    def __init__(self) -> None:
        self.now = self.most = self.all = 0
        self.lock = threading.Lock()

    def enters(self) -> None:
        with self.lock:
            self.now += 1
            self.all += 1
            self.most = max(self.most, self.now)

    def leaves(self) -> httpx.Response:
        with self.lock:
            self.now -= 1
        return httpx.Response(200, json=ANSWER)

    def blocking(self, request: httpx.Request) -> httpx.Response:
        self.enters()
        time.sleep(0.005)
        return self.leaves()

    async def looped(self, request: httpx.Request) -> httpx.Response:
        self.enters()
        await asyncio.sleep(0.005)
        return self.leaves()


def test_threads_keep_the_limits_together() -> None:
    crowd = Crowd()
    with httpx.Client(transport=httpx.MockTransport(crowd.blocking)) as client:
        routed = Router([mocked("m", "a", mock_response=None, client=client, max_parallel_requests=3)])
        with ThreadPoolExecutor(16) as threads:
            answers = list(threads.map(lambda _: text(routed.completion("m", MESSAGES)), range(100)))
    assert answers == ["Hi"] * 100
    assert (crowd.all, crowd.now, crowd.most) == (100, 0, 3)
    assert in_flight(routed) == [0]


def test_tasks_keep_the_limits_together() -> None:
    crowd = Crowd()

    async def main() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(crowd.looped)) as client:
            params = {"mock_response": None, "client": client, "max_parallel_requests": 2}
            routed = Router([mocked("m", "a", **params), mocked("m", "b", **params)], routing_strategy="least-busy")
            await asyncio.gather(*(routed.acompletion("m", MESSAGES) for _ in range(100)))
            answered = [deployment.answered for deployment in routed.deployments()]
            assert sum(answered) == 100
            assert min(answered) > 40
            assert in_flight(routed) == [0, 0]

    asyncio.run(main())
    assert (crowd.all, crowd.now, crowd.most) == (100, 0, 4)


# A stream holds its place until it ends ------------------------------------------------------------------------------


def to_the_end(streamed: Any) -> None:
    list(streamed)


def broken_off(streamed: Any) -> None:
    for _ in streamed:
        break


def closed(streamed: Any) -> None:
    next(streamed)
    streamed.close()


def failing_in_the_loop(streamed: Any) -> None:
    with suppress(ZeroDivisionError), streamed:
        for _ in streamed:
            raise ZeroDivisionError


def dropped(streamed: Any) -> None:
    pass


def in_a_cycle(streamed: Any) -> None:
    cycle = [streamed]
    cycle.append(cycle)


def drained(streamed: Any) -> None:
    streamed.drain()


@pytest.mark.parametrize(
    "end",
    [to_the_end, broken_off, closed, failing_in_the_loop, dropped, in_a_cycle, drained],
    ids=lambda end: end.__name__,
)
@pytest.mark.parametrize("model", ["hello", "mock"])
def test_however_it_ends(at: Make, end: Callable[[Any], None], model: str) -> None:
    routed = Router([at("m", "hello") if model == "hello" else mocked("m", "a b c")])
    streams = [routed.completion("m", MESSAGES, stream=True)]
    assert in_flight(routed) == [1]
    end(streams.pop())
    gc.collect()
    (deployment,) = routed.deployments()
    assert (deployment.in_flight, deployment.answered, deployment.failed) == (0, 1, 0)


@pytest.mark.parametrize("script", ["cut=3", "reset=3", "error=3", "malformed=3", "stall=3"])
def test_one_that_breaks_is_a_failure(at: Make, world: Any, script: str) -> None:
    routed = Router([at("m", f"hello?{script}")], timeout=Timeouts(idle=0.2))
    with pytest.raises(APIError):
        stream(routed, world)
    gc.collect()
    (deployment,) = routed.deployments()
    assert (deployment.in_flight, deployment.answered, deployment.failed) == (0, 0, 1)
    assert deployment.last_error


@pytest.mark.parametrize("script", ["stall=3", "silent"])
def test_a_task_that_is_cancelled_gives_its_place_back(at: Make, script: str) -> None:
    routed = Router([at("m", f"hello?{script}")])

    async def read() -> None:
        async for _ in await routed.acompletion("m", MESSAGES, stream=True):
            pass

    async def main() -> None:
        task = asyncio.create_task(read())
        await asyncio.sleep(0.1)
        assert in_flight(routed) == [1]
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert in_flight(routed) == [0]

    asyncio.run(main())
    assert [deployment.failed for deployment in routed.deployments()] == [0]


def test_one_that_waits_for_a_place_can_be_cancelled(at: Make) -> None:
    routed = Router([at("m", "hello?stall=3", max_parallel_requests=1)])

    async def main() -> None:
        async with await routed.acompletion("m", MESSAGES, stream=True):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(routed.acompletion("m", MESSAGES), 0.1)
            assert in_flight(routed) == [1]

    asyncio.run(main())
    assert in_flight(routed) == [0]


def test_a_lease_that_is_forgotten_gives_its_place_back() -> None:
    rules = dict.fromkeys(("rpm", "tpm", "allowed_fails", "price", "max_prompt"))
    pool = Pool("shuffle", [{**rules, "max_parallel": 1, "cooldown": 5.0, "weight": 1.0, "order": 0, "tags": []}])
    lease = pool.lease(0.0, 0.5)
    assert isinstance(lease, Lease)
    assert pool.status(0.0)[0].in_flight == 1
    del lease
    gc.collect()
    lease = pool.lease(0.0, 0.5)
    assert isinstance(lease, Lease)
    for _ in range(2):
        lease.answered(1.0, tokens=3)  # the first one counts
    assert (pool.status(1.0)[0].in_flight, pool.status(1.0)[0].answered) == (0, 1)


# Left alone, and back ------------------------------------------------------------------------------------------------


def test_one_that_fails_is_left_alone_and_probed(world: Any, up: Upstream, at: Make, clock: Clock) -> None:
    routed = Router([at("m", "hello?fail=5")], num_retries=0, allowed_fails=3, cooldown_time=7)
    for _ in range(4):
        with pytest.raises(InternalServerError):
            ask(routed, world)
    assert health(routed) == ["cooling"]
    assert 6 < routed.deployments()[0].cooldown <= 7
    with pytest.raises(
        ServiceUnavailableError, match=r"all deployments of m have failed and are left alone; .* 500"
    ) as caught:
        ask(routed, world)
    assert caught.value.retry_after is not None
    assert (caught.value.code, caught.value.status_code) == ("failing", None)
    assert asked(up).total() == 4
    clock.ahead += caught.value.retry_after
    with pytest.raises(InternalServerError):
        ask(routed, world)
    assert health(routed) == ["cooling"]
    clock.ahead += 7
    ask(routed, world)
    assert health(routed) == ["up"]


def test_one_request_goes_to_see(at: Make, clock: Clock) -> None:
    routed = Router([at("m", "hello?fail=1&status=500&tag=a"), at("m", "hello?tag=b")], allowed_fails=0)
    while health(routed)[0] == "up":
        routed.completion("m", MESSAGES)
    clock.ahead += 5
    before = routed.deployments()[0].answered
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(router, "random", lambda: 0.0)
        streamed = routed.completion("m", MESSAGES, stream=True)
    assert health(routed) == ["up", "up"]
    list(streamed)
    assert routed.deployments()[0].answered == before + 1


def test_while_one_probes_the_others_go_elsewhere(at: Make, clock: Clock) -> None:
    routed = Router(
        [at("m", "hello?status=500&first_byte=0.3&fail=2&tag=a"), mocked("m", "b")], allowed_fails=0, num_retries=0
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(router, "random", lambda: 0.0)
        with pytest.raises(InternalServerError):
            routed.completion("m", MESSAGES)
        clock.ahead += 5
        with ThreadPoolExecutor() as threads:
            probe = threads.submit(routed.completion, "m", MESSAGES)
            while health(routed)[0] != "probing":
                time.sleep(0.005)
            assert {text(routed.completion("m", MESSAGES)) for _ in range(20)} == {"b"}
            with pytest.raises(InternalServerError):
                probe.result(timeout=5)
    assert health(routed)[0] == "cooling"


def test_it_can_be_switched_off(at: Make) -> None:
    routed = Router([at("m", "hello?status=500")], num_retries=0, disable_cooldowns=True)
    for _ in range(15):
        with pytest.raises(InternalServerError):
            routed.completion("m", MESSAGES)
    assert health(routed) == ["up"]


@pytest.mark.parametrize("status", [401, 403, 404, 402])
def test_what_will_not_mend_itself_is_left_alone_at_once(world: Any, at: Make, status: int) -> None:
    routed = Router([at("m", f"hello?status={status}", order=1), mocked("m", "b", order=2)])
    if status == 402:  # that is an error of the account, which the contract lets nobody answer for
        with pytest.raises(APIError):
            ask(routed, world)
    assert text(ask(routed, world)) == "b"
    assert health(routed) == ["cooling", "up"]
    assert routed.deployments()[0].failed == 1


def test_too_many_requests_are_heard(world: Any, at: Make) -> None:
    routed = Router([at("m", "hello?status=429&retry_after=30", order=1), mocked("m", "b", order=2)])
    assert text(ask(routed, world)) == "b"
    assert 29 < routed.deployments()[0].cooldown <= 30


def test_what_the_caller_does_wrong_is_nobodys_fault(at: Make) -> None:
    routed = Router([at("m", "hello?status=400"), at("m", "hello?status=422")], num_retries=0)
    for _ in range(20):
        with pytest.raises(BadRequestError):
            routed.completion("m", MESSAGES)
    assert health(routed) == ["up", "up"]
    assert [deployment.failed for deployment in routed.deployments()] == [0, 0]


# Another attempt, another name ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["status=500", "status=429", "status=401", "cut=0", "error=0", "first_byte=5"])
def test_another_deployment_answers(world: Any, up: Upstream, at: Make, script: str, clock: Clock) -> None:
    routed = Router([at("m", f"tools?{script}", order=1), at("m", "hello", order=2)])
    streamed = stream(routed, world, timeout=Timeouts(first_token=0.3))
    assert [attempt.model for attempt in streamed.attempts] == [f"tools?{script}", "hello"]
    assert [attempt.deployment for attempt in streamed.attempts] == ["m#0", "m#1"]
    assert streamed.attempts[0].error is not None
    assert asked(up) == {"tools": 1, "hello": 1}
    assert clock.rests == []  # there is no reason to wait
    assert in_flight(routed) == [0, 0]


def test_alone_it_is_tried_again_as_often_as_said(world: Any, up: Upstream, at: Make) -> None:
    with pytest.raises(InternalServerError):
        ask(Router([at("m", "hello?status=500")]), world)
    assert asked(up) == {"hello": 3}
    up.reset()
    with pytest.raises(InternalServerError) as caught:
        ask(Router([at("m", "hello?status=500")]), world, num_retries=1)
    assert asked(up) == {"hello": 2}
    assert any("before it" in note for note in caught.value.__notes__)


def test_alone_it_is_given_the_time_that_it_asks_for(world: Any, up: Upstream, at: Make, clock: Clock) -> None:
    routed = Router([at("m", "hello?status=429&retry_after=20&fail=1")])
    ask(routed, world)
    assert asked(up) == {"hello": 2}
    assert 19 < sum(clock.rests) <= 20.1
    up.reset()
    with pytest.raises(RateLimitError) as caught:
        ask(Router([at("m", "hello?status=429&retry_after=61")]), world)
    assert (asked(up), caught.value.status_code) == ({"hello": 1}, 429)


def test_without_cooldowns_too(up: Upstream, at: Make, clock: Clock) -> None:
    Router([at("m", "hello?status=429&retry_after=20&fail=1")], disable_cooldowns=True).completion("m", MESSAGES)
    assert clock.rests == [20]


def test_with_fallbacks_it_is_not(world: Any, at: Make, clock: Clock) -> None:
    listed = [
        at("m", "hello?status=500", order=1),
        at("m", "hello?status=429&retry_after=20", order=2),
        mocked("n", "n"),
    ]
    assert text(ask(Router(listed, fallbacks=[{"m": ["n"]}]), world)) == "n"
    assert text(ask(Router(listed[1:], fallbacks=[{"m": ["n"]}]), world)) == "n"
    assert sum(clock.rests) < 0.1


def test_a_failed_call_holds_no_place(at: Make) -> None:
    routed = Router([at("m", "hello?status=500&tag=a"), at("m", "hello?status=500&tag=b")])
    errors = []
    for _ in range(3):
        with pytest.raises(APIError) as caught:
            routed.completion("m", MESSAGES)
        errors.append(caught.value)
    assert in_flight(routed) == [0, 0]


def test_at_least_so_long_between_attempts(at: Make, clock: Clock) -> None:
    routed = Router([at("m", "hello?fail=2")], retry_after=3)
    routed.completion("m", MESSAGES)
    assert sum(clock.rests) == pytest.approx(6)


def test_all_attempts_are_over_in_time(at: Make) -> None:
    routed = Router([at("m", "hello?first_byte=5&tag=a"), at("m", "hello?first_byte=5&tag=b")])
    started = time.monotonic()
    with pytest.raises(Timeout):
        routed.completion("m", MESSAGES, timeout=0.3)
    assert time.monotonic() - started < 2


def test_retries_have_a_budget(up: Upstream, at: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router, "RESERVE", 3.0)
    routed = Router([at("m", "hello?status=500")], retry_budget=0.5, disable_cooldowns=True)
    for _ in range(20):
        with pytest.raises(InternalServerError) as caught:
            routed.completion("m", MESSAGES)
    assert asked(up) == {"hello": 20 + 13}
    assert any("retry_budget" in note for note in caught.value.__notes__)


def test_names_fall_back_on_others(world: Any, up: Upstream, at: Make) -> None:
    routed = Router(
        [at("m", "hello?status=500"), at("n", "tools?status=503"), at("o", "hello")],
        fallbacks=[{"m": ["n", {"model": "o", "temperature": 0.5}]}],
        num_retries=0,
    )
    streamed = stream(routed, world, temperature=0.1)
    assert [attempt.model for attempt in streamed.attempts] == ["hello?status=500", "tools?status=503", "hello"]
    assert [exchange["body"]["temperature"] for exchange in up.stats()["requests"]] == [0.1, 0.1, 0.5]


def test_fallbacks_have_fallbacks_and_no_circle(at: Make) -> None:
    routed = Router(
        [at("m", "hello?status=500&tag=m"), at("n", "hello?status=500&tag=n"), at("o", "hello?status=500&tag=o")],
        fallbacks=[{"m": ["n"]}, {"n": ["m", "o"]}, {"o": ["m"]}],
        num_retries=0,
    )
    with pytest.raises(InternalServerError) as caught:
        routed.completion("m", MESSAGES)
    assert caught.value.model == "hello?status=500&tag=o"
    assert [deployment.failed for deployment in routed.deployments()] == [1, 1, 1]


@pytest.mark.parametrize(
    ("script", "tables", "answer"),
    [
        (CONTEXT, {"fallbacks": [{"m": ["b"]}], "context_window_fallbacks": [{"m": ["c"]}]}, "c"),
        (CONTEXT, {"fallbacks": [{"m": ["b"]}]}, "b"),
        (CONTEXT, {"context_window_fallbacks": [{"*": ["c"]}]}, "c"),
        (REFUSED, {"fallbacks": [{"m": ["b"]}], "content_policy_fallbacks": [{"m": ["c"]}]}, "c"),
        (REFUSED, {"fallbacks": [{"m": ["b"]}], "default_fallbacks": ["c"]}, None),
        ("hello?status=500", {"content_policy_fallbacks": [{"m": ["c"]}]}, None),
        ("hello?status=500", {"default_fallbacks": ["b"]}, "b"),
        ("hello?status=500", {"fallbacks": [{"*": ["c"]}], "default_fallbacks": ["b"]}, "c"),
        ("hello?status=500", {"fallbacks": [{"m": ["c"]}], "default_fallbacks": ["b"]}, "c"),
        ("hello?status=400", {"fallbacks": [{"m": ["b"]}], "default_fallbacks": ["c"]}, None),
    ],
)
def test_each_error_has_its_fallbacks(at: Make, script: str, tables: dict[str, Any], answer: str | None) -> None:
    routed = Router([at("m", script), mocked("b", "b"), mocked("c", "c")], num_retries=0, **tables)
    if answer is None:
        with pytest.raises(APIError):
            routed.completion("m", MESSAGES)
    else:
        assert text(routed.completion("m", MESSAGES)) == answer


@pytest.mark.parametrize("own", [["c"], [{"m": ["c"]}], [{"model": "c"}]])
def test_a_call_has_fallbacks_of_its_own(world: Any, at: Make, own: list[Any]) -> None:
    listed = [at("m", "hello?status=500"), mocked("b", "b"), mocked("c", "c")]
    routed = Router(listed, fallbacks=[{"m": ["b"]}], num_retries=0)
    assert text(ask(routed, world)) == "b"
    assert text(ask(routed, world, fallbacks=own)) == "c"
    with pytest.raises(APIError):
        ask(routed, world, fallbacks=[])


def test_refused_content_falls_back_only_where_that_is_meant(at: Make) -> None:
    routed = Router([at("m", REFUSED), mocked("b", "b")], fallbacks=[{"m": ["b"]}])
    with pytest.raises(ContentPolicyViolationError):
        routed.completion("m", MESSAGES)
    assert text(routed.completion("m", MESSAGES, content_policy_fallbacks=["b"])) == "b"


def test_a_stream_that_has_begun_is_not_begun_again(at: Make, world: Any) -> None:
    routed = Router([at("m", "hello?cut=3", order=1), mocked("m", "b", order=2)])
    with pytest.raises(APIConnectionError):
        stream(routed, world)
    assert [deployment.answered for deployment in routed.deployments()] == [0, 0]


def test_a_stream_can_be_gone_on_with_after_a_cut(at: Make, up: Upstream, world: Any) -> None:
    routed = Router([at("m", "hello?cut=9&fail=1")])
    streamed = stream(routed, world, on_stream_cut="restart")
    assert asked(up) == {"hello": 2}
    assert [attempt.deployment for attempt in streamed.attempts] == ["m#0", "m#0"]
    (deployment,) = routed.deployments()
    assert (deployment.in_flight, deployment.answered, deployment.failed) == (0, 1, 0)


# Around it ------------------------------------------------------------------------------------------------------------


class Diary:
    """What a hook is told."""

    def __init__(self) -> None:
        self.started_with: list[Any] = []
        self.ended_with: list[Any] = []

    def started(self, call: Any) -> None:
        self.started_with.append(call)

    def ended(self, call: Any, end: Any) -> None:
        self.ended_with.append(end)


@pytest.mark.parametrize("how", ["argument", "default"])
def test_hooks_are_told_of_one_call(world: Any, at: Make, how: str) -> None:
    diary = Diary()
    routed = Router([at("m", "hello?status=500"), at("n", "hello")], fallbacks=[{"m": ["n"]}], num_retries=0)
    with penstock.configured(hooks=[diary] if how == "default" else []):
        stream(routed, world, hooks=[diary] if how == "argument" else None)
    (call,), (end,) = diary.started_with, diary.ended_with
    assert (call.model, call.stream) == ("m", True)
    assert (end.how, end.model, len(end.attempts)) == ("complete", "hello", 2)
    with pytest.raises(RateLimitError):
        ask(Router([mocked("m", "a", rpm=0)], timeout=1), world, hooks=[diary])
    assert diary.ended_with[-1].how == "failed"


def test_defaults_go_before_nothing(up: Upstream, at: Make) -> None:
    with penstock.configured(max_retries=0, drop_params=True):
        with pytest.raises(InternalServerError):
            Router([at("m", "hello?status=500")]).completion("m", MESSAGES)
        assert asked(up) == {"hello": 1}
        with pytest.raises(InternalServerError):
            Router([at("m", "hello?status=500")], num_retries=1).completion("m", MESSAGES)
        assert asked(up) == {"hello": 3}
    with penstock.configured(timeout=0.1), pytest.raises(Timeout):
        Router([at("m", "hello?first_byte=5")], num_retries=0).completion("m", MESSAGES)


def test_prices_can_be_in_ones_own_table() -> None:
    prices = {"openai/dear": {"input_cost_per_token": 2e-6, "output_cost_per_token": 2e-6}}
    cheap = mocked("m", "cheap", input_cost_per_token=1e-6, output_cost_per_token=1e-6)
    with penstock.configured(prices=prices):
        routed = Router([mocked("m", "unknown"), mocked("m", "dear"), cheap], routing_strategy="cost-based-routing")
    answers = {text(routed.completion("m", MESSAGES)) for _ in range(10)}
    assert answers == {"cheap"}
    assert [member.rules["price"] for member in routed._groups["m"].members] == [None, 4e-6, 2e-6]


# One behaviour in one place ------------------------------------------------------------------------------------------


CLASSES = [each for each in vars(penstock.errors).values() if isinstance(each, type) and issubclass(each, APIError)]


@pytest.mark.parametrize("error", CLASSES)
def test_the_rules_and_the_exceptions_agree(error: type[APIError]) -> None:
    assert retry.retryable(error("x")) is error.retryable
