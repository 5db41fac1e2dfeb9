"""Keys of the proxy: how they are made, what they may do, and how that is written down.

A key is shown once, when it is made. What is kept is its hash, by which it is known everywhere else, and its last four
characters, by which people know it. The hash is a plain SHA-256: a key has 256 bits of chance in it, so there is
nothing to guess that a slow hash would make slower, and the proxy looks one up for each request.

Money is counted in whole nano-dollars (a thousandth of a millionth of a US dollar), rounded once for each request: so
sums of requests, of days and of keys are equal to the last digit, in whatever order they were added.
"""

import re
import secrets
from calendar import monthrange
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any

from ..errors import BadRequestError

PREFIX = "sk-"

NANO = 1_000_000_000
"""Nano-dollars in a dollar."""

MOST = 1_000_000_000
"""Dollars that a budget may have. What is counted in 64 bits ends at nine times as much."""

LARGEST = (1 << 53) - 1
"""A number of requests or tokens a minute: beyond it JSON has no exact integers."""

MOST_AT_ONCE = (1 << 32) - 1
"""Requests at once, as the native module counts them."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is kept. Times are Unix seconds, money is in nano-dollars; None: no limit, never, not known.

    id: the SHA-256 of the key, in hex. hint: how it begins and ends. name: unique among the keys that there are.
    models: groups that it may ask, a `*` at the end of one stands for anything; none: all.
    budget: what it may spend, in all or in each budget_period, which is text such as "30d". budget_reset: when the
        period ends. spent: so far, in this period. expires: when it ends. changed: the number of its last change.
    """

    id: str
    hint: str = ""
    name: str | None = None
    models: tuple[str, ...] = ()
    rpm: int | None = None
    tpm: int | None = None
    max_parallel: int | None = None
    budget: int | None = None
    budget_period: str | None = None
    budget_reset: float | None = None
    spent: int = 0
    expires: float | None = None
    blocked: bool = False
    created: float = 0.0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    changed: int = 0

    def row(self, unwritten: int = 0) -> dict[str, Any]:
        """What the gateway is told of it. `unwritten`: what it spent that the database does not know yet."""
        return {
            "id": self.id,
            "name": self.name,
            "models": list(self.models),
            "rpm": self.rpm,
            "tpm": self.tpm,
            "max_parallel": self.max_parallel,
            "budget": None if self.budget is None else dollars(self.budget),
            "spent": dollars(self.spent + unwritten),
            "period": self.budget_reset,
            "expires": self.expires,
            "blocked": self.blocked,
        }


def make() -> str:
    """A new key."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_of(key: str) -> str:
    """By what a key is known: its SHA-256, in hex."""
    return sha256(key.encode()).hexdigest()


def is_hash(text: str) -> bool:
    """Whether this is the id of a key, and not a key or a name."""
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None


def hint_of(key: str) -> str:
    """What people know a key by, and nobody can use."""
    return f"{PREFIX}...{key[-4:]}"


def weak(key: str) -> str | None:
    """What is wrong with a key that somebody chose, if anything is."""
    if not key.startswith(PREFIX):
        return f"it does not begin with {PREFIX}"
    if not re.fullmatch(r"[!-~]+", key):
        return "it has characters that a header cannot have"
    if len(key) < len(PREFIX) + 16 or len(set(key)) < 8:
        return "it could be guessed: 16 characters after the prefix are the least, and 8 different ones"
    if len(key) > 256:
        return "it is longer than 256 characters"
    return None


def shown(key: Key) -> dict[str, Any]:
    """A key for callers of the API, by the names they know."""
    return {
        "token": key.id,
        "key_name": key.hint,
        "key_alias": key.name,
        "models": list(key.models),
        "spend": dollars(key.spent),
        "max_budget": None if key.budget is None else dollars(key.budget),
        "budget_duration": key.budget_period,
        "budget_reset_at": shown_time(key.budget_reset),
        "rpm_limit": key.rpm,
        "tpm_limit": key.tpm,
        "max_parallel_requests": key.max_parallel,
        "expires": shown_time(key.expires),
        "blocked": key.blocked,
        "created_at": shown_time(key.created),
        "metadata": dict(key.metadata),
    }


# ---- money


def nano(amount: float | str | Decimal) -> int:
    """Dollars as nano-dollars: rounded half to even.

    Raises:
        ValueError: it is no amount.
    """
    try:
        # The text of a float is what its writer meant by it: 0.1 is a tenth.
        exact = Decimal(str(amount).strip())
        return int((exact * NANO).to_integral_value()) if exact.is_finite() else int(exact)
    except (ArithmeticError, ValueError):
        raise ValueError(f"{amount!r} is no amount of dollars") from None


def dollars(amount: int) -> float:
    """Nano-dollars as dollars."""
    return amount / NANO


# ---- durations

_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
DURATION = "a number and s, m, h, d, w or mo, as 30d"


def later(when: float, duration: str, day: int | None = None) -> float:
    """The time that is `duration` after `when`, both Unix seconds. A month ("1mo") is one of the calendar's, in UTC.

    day: of the month that months lead to, if it is not that of `when`.

    Raises:
        ValueError: the duration is none.
    """
    found = re.fullmatch(r"\s*(\d{1,6})\s*(s|m|h|d|w|mo)\s*", duration)
    if found is None or not int(found[1]):
        raise ValueError(f"{duration!r} is no duration: {DURATION}")
    count, unit = int(found[1]), found[2]
    try:
        begin = datetime.fromtimestamp(when, UTC)
        if unit != "mo":
            return (begin + count * _UNITS[unit]).timestamp()
        years, month = divmod(begin.month - 1 + count, 12)
        year = begin.year + years
        # From the 31st a month leads to the last day of a shorter one.
        day = min(day or begin.day, monthrange(year, month + 1)[1])
        return begin.replace(year=year, month=month + 1, day=day).timestamp()
    except (OverflowError, ValueError):
        raise ValueError(f"{duration!r} ends after the calendar does") from None


def next_reset(reset: float, period: str, now: float, created: float) -> float:
    """When a budget's period ends that is running now, if one of them ended at `reset`. created: when its key was."""
    count = 0
    fixed = re.fullmatch(r"\s*(\d+)\s*(s|m|h|d|w)\s*", period)
    if fixed is not None:
        # Periods of equal length are counted, not walked: a node may have slept for a year.
        length = int(fixed[1]) * _UNITS[fixed[2]].total_seconds()
        return reset + length * max((now - reset) // length + 1, 0)
    # After a shorter month the 31st is not to be seen in `reset` any more, but in when the key was made. A period that
    # it was given later is told by the time of day, and keeps to the day of `reset`.
    first, ended = datetime.fromtimestamp(created, UTC), datetime.fromtimestamp(reset, UTC)
    day = first.day if first.time() == ended.time() else None
    while reset <= now and count < 10_000:
        reset, count = later(reset, period, day), count + 1
    return reset


def shown_time(when: float | None) -> str | None:
    """Unix seconds in ISO 8601, in UTC."""
    return (
        None if when is None else datetime.fromtimestamp(when, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    )


def day(text: str) -> str:
    """A day of UTC, as spend is summed by: 2027-01-31.

    Raises:
        ValueError: it is none.
    """
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueError(f"{text!r} is no day, as 2027-01-31") from None


def moment(text: str, *, end: bool = False) -> float:
    """Unix seconds from what a person, or a program, writes for a time.

    A day is its beginning, with `end` the beginning of the next; a time in ISO 8601 is of UTC where it names no zone;
    Unix seconds are themselves.

    Raises:
        ValueError: it is none of these.
    """
    try:
        if re.fullmatch(r"\d{9,11}(\.\d+)?", text):
            return float(text)
        found = datetime.fromisoformat(text)
        if found.tzinfo is None:
            found = found.replace(tzinfo=UTC)
        whole = end and len(text) <= len("2027-01-31")
        return (found + timedelta(days=1) if whole else found).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time: 2027-01-31, 2027-01-31T12:00:00Z, or Unix seconds") from None


# ---- what a key may be given

FIELDS = {
    "key": "key",
    "key_alias": "name",
    "models": "models",
    "rpm_limit": "rpm",
    "tpm_limit": "tpm",
    "max_parallel_requests": "max_parallel",
    "max_budget": "budget",
    "budget_duration": "budget_period",
    "spend": "spent",
    "duration": "expires",
    "blocked": "blocked",
    "metadata": "metadata",
}
"""What callers of the API call the parts of a key, and what they are called here."""


def parse(given: Mapping[str, Any], now: float) -> dict[str, Any]:
    """What is to be of a key, by the names of `Key`, from what a caller of the API or of the command line gave.

    Raises:
        BadRequestError: it names the part that cannot be.
    """
    parts: dict[str, Any] = {}
    for called, value in given.items():
        name = FIELDS.get(called)
        if name is None and value not in (None, "", [], {}):
            raise _unknown(called)
        if name is None or name == "key":
            continue
        parts[name] = _PARSERS[name](called, value, now)
    if "budget_period" in parts:
        period = parts["budget_period"]
        parts["budget_reset"] = None if period is None else later(now, period)
    return parts


def new(given: Mapping[str, Any], now: float) -> tuple[str, Key]:
    """A key that is new, and how it is kept. `given`: as for `parse`; with `key` it is the caller's own.

    Raises:
        BadRequestError: it names the part that cannot be.
    """
    key = given.get("key")
    if key is None:
        key = make()
    wrong = weak(key) if isinstance(key, str) else "it is no text"
    if wrong is not None:
        raise BadRequestError(f"this key cannot be taken: {wrong}. Without `key` one is made", param="key")
    return key, Key(id=hash_of(key), hint=hint_of(key), created=now, **parse(given, now))


def _unknown(called: str) -> BadRequestError:
    from difflib import get_close_matches

    close = get_close_matches(called, FIELDS, n=1, cutoff=0.6)
    return BadRequestError(
        f"a key has no {called!r}." + (f" Nearest: {close[0]}." if close else f" Known: {', '.join(FIELDS)}."),
        param=called,
    )


def _wrong(called: str, wanted: str) -> BadRequestError:
    return BadRequestError(f"{called} must be {wanted}", param=called)


def _name(called: str, value: Any, _now: float) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or len(value) > 200 or not value.isprintable():
        raise _wrong(called, "a text of up to 200 characters")
    if is_hash(value) or value.startswith(PREFIX):
        raise _wrong(called, f"a name, and not what begins with {PREFIX} or could be a key's hash")
    return value.strip()


def _models(called: str, value: Any, _now: float) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) and each for each in value):
        raise _wrong(called, "a list of model names; none of them: all")
    for each in value:
        if "*" in each[:-1]:
            raise _wrong(called, f"names with a * at their end, if anywhere: not {each!r}")
    # What others write for "all of them".
    return () if "all-proxy-models" in value else tuple(dict.fromkeys(value))


def _limit(called: str, value: Any, _now: float, most: int = LARGEST) -> int | None:
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise _wrong(called, f"a whole number from 0 to {most:,}, or null for no limit")
    return value


def _at_once(called: str, value: Any, now: float) -> int | None:
    return _limit(called, value, now, MOST_AT_ONCE)


def _money(called: str, value: Any, _now: float) -> int | None:
    if value is None:
        return None
    try:
        # True is a number to Python.
        amount = -1 if isinstance(value, bool) else nano(value.removeprefix("$") if isinstance(value, str) else value)
    except ValueError:
        amount = -1
    if not 0 <= amount <= MOST * NANO:
        raise _wrong(called, f"an amount of US dollars from 0 to {MOST:,}")
    return amount


def _spent(called: str, value: Any, now: float) -> int:
    return _money(called, value, now) or 0


def _period(called: str, value: Any, now: float) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise _wrong(called, DURATION)
    try:
        later(now, value)
    except ValueError as error:
        raise BadRequestError(f"{called}: {error}", param=called) from None
    return value.strip()


def _expires(called: str, value: Any, now: float) -> float | None:
    period = _period(called, value, now)
    return None if period is None else later(now, period)


def _flag(called: str, value: Any, _now: float) -> bool:
    if not isinstance(value, bool) and value is not None:
        raise _wrong(called, "true or false")
    return bool(value)


def _metadata(called: str, value: Any, _now: float) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong(called, "an object")
    return value


_PARSERS: Mapping[str, Callable[[str, Any, float], Any]] = {
    "name": _name,
    "models": _models,
    "rpm": _limit,
    "tpm": _limit,
    "max_parallel": _at_once,
    "budget": _money,
    "budget_period": _period,
    "spent": _spent,
    "expires": _expires,
    "blocked": _flag,
    "metadata": _metadata,
}
