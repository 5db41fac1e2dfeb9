"""What was spent, by the proxy as it runs: keys over HTTP, and each row once though it or its database is killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from penstock.gateway.store import Store
from penstock.replay import Upstream

COST = 19e-6 + 87 * 2e-6
"""Of an answer of `fast`."""


@pytest.fixture
def config(upstream: Upstream) -> dict[str, Any]:
    """Two models, one of them with a price."""
    to = {"api_base": upstream.base_url, "api_key": "sk-upstream-0123456789abcdefghijklmnop"}
    price = {"input_cost_per_token": 0.000001, "output_cost_per_token": 0.000002}
    models = [
        {"model_name": "fast", "litellm_params": {"model": "openai/hello", **to}, "model_info": price},
        {"model_name": "free", "litellm_params": {"model": "openai/hello", **to}},
    ]
    return {"model_list": models, "router_settings": {"num_retries": 0}}


def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it has not become so"
        time.sleep(0.05)


@contextlib.contextmanager
def opened(url: str) -> Iterator[Store]:
    store = Store(url)
    try:
        yield store
    finally:
        store.close()


def costs(store: Store, name: str) -> set[int]:
    """What was spent, in all: by requests, by days and by a key."""
    key = store.find_key(name)
    assert key is not None
    requests = sum(round((row["cost"] or 0) * 1e9) for row in store.logs(limit=1_000_000))
    return {requests, sum(row["cost"] for row in store.spend("day")), key.spent}


def test_keys_and_spend_over_http(start: Any, config: dict[str, Any]) -> None:
    proxy = start(config)
    made = proxy.admin("/key/generate", json={"key_alias": "alice", "models": ["fast"], "max_budget": 1}).json()
    key = made["key"]
    proxy.given.append(key)
    assert proxy.ask("fast", key=key).status_code == 200
    assert proxy.ask("free", key=key).status_code == 404  # what it may not ask is not there for it
    assert proxy.stream("fast", key=key).status_code == 200
    until(lambda: proxy.admin("/spend?model=fast").json()["requests"] >= 2)
    spent = proxy.admin(f"/spend?group_by=key&key={made['token']}&model=fast").json()
    assert spent["spend"] == pytest.approx(2 * COST)
    assert spent["results"][0]["key_alias"] == "alice"
    own = httpx.get(f"{proxy.url}/key/info", headers={"authorization": f"Bearer {key}"}).json()
    assert own["info"]["spend"] == pytest.approx(2 * COST)
    lines = proxy.admin("/spend/export?model=fast").text.splitlines()
    assert len(lines) == 3
    assert key not in "".join(lines)
    refused = httpx.get(f"{proxy.url}/spend", headers={"authorization": f"Bearer {key}"})
    assert refused.status_code == 403
    proxy.admin("/key/update", json={"key": "alice", "blocked": True})
    assert proxy.ask("fast", key=key).status_code in (401, 403)
    proxy.admin("/key/delete", json={"keys": [key]})
    assert proxy.ask("fast", key=key).status_code == 401


def test_a_budget_ends_and_the_command_line_raises_it(start: Any, config: dict[str, Any]) -> None:
    proxy = start(config)
    key = proxy.key(key_alias="poor", max_budget=2.5 * COST)
    answers = [proxy.ask("fast", key=key).status_code for _ in range(5)]
    # An answer that was begun within the budget is not taken back.
    assert answers == [200, 200, 200, 429, 429]
    command = [sys.executable, "-m", "penstock", "keys", "update", "poor", "--budget", "none"]
    subprocess.run([*command, "--config", str(proxy.file)], check=True, capture_output=True)
    until(lambda: proxy.ask("fast", key=key).status_code == 200)


def test_a_proxy_that_is_killed_loses_one_interval_at_most(start: Any, config: dict[str, Any], load: Any) -> None:
    interval = 1.0
    proxy = start({**config, "general_settings": {"flush_seconds": interval}})
    key = proxy.key(key_alias="alice")
    answered: list[tuple[float, str]] = []

    def ask(_: int) -> None:
        with contextlib.suppress(httpx.TransportError):
            response = proxy.ask("fast", key=key)
            if response.status_code == 200:
                answered.append((time.monotonic(), response.headers["x-request-id"]))

    with load(ask, 3):
        until(lambda: len(answered) > 10)
        time.sleep(3 * interval)
        os.kill(proxy.process.pid, signal.SIGKILL)
        killed = time.monotonic()
    proxy.process.wait()
    proxy.start()
    there = {row["id"] for row in proxy.rows()}
    lost = [at for at, name in answered if name not in there]
    # Half a second for a machine that others use.
    assert all(at > killed - interval - 0.5 for at in lost)
    assert len(lost) < len(answered)
    with opened(str(proxy.database)) as store:
        assert len(costs(store, "alice")) == 1


def test_a_database_that_is_killed_under_load_is_no_matter_to_clients(
    start: Any, config: dict[str, Any], load: Any, mortal_postgres: Any
) -> None:
    url = mortal_postgres.make()
    proxy = start({**config, "general_settings": {"database_url": url, "flush_seconds": 0.3}})
    key = proxy.key(key_alias="alice", max_budget=1000)

    def ask(_: int) -> tuple[int, str]:
        response = proxy.ask("fast", key=key)
        return response.status_code, response.headers["x-request-id"]

    with load(ask, 3) as asked:
        until(lambda: len(asked.found) > 20)
        mortal_postgres.stop()
        count = len(asked.found)
        until(lambda: len(asked.found) > count + 50)
        headers = {"authorization": f"Bearer {proxy.master}"}
        assert httpx.get(f"{proxy.url}/spend", headers=headers, timeout=60).status_code == 503
        until(lambda: any(proxy.folder.glob("*.spill.*.jsonl")))
        mortal_postgres.start()
        count = len(asked.found)
        until(lambda: len(asked.found) > count + 20)
    assert {status for status, _ in asked.found} == {200}
    with opened(url) as store:
        wanted = {name for _, name in asked.found}
        until(lambda: wanted <= {row["id"] for row in store.logs(limit=1_000_000)})
        assert sum(row["requests"] for row in store.spend("day")) == len(wanted)
        assert len(costs(store, "alice")) == 1
    until(lambda: not any(proxy.folder.glob("*.spill.*.jsonl")))


def test_an_end_while_the_database_is_away_loses_nothing(
    start: Any, config: dict[str, Any], mortal_postgres: Any
) -> None:
    url = mortal_postgres.make()
    proxy = start({**config, "general_settings": {"database_url": url, "flush_seconds": 60}})
    key = proxy.key(key_alias="alice")
    mortal_postgres.stop()
    names = {proxy.ask("fast", key=key).headers["x-request-id"] for _ in range(20)}
    proxy.stop()
    (left,) = proxy.folder.glob("*.spill.*.jsonl")
    assert {json.loads(line)["id"] for line in left.read_text().splitlines()} == names
    assert key not in left.read_text()
    mortal_postgres.start()
    proxy.start()
    with opened(url) as store:
        until(lambda: names == {row["id"] for row in store.logs(limit=1000)})
        assert len(costs(store, "alice")) == 1
    until(lambda: not left.exists())


def test_two_nodes_know_one_budget_by_their_database(start: Any, config: dict[str, Any], shared_postgres: Any) -> None:
    url = shared_postgres.make()
    settings = {"database_url": url, "flush_seconds": 0.2}
    nodes = [start({**config, "general_settings": settings}) for _ in range(2)]
    key = nodes[0].key(key_alias="poor", max_budget=4.5 * COST)
    nodes[1].given.append(key)
    until(lambda: nodes[1].ask("fast", key=key).status_code == 200)
    for _ in range(4):
        assert nodes[0].ask("fast", key=key).status_code == 200
    # The other one asks the database every two seconds.
    until(lambda: nodes[1].ask("fast", key=key).status_code == 429)
    until(lambda: nodes[0].ask("fast", key=key).status_code == 429)
    with opened(url) as store:
        # Two of them write while this is read.
        until(lambda: len(store.logs(limit=1000)) >= 7 and len(costs(store, "poor")) == 1)
