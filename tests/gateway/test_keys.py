"""Keys: how they are made, what may be said of them, and the commands that say it."""

import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.commands import run
from penstock.errors import BadRequestError
from penstock.gateway import keys
from penstock.gateway.keys import Key, dollars, hash_of, later, moment, nano, next_reset, parse
from penstock.gateway.store import Store


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


# ---- making


def test_a_key_has_256_bits_of_chance() -> None:
    made = {keys.make() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"sk-[A-Za-z0-9_-]{43}", key) for key in made)


def test_a_key_is_known_by_its_hash() -> None:
    assert hash_of("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert keys.is_hash(hash_of("sk-test"))
    assert not keys.is_hash("sk-test")
    assert keys.hint_of("sk-0123456789") == "sk-...6789"


@pytest.mark.parametrize(
    "key", ["hunter2", "sk-1234", "sk-" + "a" * 40, "sk-0123456789abcdef\n", "sk-" + "0123456789" * 30, 7]
)
def test_a_weak_key_of_ones_own_is_refused(key: Any) -> None:
    with pytest.raises(BadRequestError, match="cannot be taken") as caught:
        keys.new({"key": key}, 0.0)
    assert str(key) not in str(caught.value) or key == 7


def test_a_good_key_of_ones_own_is_taken() -> None:
    secret, kept = keys.new({"key": "sk-0123456789abcdefghij", "key_alias": "mine"}, 5.0)
    assert secret == "sk-0123456789abcdefghij"
    assert (kept.id, kept.hint, kept.name, kept.created) == (hash_of(secret), "sk-...ghij", "mine", 5.0)


# ---- money


@pytest.mark.parametrize(
    ("amount", "whole"),
    [(0.1, 100_000_000), ("10", 10_000_000_000), (1e-9, 1), (2.5e-10, 0), (1.5e-9, 2), (2.5e-9, 2), ("1e3", 10**12)],
)
def test_dollars_are_whole_nano_dollars(amount: Any, whole: int) -> None:
    assert nano(amount) == whole


@given(st.integers(0, 10**15))
def test_nano_dollars_survive_the_way_through_a_float(amount: int) -> None:
    assert nano(dollars(amount)) == amount


@pytest.mark.parametrize("amount", ["ten", "", "nan", float("inf"), "1,000", "1e999999"])
def test_what_is_no_money_is_refused(amount: Any) -> None:
    with pytest.raises(ValueError, match="no amount"):
        nano(amount)


# ---- time


@pytest.mark.parametrize(
    ("begin", "duration", "end"),
    [
        ("2027-01-15T08:00:00", "30s", "2027-01-15T08:00:30"),
        ("2027-01-15T08:00:00", "5m", "2027-01-15T08:05:00"),
        ("2027-01-15T08:00:00", "12h", "2027-01-15T20:00:00"),
        ("2027-01-15T08:00:00", "30d", "2027-02-14T08:00:00"),
        ("2027-01-15T08:00:00", "2w", "2027-01-29T08:00:00"),
        ("2027-01-31T08:00:00", "1mo", "2027-02-28T08:00:00"),
        ("2027-12-31T08:00:00", "2mo", "2028-02-29T08:00:00"),
        ("2027-01-15T08:00:00", "12mo", "2028-01-15T08:00:00"),
    ],
)
def test_durations(begin: str, duration: str, end: str) -> None:
    assert later(at(begin), duration) == at(end)


@pytest.mark.parametrize("duration", ["", "30", "d", "0d", "-1d", "1y", "1.5h", "30d30d", "999999w", "999999mo"])
def test_what_is_no_duration_is_refused(duration: str) -> None:
    with pytest.raises(ValueError, match=r"duration|calendar"):
        later(at("2027-01-15"), duration)


@pytest.mark.parametrize(
    ("reset", "period", "now", "end"),
    [
        ("2027-01-15", "1d", "2027-01-15", "2027-01-16"),
        ("2027-01-15", "1d", "2027-03-01T12:00:00", "2027-03-02"),
        ("2027-01-15", "1mo", "2027-04-15", "2027-05-15"),
        ("2027-01-15", "1h", "2026-01-01", "2027-01-15"),
    ],
)
def test_a_period_ends_in_step_with_the_ones_before(reset: str, period: str, now: str, end: str) -> None:
    assert next_reset(at(reset), period, at(now), at("2026-12-15")) == at(end)


@pytest.mark.parametrize(
    ("period", "created", "ends"),
    [
        ("1mo", "2027-01-31", ["02-28", "03-31", "04-30", "05-31"]),
        ("1mo", "2027-01-30", ["02-28", "03-30", "04-30", "05-30"]),
        ("1mo", "2027-01-28", ["02-28", "03-28", "04-28", "05-28"]),
        ("2mo", "2026-12-31", ["02-28", "04-30", "06-30", "08-31"]),
    ],
)
def test_a_shorter_month_moves_none_of_those_after_it(period: str, created: str, ends: list[str]) -> None:
    made = at(f"{created}T08:00:00.123457") + 1e-7  # a clock is finer than the calendar
    expected = [at(f"2027-{end}T08:00:00.123457") for end in ends]
    walked = [later(made, period)]
    while len(walked) < len(ends):
        walked.append(next_reset(walked[-1], period, walked[-1], made))
    assert walked == expected
    assert next_reset(walked[0], period, walked[-2], made) == expected[-1]  # a node that slept


def test_a_period_that_a_key_was_given_later_keeps_its_own_day() -> None:
    reset, created = at("2027-02-28T09:30:00"), at("2027-01-31T08:00:00")
    assert next_reset(reset, "1mo", reset, created) == at("2027-03-28T09:30:00")


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2027-01-15", "2027-01-15", "2027-01-16"),
        ("2027-01-15T12:00:00", "2027-01-15T12:00:00", "2027-01-15T12:00:00"),
        ("2027-01-15T12:00:00+02:00", "2027-01-15T10:00:00", "2027-01-15T10:00:00"),
        ("2027-01-15T12:00:00Z", "2027-01-15T12:00:00", "2027-01-15T12:00:00"),
        ("1800000000", "2027-01-15T08:00:00", "2027-01-15T08:00:00"),
    ],
)
def test_moments(text: str, first: str, last: str) -> None:
    assert moment(text) == at(first)
    assert moment(text, end=True) == at(last)


@pytest.mark.parametrize("text", ["yesterday", "2027-13-01", "15.1.2027", "9999-12-31x"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no time"):
        moment(text)
    with pytest.raises(ValueError, match="no day"):
        keys.day(text)


# ---- what a key may be given


def test_everything_at_once() -> None:
    now = at("2027-01-15")
    parts = parse(
        {
            "key_alias": " alice ",
            "models": ["fast", "gpt-*", "fast"],
            "rpm_limit": 60,
            "tpm_limit": 1e5,
            "max_parallel_requests": 4,
            "max_budget": 12.5,
            "budget_duration": "30d",
            "duration": "90d",
            "blocked": False,
            "metadata": {"team": "a"},
            "team_id": None,
            "aliases": {},
        },
        now,
    )
    assert parts == {
        "name": "alice",
        "models": ("fast", "gpt-*"),
        "rpm": 60,
        "tpm": 100_000,
        "max_parallel": 4,
        "budget": 12_500_000_000,
        "budget_period": "30d",
        "budget_reset": at("2027-02-14"),
        "expires": at("2027-04-15"),
        "blocked": False,
        "metadata": {"team": "a"},
    }


def test_the_native_module_takes_the_largest_that_a_key_may_have() -> None:
    from penstock._native import Gateway

    most = {"rpm_limit": keys.LARGEST, "tpm_limit": keys.LARGEST, "max_parallel_requests": keys.MOST_AT_ONCE}
    _, key = keys.new({**most, "max_budget": keys.MOST, "spend": keys.MOST, "duration": "90000mo"}, time.time())
    gateway = Gateway(b"{}")
    gateway.put_keys(json.dumps([key.row()]).encode())
    gateway.close()


def test_null_takes_a_limit_away() -> None:
    given = dict.fromkeys(set(keys.FIELDS) - {"key"})
    parts = parse(given, 0.0)
    assert parts.pop("models") == ()
    assert parts.pop("blocked") is False
    assert parts.pop("metadata") == {}
    assert parts.pop("spent") == 0
    assert set(parts.values()) == {None}


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"max_budgett": 5}, "max_budgett"),
        ({"team_id": "a"}, "team_id"),
        ({"rpm_limit": -1}, "rpm_limit"),
        ({"rpm_limit": "many"}, "rpm_limit"),
        ({"rpm_limit": True}, "rpm_limit"),
        ({"tpm_limit": 1e300}, "tpm_limit"),
        ({"max_parallel_requests": 1 << 32}, "max_parallel_requests"),
        ({"max_budget": "ten"}, "max_budget"),
        ({"max_budget": -1}, "max_budget"),
        ({"max_budget": True}, "max_budget"),
        ({"max_budget": [1]}, "max_budget"),
        ({"budget_duration": "soon"}, "budget_duration"),
        ({"duration": 30}, "duration"),
        ({"models": "fast"}, "models"),
        ({"models": [1]}, "models"),
        ({"models": ["*-mini"]}, "models"),
        ({"blocked": "no"}, "blocked"),
        ({"metadata": []}, "metadata"),
        ({"metadata": "a"}, "metadata"),
        ({"key_alias": ""}, "key_alias"),
        ({"key_alias": "a\nb"}, "key_alias"),
        ({"key_alias": "sk-alias"}, "key_alias"),
        ({"key_alias": "0" * 64}, "key_alias"),
    ],
)
def test_what_cannot_be_names_the_part(given: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse(given, 0.0)
    assert caught.value.param == param


def test_a_misspelled_part_has_its_neighbour_named() -> None:
    with pytest.raises(BadRequestError, match="Nearest: max_budget"):
        parse({"max_budgett": 5}, 0.0)


def test_the_gateway_gets_dollars_and_what_is_not_written_yet() -> None:
    key = Key(id="0" * 64, budget=5_000_000_000, spent=1_000_000_000)
    assert key.row(250_000_000)["spent"] == 1.25
    assert key.row()["budget"] == 5.0


# ---- the commands


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "penstock.db"
    monkeypatch.setenv("PENSTOCK_DATABASE", str(path))
    return path


@pytest.fixture
def made(database: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """A key with the name alice."""
    assert (
        run(["keys", "make", "alice", "-m", "fast", "-m", "gpt-*", "--budget", "10", "--period", "30d", "--rpm", "6"])
        == 0
    )
    said = capsys.readouterr()
    assert "only time" in said.err
    return said.out.strip()


def kept(database: Path, name: str = "alice") -> Key:
    store = Store(str(database))
    found = store.find_key(name)
    store.close()
    assert found is not None
    return found


def test_make_prints_the_key_once(made: str, database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = kept(database)
    assert key.id == hash_of(made)
    assert (key.models, key.budget, key.budget_period, key.rpm, key.tpm) == (("fast", "gpt-*"), 10**10, "30d", 6, None)
    for command in (["list"], ["list", "--json"], ["show", "alice"], ["show", made, "--json"]):
        assert run(["keys", *command]) == 0
    said = capsys.readouterr()
    assert made not in said.out + said.err
    assert "alice" in said.out


def test_list_is_for_programs_too(made: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "list", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    shown = json.loads(line)
    assert (shown["key_alias"], shown["max_budget"], shown["token"]) == ("alice", 10.0, hash_of(made))
    assert run(["keys", "list"]) == 0
    assert capsys.readouterr().out.split("\t")[:3] == ["alice", f"sk-...{made[-4:]}", "fast, gpt-*"]


def test_update_changes_what_is_given(made: str, database: Path) -> None:
    command = ["keys", "update", "alice", "--budget", "none", "--tpm", "1000", "--block", "--metadata", '{"a": 1}']
    assert run(command) == 0
    key = kept(database)
    assert (key.budget, key.tpm, key.blocked, key.rpm, key.metadata) == (None, 1000, True, 6, {"a": 1})
    assert run(["keys", "update", "alice", "--unblock", "--model", "*", "--name", "bob", "--spent", "1.5"]) == 0
    key = kept(database, "bob")
    assert (key.blocked, key.models, key.spent) == (False, (), 1_500_000_000)


def test_delete_deletes_all_that_are_named_or_none(
    made: str, database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["keys", "delete", "alice", "nobody"]) == 2
    assert "no key 'nobody'" in capsys.readouterr().err
    assert kept(database).name == "alice"
    assert run(["keys", "delete", made]) == 0
    assert run(["keys", "list"]) == 0
    assert capsys.readouterr().out == ""


def test_a_key_that_is_not_there_is_not_repeated(made: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "show", "sk-somebody-elses-key"]) == 2
    assert "somebody" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ["make", "--budget", "ten"],
        ["make", "--rpm", "many"],
        ["make", "--metadata", "{"],
        ["make", "alice"],
        ["update", "alice"],
        ["update", "alice", "--expires", "soon"],
    ],
)
def test_what_cannot_be_is_an_error_of_the_command_line(
    made: str, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["keys", *command]) == 2
    assert "bug" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            ["make", "--rpm", "many"],
            "--rpm must be a whole number from 0 to 9,007,199,254,740,991, or none for no limit",
        ),
        (["make", "--max-parallel", "-1"], "--max-parallel must be a whole number from 0 to 4,294,967,295, or none"),
        (["make", "--budget", "ten"], "--budget must be an amount of US dollars"),
        (["make", "--period", "30x"], "--period: '30x' is no duration"),
        (["make", "--expires", "0d"], "--expires: '0d' is no duration"),
        (["make", "--model", "a*b"], "--model must be names with a * at their end"),
        (["make", "sk-name"], "NAME must be a name, and not what begins with sk-"),
        (["update", "alice", "--spent", "-1"], "--spent must be an amount"),
        (["make", "--metadata", "[]"], "--metadata must be an object"),
    ],
)
def test_errors_have_the_names_of_the_command_line(
    made: str, command: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["keys", *command]) == 2
    assert f"penstock: {said}" in capsys.readouterr().err


def test_a_database_that_is_new_is_told_of(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "make", "a"]) == 0
    assert f"{database} is new: --database or --config" in capsys.readouterr().err
    assert run(["keys", "make", "b"]) == 0
    assert "is new" not in capsys.readouterr().err


@pytest.mark.parametrize("form", ["{}", "sqlite:///{}", "sqlite:///{}?timeout=5", "sqlite+pysqlite:///{}"])
def test_a_file_by_each_of_its_names(made: str, database: Path, form: str) -> None:
    assert run(["keys", "show", "alice", "--database", form.format(database)]) == 0


def test_a_file_that_cannot_be_written(made: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["spend", "--csv", str(tmp_path / "none" / "spend.csv")]) == 2
    assert "spend.csv: No such file or directory" in capsys.readouterr().err


def test_secret_is_kept_nowhere(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["keys", "secret"]) == 0
    assert re.fullmatch(r"sk-[A-Za-z0-9_-]{43}\n", capsys.readouterr().out)
    assert not list(tmp_path.iterdir())


def test_to_look_makes_no_database(capsys: pytest.CaptureFixture[str], database: Path) -> None:
    for command in (["keys", "list"], ["keys", "show", "a"], ["spend"]):
        assert run(command) == 2
        assert "no database" in capsys.readouterr().err
    assert not database.exists()


def test_the_configuration_names_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PENSTOCK_DATABASE", raising=False)
    config = tmp_path / "config.yaml"
    # What else is missing in it is nothing to this command.
    text = f"general_settings:\n  master_key: os.environ/NOT_SET\n  database_url: sqlite:///{tmp_path}/of-the-file.db\n"
    config.write_text(text)
    monkeypatch.setenv("PENSTOCK_DATABASE", "sqlite:///not-this-one.db")
    assert run(["keys", "make", "--config", str(config)]) == 0
    assert (tmp_path / "of-the-file.db").exists()
    config.write_text("general_settings:\n  database_url: os.environ/OUR_DATABASE\n")
    assert run(["keys", "list", "--config", str(config)]) == 2
    assert "OUR_DATABASE" in capsys.readouterr().err
    monkeypatch.setenv("OUR_DATABASE", f"sqlite:///{tmp_path}/of-the-file.db")
    assert run(["keys", "list", "--config", str(config)]) == 0


def test_spend_in_every_form(
    made: str, database: Path, tmp_path: Path, row: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(str(database))
    store.write([row(key=hash_of(made), cost=1.5, started=1_800_000_000), row(cost=0.25, started=1_800_100_000)])
    store.close()
    assert run(["spend"]) == 0
    assert capsys.readouterr().out == "2027-01-15\t1\t0\t19\t87\t1.500000\n2027-01-16\t1\t0\t19\t87\t0.250000\n"
    assert run(["spend", "--by", "key"]) == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == ["alice", "-"]
    assert run(["spend", "--key", "alice", "--start", "2027-01-15", "--end", "2027-01-15"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert run(["spend", "--csv", "-"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert run(["spend", "--by", "model", "--csv", str(tmp_path / "sums.csv")]) == 0
    assert (tmp_path / "sums.csv").read_text() == (
        "model,requests,failures,prompt_tokens,completion_tokens,total_tokens,cached_tokens,cost\n"
        "gpt-4o,2,0,38,174,212,16,1.75\n"
    )
    assert run(["spend", "--start", "yesterday"]) == 2
    assert run(["spend", "--key", "nobody"]) == 2


def test_a_key_that_has_ended_is_shown_so(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(str(database))
    now = time.time()
    ended: list[dict[str, Any]] = [{"blocked": True}, {"expires": now - 1}, {"budget": 5, "spent": 5}, {}]
    for number, parts in enumerate(ended):
        store.add_key(Key(id=f"{number:064}", hint="sk-...", created=number, **parts))
    store.close()
    assert run(["keys", "list"]) == 0
    assert [line.rpartition("\t")[2] for line in capsys.readouterr().out.splitlines()] == [
        "blocked",
        "expired",
        "spent",
        "good",
    ]
