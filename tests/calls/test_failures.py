"""How calls fail: which error, with what on it, and what is left behind."""

import asyncio
import gc
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import trio

from penstock import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    AuthenticationError,
    Timeout,
    acompletion,
    completion,
    errors,
)
from penstock.replay import Upstream

MESSAGES = [{"role": "user", "content": "Hello"}]

# No answer of the API -----------------------------------------------------------------------------------------------


def test_a_redirect_is_not_followed(world: Any, up: Upstream) -> None:
    raised = world.fails(APIStatusError, "hello?redirect=https://elsewhere.example/v1%3Ftoken=secret")
    assert raised.status_code == 307
    assert "https://elsewhere.example/v1" in raised.message
    assert "secret" not in raised.message
    assert len(up.stats()["requests"]) == 1


def test_a_client_that_follows_redirects_does_not_do_so_here(up: Upstream) -> None:
    with httpx.Client(follow_redirects=True) as client, pytest.raises(APIStatusError) as caught:
        completion(
            f"openai/hello?redirect={up.base_url}/chat/completions",
            MESSAGES,
            api_base=up.base_url,
            api_key="x",
            client=client,
        )
    assert caught.value.status_code == 307


def test_a_page_is_no_stream(world: Any) -> None:
    raised = world.fails(APIResponseValidationError, "hello?html")
    assert "text/html" in raised.message
    assert "<!DOCTYPE html>" in raised.message
    with pytest.raises(APIResponseValidationError):
        world.ask("hello?html")


# What is left of it ---------------------------------------------------------------------------------------------------


def test_nothing_partial_is_kept_on_request(world: Any) -> None:
    assert world.fails(APIConnectionError, "hello?cut=3", keep_partial=False).partial is None


# Keys -----------------------------------------------------------------------------------------------------------------


def test_no_key_is_found_in_what_can_be_printed(world: Any, up: Upstream) -> None:
    key = "sk-secret-0123456789"

    def echo(request: httpx.Request) -> httpx.Response:
        sent = request.headers["authorization"].removeprefix("Bearer ")
        body = {"error": {"message": f"bad key {sent}", "code": "invalid_api_key", "param": None, "type": sent}}
        return httpx.Response(401, json=body)

    with pytest.raises(AuthenticationError) as caught:
        completion(
            "gpt-4o", MESSAGES, api_key=key, client=httpx.Client(transport=httpx.MockTransport(echo)), max_retries=0
        )
    error = caught.value
    assert error.message == "bad key [key]"
    assert key not in repr(error) + str(error) + repr(vars(error)) + repr(error.args)


def test_a_key_that_is_no_secret_is_left_in_the_words_it_occurs_in(world: Any) -> None:
    raised = world.fails(AuthenticationError, "hello?status=401", api_key="k")
    assert (raised.code, raised.message) == ("invalid_api_key", "Incorrect API key provided: sk-re******lay.")
    assert world.fails(Timeout, "hello?silent&tag=k", api_key="token", timeout=0.2).code == "first_token"


def test_errors_survive_pickling(world: Any) -> None:
    raised = world.fails(APIConnectionError, "hello?cut=3")
    copy = pickle.loads(pickle.dumps(raised))
    assert type(copy) is type(raised)
    assert str(copy) == str(raised)
    assert copy.partial == raised.partial
    assert copy.headers == raised.headers


# Leaving early --------------------------------------------------------------------------------------------------------


def left_early(up: Upstream) -> None:
    """The upstream has noticed that the client went away."""
    up.wait(lambda stats: any(exchange["closed_early"] for exchange in stats["requests"]))


SLOW = "openai/long-200?delay=20"


def test_leaving_the_loop_aborts_the_request(up: Upstream) -> None:
    for _ in completion(SLOW, MESSAGES, stream=True, api_base=up.base_url, api_key="x"):
        break
    left_early(up)


def test_dropping_a_stream_aborts_the_request(up: Upstream) -> None:
    completion(SLOW, MESSAGES, stream=True, api_base=up.base_url, api_key="x")
    left_early(up)


def test_with_aborts_the_request(up: Upstream) -> None:
    with completion(SLOW, MESSAGES, stream=True, api_base=up.base_url, api_key="x") as stream:
        next(stream)
    left_early(up)
    assert list(stream) == []
    assert stream.usage is None
    stream.close()


def test_closing_from_another_thread_ends_the_loop(up: Upstream) -> None:
    stream = completion("openai/long-200?stall=3", MESSAGES, stream=True, api_base=up.base_url, api_key="x")
    threading.Timer(0.1, stream.close).start()
    assert len(list(stream)) < 10
    left_early(up)


async def leave_by_break(stream: Any) -> None:
    async for _ in stream:
        break


async def leave_by_drop(stream: Any) -> None:
    pass


async def leave_by_with(stream: Any) -> None:
    async with stream:
        await anext(stream)


async def leave_by_aclose(stream: Any) -> None:
    await anext(stream)
    await stream.aclose()
    assert [chunk async for chunk in stream] == []


async def leave_by_cancellation(stream: Any) -> None:
    with anyio.move_on_after(0.1) as scope:
        async for _ in stream:
            pass
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    "leave", [leave_by_break, leave_by_drop, leave_by_with, leave_by_aclose, leave_by_cancellation]
)
@pytest.mark.parametrize("run", [asyncio.run, trio.run])
def test_leaving_an_async_stream_aborts_the_request(up: Upstream, leave: Any, run: Any) -> None:
    if (leave, run) == (leave_by_break, trio.run):
        pytest.skip("external: trio itself warns of every generator that is left by break")

    async def main() -> None:
        await leave(await acompletion(SLOW, MESSAGES, stream=True, api_base=up.base_url, api_key="x"))
        gc.collect()
        await anyio.sleep(0.05)
        left_early(up)

    run(main) if run is trio.run else run(main())


def test_cancelled_before_the_answer(up: Upstream) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(
                acompletion("openai/hello?first_byte=5", MESSAGES, api_base=up.base_url, api_key="x"), 0.1
            )

    asyncio.run(main())
    left_early(up)


def test_closing_from_another_task_ends_the_loop(up: Upstream) -> None:
    async def main() -> int:
        stream = await acompletion("openai/long-200?stall=3", MESSAGES, stream=True, api_base=up.base_url, api_key="x")
        asyncio.get_running_loop().call_later(0.1, lambda: asyncio.ensure_future(stream.aclose()))
        return len([chunk async for chunk in stream])

    assert asyncio.run(main()) < 10


# Draining -------------------------------------------------------------------------------------------------------------


def test_drain_reads_on_to_the_usage(up: Upstream) -> None:
    options: Any = {"stream": True, "api_base": up.base_url, "api_key": "x"}
    stream = completion("openai/long-200", MESSAGES, **options)
    for _ in stream:
        break
    usage = stream.drain()
    assert usage is not None
    assert usage.complete
    assert list(stream) == []

    async def main() -> Any:
        stream = await acompletion("openai/long-200", MESSAGES, **options)
        await anext(stream)
        return await stream.drain()

    assert asyncio.run(main()) == usage


def test_drain_ends_in_time_or_after_so_many_tokens(up: Upstream) -> None:
    options: Any = {"stream": True, "api_base": up.base_url, "api_key": "x"}
    began = time.monotonic()
    assert completion("openai/long-200?stall=3", MESSAGES, **options).drain(max_seconds=0.2) is None
    assert completion(SLOW, MESSAGES, **options).drain(max_tokens=3) is None
    left_early(up)
    assert time.monotonic() - began < 3  # 200 deltas would take 4 s, a stall 600


# Processes ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_leaves_the_parents_connections_alone(up: Upstream) -> None:
    options: Any = {"api_base": up.base_url, "api_key": "x"}
    stream = completion("openai/long-100?delay=2", MESSAGES, stream=True, **options)
    next(stream)
    child = os.fork()
    if child == 0:
        try:
            list(completion("openai/hello", MESSAGES, stream=True, timeout=5, **options))
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert sum(bool(chunk.choices) for chunk in stream) >= 100


def test_a_stream_left_open_at_exit_makes_no_noise(up: Upstream) -> None:
    code = f"""
import asyncio
from penstock import acompletion, completion
options = dict(messages=[dict(role="user", content="x")], stream=True, api_base={up.base_url!r}, api_key="x")
kept = completion("openai/long-200?delay=20", **options)
next(kept)
async def main():
    global other
    other = await acompletion("openai/long-200?delay=20", **options)
    await anext(other)
    never = await acompletion("openai/long-200?delay=20", **options)
asyncio.run(main())
"""
    command = [sys.executable, "-X", "dev", "-c", code]
    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=30, env=os.environ | path())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def path() -> dict[str, str]:
    """Where this very build is, for other processes."""
    return {"PYTHONPATH": str(Path(errors.__file__).parent.parent)}
