"""The routes that Python answers: keys, spend, reload; and that they are for the master key."""

import csv
import io
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from penstock.gateway import admin as module
from penstock.gateway.admin import Admin
from penstock.gateway.keys import hash_of
from penstock.gateway.store import Store, StoreDownError

MASTER = {"key": None, "name": None, "master": True}
Row = Callable[..., dict[str, Any]]


class Job:
    """What a client asked."""

    def __init__(self, method: str, path: str, body: Any = None, caller: Any = None, **query: Any) -> None:
        self.method, self.path = method, path
        self.query = urlencode(query)
        self.body = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        self.caller = json.dumps(MASTER if caller is None else caller).encode()
        self.answered = threading.Event()
        self.status = 0
        self.answer = b""
        self.content_type = ""

    def respond(self, status: int, body: bytes, /, *, content_type: str = "application/json") -> None:
        assert not self.answered.is_set()
        self.status, self.answer, self.content_type = status, body, content_type
        self.answered.set()


class Client:
    """Asks these routes, and waits for the answer."""

    def __init__(self, admin: Admin) -> None:
        self.admin = admin

    def job(self, *arguments: Any, **query: Any) -> Job:
        job = Job(*arguments, **query)
        self.admin.answer(job)
        assert job.answered.wait(30)
        return job

    def get(self, path: str, caller: Any = None, **query: Any) -> Any:
        job = self.job("GET", path, None, caller, **query)
        assert job.status == 200, job.answer
        return json.loads(job.answer)

    def post(self, path: str, body: Any = None) -> Any:
        job = self.job("POST", path, body)
        assert job.status == 200, job.answer
        return json.loads(job.answer)

    def fails(self, status: int, *arguments: Any, **query: Any) -> dict[str, Any]:
        """The error, which has OpenAI's shape."""
        job = self.job(*arguments, **query)
        assert job.status == status, job.answer
        error: dict[str, Any] = json.loads(job.answer)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error


class Reload:
    """What reads the configuration anew."""

    def __init__(self) -> None:
        self.count = 0
        self.error: Exception | None = None
        self.warnings: list[str] | None = None

    def __call__(self) -> Any:
        self.count += 1
        if self.error is not None:
            raise self.error
        return self.warnings


@pytest.fixture
def reload() -> Reload:
    return Reload()


@pytest.fixture
def client(store: Store, gateway: Any, reload: Reload) -> Iterator[Client]:
    admin = Admin(store, gateway, reload)
    yield Client(admin)
    admin.close()


# ---- keys


def test_a_key_is_made_and_the_gateway_knows_it_at_once(client: Client, gateway: Any) -> None:
    made = client.post(
        "/key/generate",
        {
            "key_alias": "alice",
            "models": ["fast"],
            "max_budget": 10,
            "budget_duration": "30d",
            "rpm_limit": 60,
            "tpm_limit": 1000,
            "max_parallel_requests": 4,
            "duration": "90d",
            "metadata": {"team": "a"},
        },
    )
    key = made["key"]
    assert key.startswith("sk-")
    assert made["token"] == hash_of(key)
    assert made["key_name"] == f"sk-...{key[-4:]}"
    assert (made["max_budget"], made["rpm_limit"], made["spend"], made["metadata"]) == (10.0, 60, 0.0, {"team": "a"})
    assert made["expires"].endswith("Z")
    row = gateway.keys[hash_of(key)]
    assert (row["name"], row["models"], row["budget"], row["max_parallel"]) == ("alice", ["fast"], 10.0, 4)


def test_a_key_is_shown_once(client: Client, gateway: Any) -> None:
    key = client.post("/key/generate", {"key_alias": "alice"})["key"]
    others = [
        client.get("/key/info", key=key),
        client.get("/key/info", key="alice"),
        client.get("/key/list", return_full_object="true"),
        client.post("/key/update", {"key": key, "rpm_limit": 1}),
        client.post("/key/delete", {"keys": [key]}),
    ]
    assert key not in json.dumps(others)
    assert key not in json.dumps(gateway.keys)


def test_no_body_makes_a_key_without_limits(client: Client) -> None:
    made = client.post("/key/generate")
    assert (made["models"], made["max_budget"], made["expires"]) == ([], None, None)


def test_an_update_changes_what_is_given(client: Client, gateway: Any) -> None:
    made = client.post("/key/generate", {"key_alias": "alice", "rpm_limit": 5, "max_budget": 1})
    changed = client.post("/key/update", {"key": "alice", "max_budget": None, "blocked": True})
    assert (changed["rpm_limit"], changed["max_budget"], changed["blocked"]) == (5, None, True)
    assert changed["key"] == made["token"]
    assert gateway.keys[made["token"]]["blocked"] is True


def test_what_was_spent_may_be_set(client: Client, gateway: Any, store: Store, row: Row) -> None:
    made = client.post("/key/generate", {"max_budget": 1})
    store.write([row(key=made["token"], cost=1.0)])
    assert client.get("/key/info", key=made["key"])["info"]["spend"] == 1.0
    client.post("/key/update", {"key": made["key"], "spend": 0})
    assert gateway.keys[made["token"]]["spent"] == 0.0


def test_keys_are_deleted_by_themselves_or_by_name(client: Client, gateway: Any) -> None:
    first, second, third = (client.post("/key/generate", {"key_alias": name}) for name in "abc")
    assert client.post("/key/delete", {"keys": [first["key"], second["token"]]})["deleted_keys"] == sorted(
        [first["token"], second["token"]]
    )
    assert set(gateway.keys) == {third["token"]}
    client.post("/key/delete", {"key_aliases": ["c"]})
    assert not gateway.keys
    assert client.get("/key/list")["keys"] == []


def test_all_are_deleted_or_none(client: Client, gateway: Any) -> None:
    made = client.post("/key/generate")
    error = client.fails(404, "POST", "/key/delete", {"keys": [made["key"], "sk-nobody"]})
    assert error["param"] == "keys"
    assert set(gateway.keys) == {made["token"]}


def test_lists_are_paged(client: Client) -> None:
    made = [client.post("/key/generate", {"key_alias": f"k{number}"})["token"] for number in range(5)]
    page = client.get("/key/list", page=2, size=2)
    assert (page["keys"], page["total_count"], page["current_page"], page["total_pages"]) == (made[2:4], 5, 2, 3)
    (alone,) = client.get("/key/list", key_alias="k3", return_full_object="true")["keys"]
    assert alone["token"] == made[3]


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("POST", "/key/generate", {"max_budgett": 1}, "max_budgett"),
        ("POST", "/key/generate", {"rpm_limit": "many"}, "rpm_limit"),
        ("POST", "/key/generate", {"key": "sk-weak"}, "key"),
        ("POST", "/key/generate", b"{", None),
        ("POST", "/key/generate", [1], None),
        ("POST", "/key/update", {}, "key"),
        ("POST", "/key/update", {"key": 7}, "key"),
        ("POST", "/key/delete", {}, "keys"),
        ("POST", "/key/delete", {"keys": [7]}, "keys"),
        ("POST", "/key/delete", {"key": "a"}, "key"),
        ("GET", "/key/info", None, "key"),
    ],
)
def test_what_is_wrong_is_said(client: Client, method: str, path: str, body: Any, param: str | None) -> None:
    error = client.fails(400, method, path, body)
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("limit", ["0", "-1", "1.0", "1001", "0" * 19 + "1" + "0" * 9, "9" * 5000, "\u0661"])
def test_a_number_that_is_none_or_too_large(client: Client, limit: str) -> None:
    assert client.fails(400, "GET", "/spend/logs", limit=limit)["param"] == "limit"


def test_nothing_to_change_is_an_error(client: Client) -> None:
    made = client.post("/key/generate")
    assert "nothing" in client.fails(400, "POST", "/key/update", {"key": made["key"]})["message"]


def test_a_name_twice_is_an_error(client: Client) -> None:
    client.post("/key/generate", {"key_alias": "alice"})
    assert client.fails(400, "POST", "/key/generate", {"key_alias": "alice"})["param"] == "key_alias"


def test_who_is_unknown_is_not_found_and_not_repeated(client: Client) -> None:
    for error in (
        client.fails(404, "GET", "/key/info", key="sk-somebody-elses"),
        client.fails(404, "POST", "/key/update", {"key": "sk-somebody-elses", "rpm_limit": 1}),
    ):
        assert "somebody" not in json.dumps(error)
        assert error["type"] == "not_found_error"


# ---- who may


def test_a_key_may_ask_about_itself_alone(client: Client) -> None:
    own, other = client.post("/key/generate", {"key_alias": "own"}), client.post("/key/generate")
    caller = {"key": own["token"], "name": "own", "master": False}
    assert client.get("/key/info", caller)["info"]["key_alias"] == "own"
    assert client.get("/key/info", caller, key=own["key"])["info"]["key_alias"] == "own"
    assert client.get("/key/info", caller, key=own["token"])["info"]["key_alias"] == "own"
    for asked in (other["key"], other["token"], "own", "sk-none"):
        assert client.fails(403, "GET", "/key/info", None, caller, key=asked)["type"] == "permission_error"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/key/generate"),
        ("POST", "/key/update"),
        ("POST", "/key/delete"),
        ("GET", "/key/list"),
        ("GET", "/spend"),
        ("GET", "/spend/logs"),
        ("GET", "/spend/export"),
        ("POST", "/config/reload"),
    ],
)
@pytest.mark.parametrize("caller", [{"key": "0" * 64, "name": None, "master": False}, {"master": "true"}, {}])
def test_the_rest_is_for_the_master_key(client: Client, reload: Reload, method: str, path: str, caller: Any) -> None:
    client.fails(403, method, path, None, caller)
    assert reload.count == 0


def test_without_a_key_there_is_nothing_of_ones_own(client: Client) -> None:
    client.fails(403, "GET", "/key/info", None, {"key": None, "name": None, "master": False})


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/key/nothing", 404),
        ("GET", "/key/generate", 405),
        ("POST", "/spend", 405),
        ("DELETE", "/key/list", 405),
    ],
)
def test_unknown_routes_and_methods(client: Client, method: str, path: str, status: int) -> None:
    client.fails(status, method, path)


# ---- spend


@pytest.fixture
def spent(client: Client, store: Store, row: Row) -> str:
    """A key, alice, that has spent something."""
    alice: str = client.post("/key/generate", {"key_alias": "alice"})["key"]
    store.write(
        [
            row(id="req_1", key=hash_of(alice), cost=1.0, started=1_800_000_000.5),
            row(id="req_2", key=hash_of(alice), cost=2.0, started=1_800_100_000, model="small"),
            row(id="req_3", cost=0.5, started=1_800_100_001, outcome="failed", user="@me"),
        ]
    )
    return alice


def test_spend_by_anything(client: Client, spent: str) -> None:
    days = client.get("/spend")
    assert (days["group_by"], days["spend"], days["requests"], days["failures"]) == ("day", 3.5, 3, 1)
    assert [(each["day"], each["spend"]) for each in days["results"]] == [("2027-01-15", 1.0), ("2027-01-16", 2.5)]
    by_key = client.get("/spend", group_by="key")["results"]
    assert [(each["key"], each["key_alias"], each["spend"]) for each in by_key] == [
        (hash_of(spent), "alice", 3.0),
        (None, None, 0.5),
    ]
    assert [each["model"] for each in client.get("/spend", group_by="model")["results"]] == ["small", "gpt-4o"]
    assert client.get("/spend", group_by="provider", start="2027-01-16", end="2027-01-16")["spend"] == 2.5
    for key in (spent, hash_of(spent), "alice"):
        assert client.get("/spend", key=key)["spend"] == 3.0
    assert client.get("/spend", model="small")["spend"] == 2.0
    assert client.get("/spend", key="f" * 64)["results"] == []


def test_logs_are_paged(client: Client, spent: str) -> None:
    first = client.get("/spend/logs", limit=2)
    assert [each["id"] for each in first["data"]] == ["req_3", "req_2"]
    second = client.get("/spend/logs", limit=2, before=first["next"])
    assert [each["id"] for each in second["data"]] == ["req_1"]
    assert second["next"] is None
    assert [each["id"] for each in client.get("/spend/logs", key="alice", end="2027-01-15")["data"]] == ["req_1"]
    assert client.get("/spend/logs", request_id="req_2")["data"][0]["cost"] == 2.0
    assert client.get("/spend/logs", start="2027-01-17")["data"] == []


def test_an_export_is_csv(client: Client, spent: str) -> None:
    job = client.job("GET", "/spend/export")
    assert job.content_type.startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(job.answer.decode())))
    assert [each["id"] for each in rows] == ["req_1", "req_2", "req_3"]
    assert rows[2]["user"] == "'@me"
    job = client.job("GET", "/spend/export", group_by="key")
    rows = list(csv.DictReader(io.StringIO(job.answer.decode())))
    assert [(each["key_alias"], each["cost"]) for each in rows] == [("alice", "3"), ("", "0.5")]


def test_an_export_that_is_too_long_says_what_to_do(
    client: Client, spent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS", 2)
    assert "group_by" in client.fails(400, "GET", "/spend/export")["message"]
    assert client.job("GET", "/spend/export", start="2027-01-16").status == 200


@pytest.mark.parametrize(
    ("path", "query", "param"),
    [
        ("/spend", {"group_by": "user"}, "group_by"),
        ("/spend", {"start": "yesterday"}, "start"),
        ("/spend", {"since": "2027-01-01"}, "since"),
        ("/spend/logs", {"limit": "all"}, "limit"),
        ("/spend/logs", {"limit": "0"}, "limit"),
        ("/spend/logs", {"limit": "9" * 30}, "limit"),
        ("/spend/logs", {"before": "now"}, "before"),
        ("/spend/logs", {"before": "nan,req_1"}, "before"),
        ("/spend/logs", {"end": "never"}, "end"),
        ("/key/list", {"page": "-1"}, "page"),
    ],
)
def test_a_wrong_query_names_the_part(client: Client, path: str, query: dict[str, str], param: str) -> None:
    assert client.fails(400, "GET", path, **query)["param"] == param


def test_spend_of_nobody(client: Client) -> None:
    assert client.fails(404, "GET", "/spend", key="nobody")["param"] == "key"


# ---- reload, and faults


def test_the_configuration_is_read_anew(client: Client, reload: Reload) -> None:
    assert client.post("/config/reload") == {"status": "reloaded", "warnings": []}
    reload.warnings = ["line 3: unknown key"]
    assert client.post("/config/reload")["warnings"] == ["line 3: unknown key"]
    reload.error = ValueError("line 7: no such model")
    assert "line 7: no such model" in client.fails(400, "POST", "/config/reload")["message"]
    assert reload.count == 3


def test_a_fault_is_a_500_without_its_words(client: Client, reload: Reload) -> None:
    reload.error = RuntimeError("the password is hunter2")
    assert "hunter2" not in client.fails(500, "POST", "/config/reload")["message"]


def test_a_database_that_is_down_is_a_503(client: Client, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: Any, **__: Any) -> Any:
        raise StoreDownError("postgresql://user:***@host: refused")

    monkeypatch.setattr(store, "spend", down)
    assert client.fails(503, "GET", "/spend")["type"] == "server_error"


def test_whoever_plans_does_not_wait_for_the_database(
    tmp_path: Path, gateway: Any, reload: Reload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the queue has an end."""
    monkeypatch.setattr(module, "WAITING", 3)
    store = Store(str(tmp_path / "penstock.db"))
    admin = Admin(store, gateway, reload)
    go = threading.Event()
    slow = store.spend
    monkeypatch.setattr(store, "spend", lambda *arguments, **options: go.wait(30) and slow(*arguments, **options))
    jobs = [Job("GET", "/spend") for _ in range(4)]
    for job in jobs:
        admin.answer(job)
    assert jobs[3].status == 503
    assert not any(job.answered.is_set() for job in jobs[:3])
    go.set()
    admin.close()
    assert [job.status for job in jobs] == [200, 200, 200, 503]
    late = Job("GET", "/spend")
    admin.answer(late)
    assert late.status == 503
    store.close()
