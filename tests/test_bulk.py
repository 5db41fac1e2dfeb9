"""Many at once: every row has one result, in bounded memory, whatever happens to the process."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import BadRequestError, abulk, api, bulk
from penstock._native import RetryBudget
from penstock.many.checkpoint import Checkpoint, Ranges, row_of
from penstock.many.pace import CUT, FIRST, SAMPLES, Pace, Rate
from penstock.replay import Upstream

KEY = "sk-test-0123456789abcdef"


@pytest.fixture
def up() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture
def local(up: Upstream) -> dict[str, Any]:
    """Options with which every row goes to the local upstream."""
    return {"model": "openai/hello", "api_base": up.base_url, "api_key": KEY}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def write(path: Path, rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# Pace: the time is an argument ---------------------------------------------------------------------------------------


def test_the_limit_doubles_with_each_round_until_the_first_refusal() -> None:
    pace = Pace()
    assert int(pace.limit) == FIRST
    for _ in range(FIRST):
        pace.answered(1.0, 0.1, in_flight=int(pace.limit))
    assert int(pace.limit) == 2 * FIRST
    pace.refused(2.0, 0.1)
    assert pace.limit == pytest.approx(2 * FIRST * CUT)
    before = pace.limit
    for _ in range(int(before)):
        pace.answered(3.0, 0.1, in_flight=int(pace.limit))
    assert before + 0.8 < pace.limit < before + 1.1


def test_requests_refused_together_cut_the_limit_once() -> None:
    pace = Pace(100)
    for _ in range(50):
        pace.refused(10.0, seconds=0.5)
    assert pace.limit == pytest.approx(100 * CUT)
    pace.refused(10.4, seconds=0.5)  # sent at 9.9: before the cut
    assert pace.limit == pytest.approx(100 * CUT)
    pace.refused(11.0, seconds=0.5)
    assert pace.limit == pytest.approx(100 * CUT * CUT)


def test_the_limit_never_falls_below_one_and_never_exceeds_the_ceiling() -> None:
    pace = Pace(3)
    for second in range(20):
        pace.refused(float(second), 0.1)
    assert pace.limit == 1.0
    assert pace.room(0)
    assert not pace.room(1)
    for _ in range(1000):
        pace.answered(50.0, 0.1, in_flight=3)
    assert pace.limit == 3.0


def test_a_limit_that_is_not_used_does_not_grow() -> None:
    pace = Pace()
    for _ in range(100):
        pace.answered(1.0, 0.1, in_flight=2)
    assert pace.limit == FIRST


def test_growing_latency_is_a_queue_and_cuts_the_limit() -> None:
    pace = Pace()
    for _ in range(SAMPLES):
        pace.answered(1.0, 1.0, in_flight=1)
    limit = pace.limit
    for _ in range(SAMPLES):
        pace.answered(2.0, 5.0, in_flight=1)
    assert limit * CUT <= pace.limit < limit
    fixed = Pace(20)
    for seconds in (1.0, 9.0):
        for _ in range(SAMPLES * 2):
            fixed.answered(1.0, seconds, in_flight=1)
    assert fixed.limit == 20  # a number is the caller's word; latency does not change it


def test_a_provider_that_names_a_time_gets_it() -> None:
    pace = Pace()
    pace.refused(10.0, 0.1, retry_after=4.0)
    assert pace.wait(11.0) == pytest.approx(3.0)
    assert pace.wait(14.5) == 0.0


def simulated(rate: Rate, amount: float, seconds: float) -> float:
    """How much is taken in this time by somebody who takes whenever it is allowed."""
    now, taken = 0.0, 0.0
    while now < seconds:
        if wait := rate.wait(now, amount):
            now += wait
        else:
            rate.take(amount)
            taken += amount
    return taken


@pytest.mark.parametrize(("per_minute", "amount"), [(60, 1), (6000, 1), (30, 1), (60000, 700), (600, 5000)])
def test_a_rate_is_kept_over_every_amount(per_minute: float, amount: float) -> None:
    taken = simulated(Rate(per_minute, 0.0), amount, 600.0)
    assert taken == pytest.approx(per_minute * 10, abs=amount + per_minute / 60 + 1)


def test_what_was_overspent_is_waited_for() -> None:
    rate = Rate(60, 0.0)
    rate.take(1)
    rate.take(5)  # the estimate was too low
    assert rate.wait(0.0, 1) == pytest.approx(6.0)
    rate.take(-5)
    assert rate.wait(0.0, 1) == pytest.approx(1.0)


# Ranges and the log --------------------------------------------------------------------------------------------------


def test_ranges_are_a_set() -> None:
    dice = random.Random(7)
    for _ in range(50):
        ranges = Ranges()
        truth: set[int] = set()
        for _ in range(100):
            first = dice.randrange(120)
            last = first + dice.choice([0, 0, 0, 1, 5])
            ranges.add(first, last)
            truth.update(range(first, last + 1))
            assert ranges.count == len(truth)
        assert [row for row in range(130) if row in ranges] == sorted(truth)
        pairs = list(ranges)
        assert all(after[0] > before[1] + 1 for before, after in pairwise(pairs))


def test_a_checkpoint_remembers_and_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.many.checkpoint.COMPACT", 500)
    path = tmp_path / "c"
    checkpoint = Checkpoint(path)
    biggest = 0
    for row in range(2000):
        checkpoint.add(row)
        checkpoint.commit()
        biggest = max(biggest, path.stat().st_size)
    assert biggest < 1200
    os.close(checkpoint._file)  # as if killed
    again = Checkpoint(path)
    assert list(again.done) == [(0, 1999)]
    again.close()


def test_a_line_that_was_cut_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "c"
    first = Checkpoint(path)
    first.add(1)
    first.close()
    with path.open("ab") as file:
        file.write(b'{"rows":[[2,9')
    again = Checkpoint(path)
    assert list(again.done) == [(1, 1)]
    again.add(3)
    again.close()
    assert list(Checkpoint(path).done) == [(1, 1), (3, 3)]


def test_a_checkpoint_is_of_one_input_and_one_run(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a", ["a"] * 9), write(tmp_path / "b", ["b"] * 9)
    checkpoint = Checkpoint(tmp_path / "c", one)
    with pytest.raises(BadRequestError, match="in use"):
        Checkpoint(tmp_path / "c", one)
    checkpoint.close()
    with pytest.raises(BadRequestError, match="another input"):
        Checkpoint(tmp_path / "c", other)
    with one.open("a") as file:
        file.write('"more"\n')
    Checkpoint(tmp_path / "c", one).close()  # what only grew is the same input
    with pytest.raises(BadRequestError, match="no checkpoint"):
        Checkpoint(one)


# Rows ----------------------------------------------------------------------------------------------------------------


def test_every_row_has_one_result(local: dict[str, Any], tmp_path: Path) -> None:
    rows = [
        "a text",
        {"prompt": "a prompt", "id": 7, "temperature": 0.5},
        [{"role": "user", "content": "messages"}],
        {"messages": [{"role": "user", "content": "a row"}]},
        {"model": "x"},
        {"prompt": "p", "api_base": "https://elsewhere.example"},
        {"prompt": "p", "stream": True},
        3,
    ]
    found = {row.index: row for row in bulk(rows, **local)}
    assert sorted(found) == list(range(8))
    for index in range(4):
        row = found[index]
        assert row.error is None
        assert row.response is not None
        assert row.usage == row.response.usage
        assert row.latency > 0
        assert [attempt.error for attempt in row.attempts] == [None]
        assert row.request == rows[index]
    assert found[1].id == "7"
    for index, word in ((4, "either messages or a prompt"), (5, "api_base"), (6, "not streamed"), (7, "not int")):
        assert found[index].response is None
        assert isinstance(found[index].error, BadRequestError)
        assert word in str(found[index].error)
        assert not found[index].attempts


def test_lines_that_are_not_json_are_rows_that_failed(local: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "a"}\n\n{"prompt": \n"b"\n', encoding="utf-8")
    found = {row.index: row for row in bulk(path, **local)}
    assert sorted(found) == [0, 2, 3]
    assert "not JSON" in str(found[2].error)
    assert found[3].response is not None


def test_the_order_is_kept_where_it_is_asked_for(local: dict[str, Any]) -> None:
    rows = [{"prompt": "p", "model": f"openai/hello?delay={(7 * n) % 20}&tag={n}"} for n in range(40)]
    options = {name: value for name, value in local.items() if name != "model"} | {"custom_llm_provider": "openai"}
    assert [row.index for row in bulk(rows, ordered=True, **options)] == list(range(40))


def test_attempts_and_errors_are_in_the_row(local: dict[str, Any], up: Upstream) -> None:
    models = ("openai/hello?status=503&fail=2", "openai/hello?status=400")
    rows = [{"prompt": "p", "model": model} for model in models]
    options = {name: value for name, value in local.items() if name != "model"} | {"custom_llm_provider": "openai"}
    first, second = bulk(rows, ordered=True, **options)
    assert [attempt.status_code for attempt in first.attempts] == [503, 503, 200]
    assert first.response is not None
    assert isinstance(second.error, BadRequestError)
    assert len(second.attempts) == 1


def test_what_fails_for_all_fails_once(local: dict[str, Any], tmp_path: Path, up: Upstream) -> None:
    """A revoked key must not turn a million rows into a million errors that count as done."""
    options = {**local, "model": "openai/hello?status=401", "max_in_flight": 4}
    with pytest.raises(penstock.AuthenticationError) as caught:
        list(bulk(["x"] * 1000, checkpoint=tmp_path / "c", **options))
    assert any("not done" in note for note in caught.value.__notes__)
    assert up.stats()["models"]["hello"]["requests"] < 20
    assert len(list(bulk(["x"] * 30, checkpoint=tmp_path / "c", **local))) == 30


def test_a_few_such_errors_are_results(local: dict[str, Any]) -> None:
    rows = list(bulk(["x"] * 5, **{**local, "model": "openai/hello?status=401"}))
    assert len(rows) == 5
    assert all(isinstance(row.error, penstock.AuthenticationError) for row in rows)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"rpm": -1}, "rpm"),
        ({"temprature": 1}, "temperature"),
        ({"model": None, "custom_llm_provider": None}, "api_key needs model"),
        ({"output": "taken"}, "exists"),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    options: dict[str, Any], word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("somebody's\n")
    given: dict[str, Any] = {"model": "openai/gpt-4o", "api_key": KEY, **options}
    with pytest.raises(BadRequestError, match=word):
        bulk(["x"], **given)
    assert (tmp_path / "taken").read_text() == "somebody's\n"


def test_no_key_is_known_before_anything_is_read() -> None:
    with pytest.raises(penstock.AuthenticationError):
        bulk(iter(["x"]), model="openai/gpt-4o")


def test_no_input_is_no_result(local: dict[str, Any]) -> None:
    assert list(bulk([], **local)) == []
    with pytest.raises(BadRequestError, match="requests must be"):
        bulk(3, **local)
    with pytest.raises(BadRequestError, match="abulk"):
        bulk(endless(), **local)


async def endless() -> AsyncIterator[str]:
    while True:
        yield "x"


def test_what_the_iterable_raises_comes_after_what_it_gave(local: dict[str, Any]) -> None:
    def rows() -> Iterator[str]:
        yield from ["a", "b", "c"]
        raise LookupError("the source broke")

    run = bulk(rows(), **local)
    assert sorted(next(run).index for _ in range(3)) == [0, 1, 2]
    with pytest.raises(LookupError, match="the source broke"):
        next(run)


def test_rows_are_read_in_the_callers_thread(local: dict[str, Any]) -> None:
    """A cursor of sqlite3, for one, refuses any other."""
    threads = set()

    def rows() -> Iterator[str]:
        for _ in range(100):
            threads.add(threading.current_thread())
            yield "x"

    assert len(list(bulk(rows(), **local))) == 100
    assert threads == {threading.current_thread()}


def test_an_endless_input_is_read_only_as_far_as_it_is_needed(local: dict[str, Any]) -> None:
    read = 0

    def rows() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "x"

    with bulk(rows(), max_in_flight=4, **local) as run:
        for _ in range(20):
            next(run)
        time.sleep(0.2)
        assert read < 100
        assert run.progress.in_flight <= 4
    with pytest.raises(StopIteration):
        next(run)
    assert not any(thread.name == "penstock-bulk" for thread in threading.enumerate())


def test_never_more_in_flight_than_allowed(local: dict[str, Any]) -> None:
    most = 0
    with bulk(["x"] * 60, max_in_flight=5, **{**local, "model": "openai/hello?delay=2"}) as run:
        for _ in run:
            most = max(most, run.progress.in_flight)
    assert 1 < most <= 5


def test_requests_a_minute(local: dict[str, Any]) -> None:
    began = time.monotonic()
    assert len(list(bulk(["x"] * 30, rpm=1200, **local))) == 30
    assert time.monotonic() - began >= 0.45  # 20 at once, then one each 50 ms


def test_tokens_a_minute(local: dict[str, Any]) -> None:
    (row,) = bulk(["x"], **local)
    assert row.usage is not None
    a_row = row.usage.total_tokens or 0
    assert a_row > 50  # several times what the text alone would make anybody expect
    began = time.monotonic()
    assert len(list(bulk(["x"] * 15, tpm=a_row * 10 * 60, max_in_flight=2, **local))) == 15
    assert 0.35 <= time.monotonic() - began < 10  # ten at once, or a few more, then one each 100 ms


def test_the_cost_is_by_provider_and_model(local: dict[str, Any]) -> None:
    rows = [{"prompt": "p"}, {"prompt": "p", "model": "openai/hello?tag=unknown"}]
    options = {name: value for name, value in local.items() if name != "model"} | {"custom_llm_provider": "openai"}
    rows[0]["model"] = "openai/hello"
    prices = {
        "openai/hello": {"input_cost_per_token": 0.5, "output_cost_per_token": 2.0},
        "anthropic/hello": {"input_cost_per_token": 9.0, "output_cost_per_token": 9.0},
    }
    with penstock.configured(prices=prices), bulk(rows, ordered=True, **options) as run:
        first, second = run
        assert first.usage is not None
        assert first.cost == (first.usage.prompt_tokens or 0) * 0.5 + (first.usage.completion_tokens or 0) * 2.0 > 0
        assert second.cost is None
        assert second.usage is not None
        assert run.progress.cost == first.cost


def test_defaults_hold_where_the_run_was_made(local: dict[str, Any], up: Upstream) -> None:
    failing = {**local, "model": "openai/hello?status=503"}
    with pytest.raises(penstock.UnsupportedParamsError):
        bulk(["x"], model="replay/cohere/hello", logit_bias={"1": 1})
    with penstock.configured(drop_params=True, max_retries=0):
        dropped = bulk(["x"], model="replay/cohere/hello", logit_bias={"1": 1})
        alone, told = bulk(["x"], **failing), bulk(["x"], max_retries=1, **failing)
        later = abulk(["x"], **failing)

    async def main() -> list[int]:
        return [len(row.attempts) async for row in later]

    assert [row.error for row in dropped] == [None]
    assert [len(row.attempts) for row in alone] == [1]
    assert [len(row.attempts) for row in told] == [2]
    assert asyncio.run(main()) == [1]


def test_refusals_slow_it_down_and_lose_nothing(local: dict[str, Any], up: Upstream) -> None:
    options = {**local, "model": "openai/hello?status=429&fail=30&retry_after=0.05"}
    with bulk(["x"] * 60, max_in_flight=30, **options) as run:
        rows = list(run)
        assert run.progress.limit < 30
    assert sorted(row.index for row in rows) == list(range(60))
    assert all(row.response is not None for row in rows)


def test_its_retries_are_not_those_of_the_process(
    local: dict[str, Any], up: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps a pace of its own: a time of refusals makes it slow, and costs no row."""
    monkeypatch.setattr(api, "_budget", RetryBudget(0.0, 0))
    options = {**local, "model": "openai/hello?status=429&fail=30&retry_after=0.05"}
    with bulk(["x"] * 60, max_in_flight=30, **options) as run:
        assert all(row.response is not None for row in run)


def test_stop_finishes_what_is_in_flight(local: dict[str, Any], tmp_path: Path) -> None:
    found = []
    with bulk(endless_sync(), max_in_flight=4, checkpoint=tmp_path / "c", **local) as run:
        for row in run:
            found.append(row.index)
            if len(found) == 10:
                run.stop()
    assert sorted(found) == list(range(len(found)))
    assert 10 <= len(found) < 30
    checkpoint = Checkpoint(tmp_path / "c")
    assert list(checkpoint.done) == [(0, len(found) - 1)]
    checkpoint.close()


def endless_sync() -> Iterator[str]:
    while True:
        yield "x"


def test_asynchronous_from_any_iterable(local: dict[str, Any]) -> None:
    async def rows() -> AsyncIterator[str]:
        for _ in range(25):
            await asyncio.sleep(0)
            yield "x"

    async def main(requests: Any) -> list[int]:
        return sorted([row.index async for row in abulk(requests, **local)])

    assert asyncio.run(main(rows())) == list(range(25))
    assert asyncio.run(main(["x"] * 25)) == list(range(25))


def test_leaving_an_asynchronous_run_aborts_it(local: dict[str, Any], up: Upstream) -> None:
    async def main() -> int:
        async with abulk(endless_sync(), max_in_flight=4, **{**local, "model": "openai/hello?silent=1"}) as run:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(run), 0.2)
        return len(asyncio.all_tasks())

    assert asyncio.run(main()) == 1
    up.wait(lambda stats: stats["connections"]["open"] == 0)


def test_trio_is_told_what_works() -> None:
    import trio

    async def main() -> None:
        with pytest.raises(RuntimeError, match="needs asyncio"):
            await anext(abulk(["x"], model="openai/x", api_key=KEY))

    trio.run(main)


def test_tables_of_arrow(local: dict[str, Any], tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="external: pyarrow is not installed")
    table = pyarrow.table({"prompt": ["a", "b", None], "id": ["x", "y", "z"], "temperature": [0.5, None, None]})
    rows = list(bulk(table, ordered=True, **local))
    assert [row.id for row in rows] == ["x", "y", "z"]
    assert rows[1].request == {"prompt": "b", "id": "y"}
    assert [row.error is None for row in rows] == [True, True, False]


# Formats -------------------------------------------------------------------------------------------------------------


def batch(count: int, model: str = "hello") -> list[dict[str, Any]]:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    return [
        {"custom_id": f"r-{n}", "method": "POST", "url": "/v1/chat/completions", "body": body} for n in range(count)
    ]


def test_the_batch_format_in_and_out(local: dict[str, Any], tmp_path: Path) -> None:
    rows = batch(3)
    rows[1]["url"] = "/v1/embeddings"
    rows[2]["body"] = {**rows[2]["body"], "model": "hello?status=400"}
    path, out = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    options = {name: value for name, value in local.items() if name != "model"} | {"custom_llm_provider": "openai"}
    list(bulk(path, output=out, **options))
    done = {row["custom_id"]: row for row in lines(out)}
    assert set(done["r-0"]) == {"id", "custom_id", "response", "error"}
    assert done["r-0"]["error"] is None
    assert done["r-0"]["response"]["status_code"] == 200
    assert done["r-0"]["response"]["body"]["choices"][0]["message"]["content"]
    assert done["r-1"]["response"] is None
    assert "no chat completion" in done["r-1"]["error"]["message"]
    assert done["r-2"]["response"]["status_code"] == 400
    assert done["r-2"]["response"]["body"]["error"]["message"]
    assert {row_of(row) for row in done.values()} == {0, 1, 2}


def test_plain_rows_in_and_out(local: dict[str, Any], tmp_path: Path) -> None:
    path, out = write(tmp_path / "in.jsonl", [{"prompt": "a", "id": "one"}]), tmp_path / "out.jsonl"
    list(bulk(path, output=out, **local))
    (row,) = lines(out)
    assert (row["row"], row["id"], row["error"], row["attempts"]) == (0, "one", None, 1)
    assert row["usage"]["total_tokens"] == row["response"]["usage"]["total_tokens"]
    assert row["latency"] > 0


# Resuming ------------------------------------------------------------------------------------------------------------


def test_a_row_is_done_when_the_next_one_is_asked_for(local: dict[str, Any], tmp_path: Path) -> None:
    rows = [f"p{n}" for n in range(20)]
    with bulk(rows, checkpoint=tmp_path / "c", **local) as run:
        first = [next(run).index for _ in range(6)]
    second = [row.index for row in bulk(rows, checkpoint=tmp_path / "c", **local)]
    assert sorted(first[:5] + second) == list(range(20))
    assert first[5] in second  # nobody knows whether the caller was done with it
    assert not list(bulk(rows, checkpoint=tmp_path / "c", **local))


def test_a_run_of_its_own_command_again_does_nothing(local: dict[str, Any], tmp_path: Path) -> None:
    path, out = write(tmp_path / "in.jsonl", batch(10)), tmp_path / "out.jsonl"
    assert len(list(bulk(path, output=out, **local))) == 10
    before = out.read_bytes()
    with bulk(path, output=out, **local) as run:
        assert not list(run)
        assert run.progress.resumed == 10
    assert out.read_bytes() == before


def test_an_output_that_lost_something_is_not_gone_on_with(local: dict[str, Any], tmp_path: Path) -> None:
    path, out = write(tmp_path / "in.jsonl", batch(10)), tmp_path / "out.jsonl"
    list(bulk(path, output=out, **local))
    out.write_bytes(out.read_bytes()[:100])
    with pytest.raises(BadRequestError, match="not of this run"):
        bulk(path, output=out, **local)


def test_results_that_the_checkpoint_has_not_seen_are_read_from_the_output(
    local: dict[str, Any], tmp_path: Path, up: Upstream
) -> None:
    """Killed between the writing of results and of the checkpoint, and in the middle of a line."""
    path, out = write(tmp_path / "in.jsonl", batch(10)), tmp_path / "out.jsonl"
    list(bulk(path, output=out, **local))
    whole = out.read_bytes()
    log = Path(f"{out}.checkpoint")
    head = log.read_bytes().splitlines(keepends=True)[0]
    for cut in (0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 1, len(whole)):
        out.write_bytes(whole[:cut])
        log.write_bytes(head)
        kept = whole[:cut].count(b"\n")
        up.reset()
        assert len(list(bulk(path, output=out, **local))) == 10 - kept
        assert up.stats()["models"].get("hello", {"requests": 0})["requests"] == 10 - kept
        assert sorted(map(row_of, lines(out))) == list(range(10))


RUN = """
import sys
from penstock import bulk
path, out, base = sys.argv[1:]
for row in bulk(path, output=out, model="openai/hello?delay=1", api_base=base, api_key="none", max_in_flight=8):
    pass
"""


@pytest.mark.skipif(sys.platform == "win32", reason="external: no SIGKILL")
def test_killed_at_any_moment_nothing_is_lost_and_little_is_repeated(tmp_path: Path, up: Upstream) -> None:
    rows, dice, kills = 250, random.Random(), 0
    path, out = write(tmp_path / "in.jsonl", batch(rows)), tmp_path / "out.jsonl"
    command = [sys.executable, "-c", RUN, str(path), str(out), up.base_url]
    for _ in range(40):
        before = up.stats()["models"].get("hello", {"requests": 0})["requests"]
        with subprocess.Popen(command) as process:
            # From its first request on: before it there is nothing to lose.
            until = time.monotonic() + 20
            while process.poll() is None and time.monotonic() < until:
                if up.stats()["models"].get("hello", {"requests": 0})["requests"] > before:
                    break
                time.sleep(0.005)
            if kills < 6:
                time.sleep(dice.uniform(0, 0.15))
                process.send_signal(signal.SIGKILL)
            status = process.wait(60)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        kills += 1
    assert kills >= 3
    assert sorted(map(row_of, lines(out))) == list(range(rows)), "one result each"
    sent = up.stats()["models"]["hello"]["requests"]
    assert rows <= sent <= rows + 8 * kills


WALK = """
import sys
from penstock import bulk
path, base, log = sys.argv[1:]
with open(log, "a") as handled:
    for row in bulk(path, checkpoint=log + ".c", model="openai/hello?delay=1", api_base=base, api_key="none",
                    max_in_flight=8):
        handled.write(f"{row.index}\\n")
        handled.flush()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="external: no SIGKILL")
def test_killed_while_iterating_each_row_was_handled(tmp_path: Path, up: Upstream) -> None:
    rows, dice = 150, random.Random()
    path, log = write(tmp_path / "in.jsonl", ["x"] * rows), tmp_path / "handled"
    command = [sys.executable, "-c", WALK, str(path), up.base_url, str(log)]
    kills = 0
    while kills < 3:
        before = up.stats()["models"].get("hello", {"requests": 0})["requests"]
        with subprocess.Popen(command) as process:
            while process.poll() is None and before == up.stats()["models"].get("hello", {"requests": 0})["requests"]:
                time.sleep(0.005)
            time.sleep(dice.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
            if process.wait(60) == 0:
                break
        kills += 1
    subprocess.run(command, check=True, timeout=60)
    handled = Counter(map(int, log.read_text().split()))
    assert sorted(handled) == list(range(rows))
    assert handled.total() <= rows + kills  # the one that the caller had in hand
    sent = up.stats()["models"]["hello"]["requests"]
    assert sent <= rows + 17 * kills  # in flight, waiting for the caller, and in hand


# The command ---------------------------------------------------------------------------------------------------------


def ask(command: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "penstock", "bulk", *arguments]


def test_the_command_asks_a_file(tmp_path: Path, up: Upstream) -> None:
    path, out = write(tmp_path / "in.jsonl", batch(12)), tmp_path / "out.jsonl"
    options = ["--model", "openai/hello", "--api-base", up.base_url, "--api-key", KEY]
    ran = ask(command(str(path), str(out), *options))
    assert ran.returncode == 0, ran.stderr
    assert "12 rows" in ran.stderr
    assert not ran.stdout
    assert sorted(map(row_of, lines(out))) == list(range(12))
    again = ask(command(str(path), str(out), *options))
    assert again.returncode == 0
    assert "12 rows were done before" in again.stderr


def test_rows_that_failed_show_in_the_exit_status(tmp_path: Path, up: Upstream) -> None:
    path, out = write(tmp_path / "in.jsonl", [*batch(3), {"no": "request"}]), tmp_path / "out.jsonl"
    options = ["--model", "openai/hello", "--api-base", up.base_url, "--api-key", KEY]
    ran = ask(command(str(path), str(out), *options))
    assert ran.returncode == 1
    assert "1 failed" in ran.stderr
    assert len(lines(out)) == 4


@pytest.mark.skipif(sys.platform == "win32", reason="external: no SIGINT for one process")
def test_ctrl_c_finishes_what_is_in_flight_and_says_how_to_go_on(tmp_path: Path, up: Upstream) -> None:
    path, out = write(tmp_path / "in.jsonl", batch(500)), tmp_path / "out.jsonl"
    options = ["--model", "openai/hello?delay=20", "--api-base", up.base_url, "--api-key", KEY, "--max-in-flight", "6"]
    with subprocess.Popen(command(str(path), str(out), *options), stderr=subprocess.PIPE, text=True) as process:
        up.wait(lambda stats: stats["models"].get("hello", {"requests": 0})["requests"] > 20, 30)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "rows in flight" in said
    assert "To go on: penstock bulk" in said
    assert KEY not in said
    done = len(lines(out))
    assert up.stats()["models"]["hello"]["requests"] == done < 500
    ran = ask(command(str(path), str(out), *options))
    assert ran.returncode == 0, ran.stderr
    assert sorted(map(row_of, lines(out))) == list(range(500))
    assert up.stats()["models"]["hello"]["requests"] == 500
