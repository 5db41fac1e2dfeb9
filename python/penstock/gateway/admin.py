"""The routes that Python answers: keys, spend, and the configuration anew.

    POST /key/generate /key/update /key/delete     GET /key/info /key/list
    GET /spend /spend/logs /spend/export           POST /config/reload

They are for the master key. A key may ask about itself: GET /key/info.
"""

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qsl

import orjson

from .. import errors
from ..errors import APIError, BadRequestError
from . import keys
from .keyring import Keyring, KeyTable
from .keys import Key
from .store import BY, Store, StoreDownError, write_sums
from .tables import SUMS

ROWS = 100_000
"""Requests in one export over HTTP, which is made in memory. `penstock spend --csv` has no such limit."""

WAITING = 64
"""Requests that may wait for their turn."""

PAGE = 100

T = TypeVar("T")

log = logging.getLogger("penstock.gateway")


class Job(Protocol):
    """The part of the native Job that these routes use."""

    @property
    def method(self) -> str:
        """GET, POST."""

    @property
    def path(self) -> str:
        """Without the query."""

    @property
    def query(self) -> str:
        """As it came, without the question mark."""

    @property
    def body(self) -> bytes:
        """As it came."""

    @property
    def caller(self) -> bytes:
        """Whose key it was, as JSON."""

    def respond(self, status: int, body: bytes, /, *, content_type: str = "application/json") -> None:
        """Ends it."""


class Admin:
    """Answers these routes, on threads of its own: whoever plans requests must not wait for a database.

    Args:
        store: where keys and spend are.
        gateway: hears of changes of keys.
        reload: reads the configuration anew. It raises what is wrong with it (ValueError, OSError), and may give
            warnings, as texts.
        keyring: the one that the ledger has.
    """

    def __init__(
        self, store: Store, gateway: KeyTable, reload: Callable[[], Any], *, keyring: Keyring | None = None
    ) -> None:
        self._store = store
        self._keyring = keyring or Keyring(store, gateway)
        self._reload = reload
        self._reloading = threading.Lock()
        self._threads = ThreadPoolExecutor(2, "penstock-admin")
        self._free = threading.BoundedSemaphore(WAITING)
        self._routes: dict[str, tuple[str, Callable[[Request], Answer]]] = {
            "/key/generate": ("POST", self._generate),
            "/key/update": ("POST", self._update),
            "/key/delete": ("POST", self._delete),
            "/key/info": ("GET", self._info),
            "/key/list": ("GET", self._list),
            "/spend": ("GET", self._spend),
            "/spend/logs": ("GET", self._logs),
            "/spend/export": ("GET", self._export),
            "/config/reload": ("POST", self._configure),
        }

    def answer(self, job: Job) -> None:
        """Sees to it that a job is answered, and returns."""
        if not self._free.acquire(blocking=False):
            job.respond(503, _error("too many of these requests are waiting", type="overloaded_error"))
            return
        try:
            self._threads.submit(self._answer, job)
        except RuntimeError:  # it is closed
            self._free.release()
            job.respond(503, _error("the gateway is being stopped", type="overloaded_error"))

    def close(self) -> None:
        """Answers what waits, and ends the threads."""
        self._threads.shutdown()

    def _answer(self, job: Job) -> None:
        try:
            try:
                status, body, content_type = self._routed(job)
            except APIError as error:
                status = _STATUS.get(type(error), error.status_code or 400)
                kind = error.type or _KIND.get(status, "invalid_request_error" if status < 500 else "server_error")
                body, content_type = _error(error.message, type=kind, param=error.param, code=error.code), JSON
            except StoreDownError as error:
                log.warning("%s %s: %s", job.method, job.path, error)
                body, content_type = _error("the database does not answer", type="server_error"), JSON
                status = 503
            except Exception:
                log.exception("%s %s failed", job.method, job.path)
                body, content_type = (
                    _error("this is a fault of the gateway; its log has more", type="server_error"),
                    JSON,
                )
                status = 500
            job.respond(status, body, content_type=content_type)
        except Exception:
            log.exception("%s %s could not be answered", job.method, job.path)
        finally:
            self._free.release()

    def _routed(self, job: Job) -> "Answer":
        known = self._routes.get(job.path.rstrip("/"))
        if known is None:
            raise errors.NotFoundError(f"there is no route {job.path}", code="unknown_url")
        method, route = known
        if job.method != method:
            raise BadRequestError(f"{job.path} is for {method}", status_code=405, code="method_not_allowed")
        return route(Request(job))

    # ---- keys

    def _generate(self, request: "Request") -> "Answer":
        request.for_master()
        key, kept = keys.new(request.body(), time.time())
        kept = self._store.add_key(kept)
        self._keyring.sync()
        return _ok({"key": key, **keys.shown(kept)})

    def _update(self, request: "Request") -> "Answer":
        request.for_master()
        given = request.body()
        key = self._found(given.get("key"))
        parts = keys.parse(given, time.time())
        if not parts:
            raise BadRequestError(f"nothing is to be changed. A key has {', '.join(keys.FIELDS)}")
        key = self._store.update_key(key.id, parts)
        self._keyring.sync()
        return _ok({"key": key.id, **keys.shown(key)})

    def _delete(self, request: "Request") -> "Answer":
        request.for_master()
        given = request.body()
        wanted = [*_texts(given, "keys"), *_texts(given, "key_aliases")]
        for unknown in given.keys() - {"keys", "key_aliases"}:
            raise BadRequestError(f"keys are deleted by `keys` and `key_aliases`, not {unknown!r}", param=unknown)
        if not wanted:
            raise BadRequestError("keys or key_aliases says which: a list of texts", param="keys")
        # All or none: whoever misspells one is told before the others are gone.
        found = [self._found(each, "keys").id for each in wanted]
        gone = self._store.delete_keys(found)
        self._keyring.sync()
        return _ok({"deleted_keys": gone})

    def _info(self, request: "Request") -> "Answer":
        asked = request.query("key").get("key")
        own = request.caller.get("key")
        if asked is None and own is not None:
            asked = str(own)
        if not request.master:
            # Whether another key exists is nothing for this caller either.
            if own is None or asked is None or own not in (asked, keys.hash_of(asked)):
                raise errors.PermissionDeniedError("a key may ask about itself alone; the master key about all")
        elif asked is None:
            raise BadRequestError("key says which: a key, its hash or its alias", param="key")
        key = self._found(asked)
        return _ok({"key": key.id, "info": keys.shown(key)})

    def _list(self, request: "Request") -> "Answer":
        request.for_master()
        given = request.query("page", "size", "return_full_object", "key_alias")
        page, size = _whole(given, "page", 1, 1 << 40), _whole(given, "size", PAGE, 1000)
        whole = given.get("return_full_object", "false").lower() in ("true", "1")
        name = given.get("key_alias")
        found = self._store.keys(name=name, offset=(page - 1) * size, limit=size)
        count = self._store.count_keys() if name is None else len(found)
        return _ok(
            {
                "keys": [keys.shown(key) if whole else key.id for key in found],
                "total_count": count,
                "current_page": page,
                "total_pages": -(-count // size),
            }
        )

    def _found(self, key: Any, param: str = "key") -> Key:
        if not isinstance(key, str) or not key:
            raise BadRequestError(f"{param} says which: a key, its hash or its alias", param=param)
        found = self._store.find_key(key)
        if found is None:
            raise errors.NotFoundError("there is no such key", param=param)
        return found

    # ---- spend

    def _spend(self, request: "Request") -> "Answer":
        request.for_master()
        given = request.query("start", "end", "key", "model", "group_by")
        by, rows = self._summed(given)
        total = {name: sum(row[name] for row in rows) for name in SUMS}
        return _ok(
            {
                "start": given.get("start"),
                "end": given.get("end"),
                "group_by": by,
                **_priced(total),
                "results": [_priced(row) for row in rows],
            }
        )

    def _summed(self, given: Mapping[str, str]) -> tuple[str, list[dict[str, Any]]]:
        by = given.get("group_by", "day")
        if by not in BY:
            raise BadRequestError(f"group_by is one of {', '.join(BY)}", param="group_by")
        start, end = (_time(given, name, keys.day) for name in ("start", "end"))
        return by, self._store.spend(by, start=start, end=end, key=self._whose(given), model=given.get("model"))

    def _logs(self, request: "Request") -> "Answer":
        request.for_master()
        given = request.query("start", "end", "key", "model", "request_id", "limit", "before")
        limit = _whole(given, "limit", PAGE, 1000)
        rows = self._store.logs(
            **self._between(given), id=given.get("request_id"), before=_place(given.get("before")), limit=limit + 1
        )
        more = len(rows) > limit
        rows = rows[:limit]
        return _ok({"data": rows, "next": f"{rows[-1]['started']!r},{rows[-1]['id']}" if more else None})

    def _export(self, request: "Request") -> "Answer":
        request.for_master()
        given = request.query("start", "end", "key", "model", "group_by")
        file = StringIO()
        if "group_by" in given:
            by, rows = self._summed(given)
            write_sums(file, by, rows)
        elif self._store.export_csv(file, **self._between(given), limit=ROWS + 1) > ROWS:
            raise BadRequestError(
                f"these are more than {ROWS:,} requests: ask for a part by start and end, or for sums by group_by; "
                "`penstock spend --csv FILE` writes any number",
                param="start",
            )
        return 200, file.getvalue().encode(), "text/csv; charset=utf-8"

    def _between(self, given: Mapping[str, str]) -> dict[str, Any]:
        return {
            "start": _time(given, "start", keys.moment),
            "end": _time(given, "end", lambda text: keys.moment(text, end=True)),
            "key": self._whose(given),
            "model": given.get("model"),
        }

    def _whose(self, given: Mapping[str, str]) -> str | None:
        """The id of the key that is asked about; also of one that is no more: what it spent remains."""
        if "key" not in given:
            return None
        found = self._store.find_key(given["key"], deleted=True)
        if found is None and not keys.is_hash(given["key"]):
            raise errors.NotFoundError("there is no such key", param="key")
        return given["key"] if found is None else found.id

    # ---- the configuration

    def _configure(self, request: "Request") -> "Answer":
        request.for_master()
        with self._reloading:
            try:
                warnings = self._reload()
            except (ValueError, OSError) as error:
                raise BadRequestError(f"the old configuration stays: {error}", code="invalid_config") from None
        return _ok({"status": "reloaded", "warnings": [str(each) for each in warnings or ()]})


JSON = "application/json"
Answer = tuple[int, bytes, str]


class Request:
    """A job, as the routes read it."""

    def __init__(self, job: Job) -> None:
        self.caller: dict[str, Any] = orjson.loads(job.caller or b"{}")
        self.master = self.caller.get("master") is True
        self._job = job

    def for_master(self) -> None:
        """Refuses whoever has another key."""
        if not self.master:
            raise errors.PermissionDeniedError(f"{self._job.path} is for the master key", code="master_key_required")

    def body(self) -> dict[str, Any]:
        """The object that was sent; none: an empty one."""
        try:
            body = orjson.loads(self._job.body or b"{}")
        except orjson.JSONDecodeError as error:
            raise BadRequestError(f"the body is no JSON: {error}") from None
        if not isinstance(body, dict):
            raise BadRequestError("the body must be an object")
        return body

    def query(self, *names: str) -> dict[str, str]:
        """The query, which may have these names."""
        given = dict(parse_qsl(self._job.query, keep_blank_values=False))
        for unknown in given.keys() - set(names):
            raise BadRequestError(f"{self._job.path} takes {', '.join(names)}, not {unknown!r}", param=unknown)
        return given


def _ok(body: dict[str, Any]) -> Answer:
    return 200, orjson.dumps(body), JSON


def _error(message: str, *, type: str, param: str | None = None, code: str | int | None = None) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": type, "param": param, "code": code}})


_STATUS: dict[type[APIError], int] = {errors.NotFoundError: 404, errors.PermissionDeniedError: 403}
_KIND = {404: "not_found_error", 403: "permission_error"}


def _priced(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of sums, with dollars."""
    shown = {name: value for name, value in row.items() if name != "cost"}
    return {**shown, "spend": keys.dollars(row["cost"])}


def _texts(given: Mapping[str, Any], name: str) -> list[str]:
    value = given.get(name)
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise BadRequestError(f"{name} must be a list of texts", param=name)
    return value


def _whole(given: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = given.get(name)
    if text is None:
        return default
    if not re.fullmatch("[0-9]{1,20}", text) or not 1 <= int(text) <= most:
        raise BadRequestError(f"{name} is a whole number from 1 to {most:,}", param=name)
    return int(text)


def _time(given: Mapping[str, str], name: str, read: Callable[[str], T]) -> T | None:
    if name not in given:
        return None
    try:
        return read(given[name])
    except ValueError as error:
        raise BadRequestError(f"{name}: {error}", param=name) from None


def _place(before: str | None) -> tuple[float, str] | None:
    if before is None:
        return None
    started, comma, last = before.partition(",")
    if not comma or not re.fullmatch(r"\d{1,11}(\.\d{1,20})?", started):
        raise BadRequestError("before is the `next` of the page before", param="before")
    return float(started), last
