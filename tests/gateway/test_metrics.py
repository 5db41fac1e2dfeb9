"""What the proxy counts: OpenMetrics for Prometheus, as Prometheus's own parser reads it, and `/live` for its page."""

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from penstock.replay import Upstream

if sys.platform == "win32":
    pytest.skip("the proxy does not run on Windows", allow_module_level=True)

from penstock._native import Gateway, SpendRow
from penstock.gateway.store import Record, Store, fit

MESSAGES = [{"role": "user", "content": "Say hello."}]
MASTER = "sk-master-of-this-test"
CLIENT = "sk-client-of-this-test"


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def deployment(up: Upstream, id: str, model: str, **more: Any) -> dict[str, Any]:
    plain = {"url": f"{up.base_url}/chat/completions", "headers": [], "stream_options": True}
    return {"id": id, "model": model, "provider": "replay", "family": "chat", "plain": plain, **more}


def tables(up: Upstream, **settings: Any) -> bytes:
    price = {"input": 1e-6, "output": 2e-6}
    return json.dumps(
        {
            "groups": [
                {"name": "fast", "deployments": ["good"]},
                {"name": "shaky", "deployments": ["broken"], "max_retries": 0, "fallbacks": ["fast"]},
                {"name": "cut", "deployments": ["cut"]},
                {"name": "slow", "deployments": ["slow"]},
                {"name": "any/*", "deployments": ["open"]},
            ],
            "aliases": {"quick": "fast"},
            "deployments": [
                deployment(up, "good", "hello", price=price),
                deployment(up, "broken", "hello?status=500", allowed_fails=0, cooldown=60.0),
                deployment(up, "cut", "long-200?cut=50"),
                deployment(up, "slow", "long-200?delay=20"),
                deployment(up, "open", "hello"),
            ],
            "settings": settings,
        }
    ).encode()


class Proxy:
    def __init__(self, gateway: Gateway, port: int) -> None:
        self.gateway = gateway
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False)

    def ask(self, model: str, key: str = "", **more: Any) -> httpx.Response:
        body = {"model": model, "messages": MESSAGES, "stream": True, **more}
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return self.client.post("/v1/chat/completions", json=body, headers=headers)

    def families(self) -> dict[str, Metric]:
        text = self.client.get("/metrics").raise_for_status().text
        return {family.name: family for family in text_string_to_metric_families(text)}

    def value(self, name: str, **labels: str) -> float | None:
        """The sum of the samples of this name that have these labels, among others."""
        values = [
            sample.value
            for family in self.families().values()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(values) if values else None

    def live(self, key: str = "") -> Any:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return self.client.get("/live", headers=headers).raise_for_status().json()


@pytest.fixture(scope="module")
def up() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
def proxy(up: Upstream) -> Iterator[Proxy]:
    gateway = Gateway(tables(up))
    proxy = Proxy(gateway, gateway.listen("127.0.0.1", 0))
    with proxy.client:
        yield proxy
    gateway.close()


def settled(proxy: Proxy, requests: int) -> None:
    """The client may have its answer a moment before it is counted."""
    until = time.monotonic() + 5
    while (proxy.value("penstock_requests_total") or 0) < requests:
        assert time.monotonic() < until
        time.sleep(0.01)


# For Prometheus ------------------------------------------------------------------------------------------------------


def taken(proxy: Proxy) -> list[SpendRow]:
    """The rows of what has ended."""
    return [row for row in proxy.gateway.take_rows(10, 1) if isinstance(row, SpendRow)]


def test_metrics_are_openmetrics(proxy: Proxy) -> None:
    response = proxy.client.get("/metrics")
    assert response.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert response.text.endswith("# EOF\n")


def test_every_name_has_its_help_and_is_in_the_docs(proxy: Proxy, root: Any) -> None:
    proxy.ask("shaky")
    settled(proxy, 1)
    told = (root / "docs" / "proxy-metrics.md").read_text(encoding="utf-8")
    for name, family in proxy.families().items():
        assert family.documentation
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        assert f"`{name}{suffix}`" in told


def test_requests_are_counted_by_group_deployment_outcome_and_status(proxy: Proxy) -> None:
    for model in ("fast", "fast", "quick", "any/thing", "any/other", "cut"):
        assert proxy.ask(model).status_code == 200
    settled(proxy, 6)

    def requests(**labels: str) -> float | None:
        return proxy.value("penstock_requests_total", **labels)

    assert requests(group="fast", deployment="good", outcome="complete", status="2xx") == 3
    assert requests(group="any/*", deployment="open") == 2
    assert requests(group="cut", outcome="cut", status="2xx") == 1


def test_what_clients_make_up_is_counted_under_one_name(proxy: Proxy) -> None:
    for number in range(5):
        assert proxy.ask(f"made-up-{number}").status_code == 404
    assert proxy.client.post("/v1/chat/completions", content=b"{").status_code == 400
    settled(proxy, 6)
    assert proxy.value("penstock_requests_total", group="(unknown)", deployment="", outcome="failed", status="4xx") == 6
    assert "made-up" not in proxy.client.get("/metrics").text


def test_a_fallback_is_counted_where_it_was_asked_for_and_its_attempts_where_they_went(proxy: Proxy) -> None:
    assert proxy.ask("shaky").status_code == 200
    settled(proxy, 1)
    assert proxy.value("penstock_requests_total", group="shaky", deployment="good") == 1
    assert proxy.value("penstock_attempts_total", deployment="broken", error="InternalServerError") == 1
    assert proxy.value("penstock_attempts_total", deployment="good", error="") == 1
    assert proxy.value("penstock_attempt_seconds_count", deployment="broken") == 1


def test_tokens_cost_and_chunks_are_those_of_the_rows(proxy: Proxy) -> None:
    for _ in range(3):
        proxy.ask("fast")
    settled(proxy, 3)
    rows = taken(proxy)

    def tokens(kind: str) -> float | None:
        return proxy.value("penstock_tokens_total", group="fast", kind=kind)

    assert tokens("prompt") == sum(row["prompt_tokens"] for row in rows) > 0
    assert tokens("completion") == sum(row["completion_tokens"] for row in rows) > 0
    assert proxy.value("penstock_chunks_total", group="fast") == sum(row["chunks"] for row in rows) > 0
    assert proxy.value("penstock_cost_dollars_total", group="fast") == pytest.approx(sum(row["cost"] for row in rows))


@pytest.mark.parametrize("group", ["fast", "shaky", "cut", "nobody"])
def test_a_row_knows_its_columns(proxy: Proxy, group: str, tmp_path: Path) -> None:
    """Those of the store, which makes the same of any other mapping."""
    proxy.ask(group)
    settled(proxy, 1)
    [row] = taken(proxy)
    told = dict(row)
    assert list(told) == list(row) == list(row.keys())
    assert len(told) == len(row)
    assert all(name in row and row.get(name) == row[name] == value for name, value in told.items())
    assert (row.get("no"), row.get("no", 7), "no" in row) == (None, 7, False)
    with pytest.raises(KeyError, match="no"):
        row["no"]
    record = Record._make(row.record)
    assert (record.id, record.key_id, record.outcome) == (told["id"], told["key"], told["outcome"])
    store = Store(str(tmp_path / "spend.db"))
    assert store.write([row]) == 1
    assert store.write([fit(told)]) == 0
    assert store.logs() == [told]
    store.close()


def test_times_are_histograms_in_seconds(proxy: Proxy) -> None:
    proxy.ask("fast")
    settled(proxy, 1)
    [row] = taken(proxy)
    for name, seconds in (
        ("penstock_first_token_seconds", row["first_token"]),
        ("penstock_duration_seconds", row["seconds"]),
    ):
        assert proxy.value(f"{name}_sum", group="fast") == pytest.approx(seconds)
        buckets = {
            float(sample.labels["le"]): sample.value
            for sample in proxy.families()[name].samples
            if sample.name.endswith("_bucket") and sample.labels["group"] == "fast"
        }
        assert list(buckets)[:3] == [0.001, 0.0025, 0.005]
        assert all(count == (seconds <= bound) for bound, count in buckets.items())


def test_gauges_tell_what_is_under_way(proxy: Proxy) -> None:
    body = {"model": "slow", "messages": MESSAGES, "stream": True}
    with proxy.client.stream("POST", "/v1/chat/completions", json=body) as response:
        stream = response.iter_bytes()  # forgotten, it would close the response
        next(stream)
        assert proxy.value("penstock_requests_under_way") == 1
        assert proxy.value("penstock_streams_open") == 1
        assert proxy.value("penstock_ledger_rows_waiting") == 0
    settled(proxy, 1)
    assert proxy.value("penstock_requests_total", group="slow", outcome="left", status="2xx") == 1
    assert proxy.value("penstock_requests_under_way") == 0
    assert proxy.value("penstock_streams_open") == 0
    assert proxy.value("penstock_ledger_rows_waiting") == 1
    assert proxy.value("penstock_planner_jobs_waiting") == 0


def test_a_deployment_that_is_left_alone_is_not_healthy(proxy: Proxy) -> None:
    assert proxy.value("penstock_deployment_health", group="shaky", deployment="broken") == 1
    proxy.ask("shaky")
    settled(proxy, 1)
    assert proxy.value("penstock_deployment_health", group="shaky", deployment="broken") == 0
    assert proxy.value("penstock_deployment_health", group="fast", deployment="good") == 1


def test_names_are_escaped(up: Upstream) -> None:
    group = {"name": 'a "b" \\ \n', "deployments": ["x"]}
    # No client can say such a name, but for another one of it.
    tables = {"groups": [group], "aliases": {"said": group["name"]}, "deployments": [deployment(up, "x", "hello")]}
    gateway = Gateway(json.dumps(tables).encode())
    proxy = Proxy(gateway, gateway.listen("127.0.0.1", 0))
    with proxy.client:
        proxy.ask("said")
        settled(proxy, 1)
        assert proxy.value("penstock_requests_total", group='a "b" \\ \n') == 1
    gateway.close()


def test_counters_outlive_a_reload(proxy: Proxy, up: Upstream) -> None:
    proxy.ask("fast")
    settled(proxy, 1)
    proxy.gateway.reload(tables(up))
    proxy.ask("fast")
    settled(proxy, 2)
    assert proxy.value("penstock_requests_total", group="fast") == 2


# Who may see it ------------------------------------------------------------------------------------------------------


@pytest.fixture
def locked(up: Upstream) -> Iterator[Proxy]:
    gateway = Gateway(tables(up, master_key=digest(MASTER), public_health=False))
    gateway.put_keys(json.dumps([{"id": digest(CLIENT), "name": "ann"}]).encode())
    proxy = Proxy(gateway, gateway.listen("127.0.0.1", 0))
    with proxy.client:
        yield proxy
    gateway.close()


@pytest.mark.parametrize("path", ["/live", "/metrics", "/health"])
def test_numbers_that_are_not_public_take_the_master_key(locked: Proxy, path: str) -> None:
    statuses = [
        locked.client.get(path, headers={"authorization": f"Bearer {key}"} if key else {}).status_code
        for key in ("", "sk-wrong", CLIENT, MASTER)
    ]
    assert statuses == [401, 401, 403, 200]


def test_who_is_turned_away_is_counted_apart_and_no_key_is_shown(locked: Proxy) -> None:
    assert locked.ask("fast", "sk-wrong").status_code == 401
    assert locked.ask("fast", CLIENT).status_code == 200
    headers = {"authorization": f"Bearer {MASTER}"}
    until = time.monotonic() + 5
    while not (live := locked.live(MASTER))["totals"]["requests"]:
        assert time.monotonic() < until
    text = locked.client.get("/metrics", headers=headers).text
    assert 'penstock_turned_away_total{error="AuthenticationError"} 1' in text
    for told in (text, json.dumps(live)):
        assert not {word for word in (CLIENT, MASTER, "sk-wrong", digest(CLIENT), digest(MASTER)) if word in told}
    assert [(key["id"], key["name"], key["requests"]) for key in live["keys"]] == [(digest(CLIENT)[:8], "ann", 1)]
    assert {(error["class"], error["minute"], error["total"]) for error in live["errors"]} == {
        ("AuthenticationError", 1, 1)
    }


# For the page --------------------------------------------------------------------------------------------------------


def test_live_tells_sums_by_model_and_times_of_the_last_minutes(proxy: Proxy) -> None:
    for _ in range(2):
        proxy.ask("fast")
    proxy.ask("nobody")
    settled(proxy, 3)
    live = proxy.live()
    rows = taken(proxy)
    fast, unknown = live["groups"]
    assert (fast["name"], fast["requests"], fast["minute"], fast["errors"]) == ("fast", 2, 2, 0)
    assert (unknown["name"], unknown["requests"], unknown["errors"]) == ("(unknown)", 1, 1)
    assert fast["cost"] == pytest.approx(sum(row["cost"] or 0 for row in rows))
    assert len(fast["first_token"]) == len(fast["duration"]) == 3
    assert fast["duration"] == sorted(fast["duration"])
    assert max(fast["duration"]) == pytest.approx(max(row["seconds"] for row in rows), rel=0.15, abs=0.001)
    assert unknown["first_token"] is None
    assert live["totals"]["requests"] == 3
    assert [key["id"] for key in live["keys"]] == [None]


def test_live_tells_the_last_minute_by_the_second(proxy: Proxy) -> None:
    proxy.ask("fast")
    settled(proxy, 1)
    tokens = taken(proxy)[0]["total_tokens"]
    time.sleep(1.05)  # a second is told when it is over
    seconds = proxy.live()["seconds"]
    assert [len(each) for each in seconds.values()] == [60, 60, 60]
    assert (sum(seconds["requests"]), sum(seconds["tokens"]), sum(seconds["errors"])) == (1, tokens, 0)
    assert 1 in seconds["requests"][-3:]


def test_health_stays_short(proxy: Proxy) -> None:
    assert set(proxy.client.get("/health").json()) == {"version", "under_way", "deployments"}
    assert proxy.client.get("/health").json().items() <= json.loads(proxy.gateway.snapshot()).items()
