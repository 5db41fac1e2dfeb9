"""Many at once on the workers of others: Ray Data, Spark and Dask, on this machine."""

import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import BadRequestError
from penstock.many import tables
from penstock.many.tables import RESULTS, Share
from penstock.replay import Upstream

KEY = "sk-test-0123456789abcdef"
ROWS = 40


def needed(name: str) -> Any:
    return pytest.importorskip(name, reason=f"external: {name} is not installed (dependency group `fleet`)")


@pytest.fixture
def up() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(autouse=True)
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_idle", {})


@pytest.fixture
def local(up: Upstream) -> dict[str, Any]:
    """Options with which every row goes to the local upstream."""
    return {"model": "openai/hello", "api_base": up.base_url, "api_key": KEY}


def frame(rows: int = ROWS) -> dict[str, list[Any]]:
    """A table whose last row has no prompt, with a column that no request may have."""
    prompts: list[str | None] = [f"Number {n}." for n in range(rows)]
    prompts[-1] = None
    return {"prompt": prompts, "id": [f"r-{n}" for n in range(rows)], "shelf": [n * 10 for n in range(rows)]}


def judge(rows: list[dict[str, Any]], up: Upstream, price: float | None = None) -> None:
    """What must have become of `frame()`, whoever did it."""
    rows = sorted(rows, key=lambda row: row["shelf"])
    assert [row["shelf"] for row in rows] == [n * 10 for n in range(ROWS)]
    assert [row["id"] for row in rows] == [f"r-{n}" for n in range(ROWS)]
    *answered, failed = rows
    for row in answered:
        assert list(row) == ["prompt", "id", "shelf", *RESULTS]
        response = json.loads(row["response"])
        assert row["text"] == response["choices"][0]["message"]["content"]
        assert row["text"]
        assert missing(row["error"])
        for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
            assert row[name] == response["usage"][name] > 0
        assert row["latency"] > 0
        assert row["attempts"] == 1
        assert missing(row["cost"]) if price is None else row["cost"] == pytest.approx(row["prompt_tokens"] * price)
    assert json.loads(failed["error"])["class"] == "BadRequestError"
    assert "either messages or a prompt" in json.loads(failed["error"])["message"]
    assert all(missing(failed[name]) for name in ("text", "response", "total_tokens", "cost"))
    assert failed["attempts"] == 0
    assert up.stats()["models"]["hello"]["requests"] == ROWS - 1


def missing(value: Any) -> bool:
    """Null, as each of the engines has it."""
    return value is None or value != value or str(value) == "<NA>"  # NaN


# Shares --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"rpm": 100}, "rpm is for all workers"),
        ({"max_in_flight": 8}, "max_in_flight is for all workers"),
        ({"workers": 0}, "workers must be above 0"),
        ({"tpm": -1, "workers": 2}, "tpm must be above 0"),
        ({"max_in_flight": 3, "workers": 4}, "one for each of 4"),
        ({"temprature": 1}, "temperature"),
        ({"model": None, "api_key": KEY}, "api_key needs model"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_written(options: dict[str, Any], word: str) -> None:
    with pytest.raises(BadRequestError, match=word):
        Share(**{"model": "openai/gpt-4o", **options})


def test_limits_are_divided() -> None:
    share = Share(model="openai/gpt-4o", max_in_flight=10, rpm=100, tpm=9000, workers=4)  # and needs no key here
    assert share.limits == (2, 25, 2250)
    assert Share(model="openai/gpt-4o", workers=4).limits == ("auto", None, None)


def test_the_rows_of_tables_stay_in_their_tables(local: dict[str, Any]) -> None:
    pyarrow = needed("pyarrow")
    kinds = pyarrow.schema({"prompt": "string", "number": "int8"}, metadata={"kept": "yes"})
    sizes = (0, 3, 0, 50, 1, 0)
    parts = [pyarrow.table({"prompt": ["x"] * size, "number": range(size)}, schema=kinds) for size in sizes]
    share = Share(**{**local, "model": "openai/hello?delay=2"})
    found = list(share.answers(parts))
    assert [table.num_rows for table in found] == list(sizes)
    assert all(table.schema.equals(found[0].schema, check_metadata=True) for table in found)
    assert found[0].schema.metadata == {b"kept": b"yes"}
    for table, part in zip(found, parts, strict=True):
        assert table.select(["prompt", "number"]) == part
        assert table["error"].null_count == table.num_rows
    assert list(share.answers([])) == []
    batches = [batch for part in parts for batch in part.to_batches()]
    assert all(isinstance(batch, pyarrow.RecordBatch) for batch in share.answers(batches))


def test_tables_are_not_read_ahead_of_the_answers(local: dict[str, Any]) -> None:
    pyarrow = needed("pyarrow")
    read = 0

    def endless() -> Iterator[Any]:
        nonlocal read
        while True:
            read += 1
            yield pyarrow.table({"prompt": ["x"] * 10})

    found = Share(**local, max_in_flight=2, workers=1).answers(endless())
    for _ in range(3):
        next(found)
    assert read < 20
    found.close()  # type: ignore[attr-defined]  # a generator
    assert not any(thread.name == "penstock-bulk" for thread in threading.enumerate())


def test_columns_of_other_names_are_carried_along_and_some_are_refused(local: dict[str, Any]) -> None:
    pyarrow = needed("pyarrow")
    table = pyarrow.table({"prompt": ["a"], "user": ["Ada"], "temperature": [9.5]})
    recorded = Recorded()
    hooks = [recorded]
    (answered,) = Share(**local, columns=["prompt"], hooks=hooks).answers([table])
    assert answered["user"].to_pylist() == ["Ada"]
    assert recorded.parameters == [{}]
    list(Share(**local, columns=table.column_names, hooks=hooks).answers([table]))
    assert recorded.parameters[1] == {"user": "Ada", "temperature": 9.5}
    for names, word in ((["text", "prompt"], "text"), (["question"], "messages or prompt"), (["id"], "it has id")):
        with pytest.raises(BadRequestError, match=word):
            list(Share(**local).answers([pyarrow.table({name: ["x"] for name in names})]))
    with pytest.raises(BadRequestError, match="user may be a parameter"):
        list(Share(**local).answers([table]))
    with pytest.raises(BadRequestError, match="no column ask"):
        list(Share(**local, columns=["ask"]).answers([table]))


class Recorded:
    """A hook that keeps the parameters of each call."""

    def __init__(self) -> None:
        self.parameters: list[Any] = []

    def started(self, call: Any) -> None:
        self.parameters.append(dict(call.parameters))


def test_lists_and_structs_may_be_json(local: dict[str, Any]) -> None:
    pyarrow = needed("pyarrow")
    messages = json.dumps([{"role": "user", "content": "a"}])
    (answered,) = Share(**local).answers([pyarrow.table({"messages": [messages, "[{'role'", None]})])
    assert [text is not None for text in answered["text"].to_pylist()] == [True, False, False]
    body = {"model": "hello", "messages": [{"role": "user", "content": "a"}]}
    batch = {"custom_id": ["a"], "method": ["POST"], "url": ["/v1/chat/completions"], "body": [json.dumps(body)]}
    (answered,) = Share(**local).answers([pyarrow.table(batch)])
    assert answered["text"].null_count == 0


def test_a_worker_keeps_its_rate_from_one_table_to_the_next(local: dict[str, Any]) -> None:
    pyarrow = needed("pyarrow")
    share = Share(**local, rpm=2400, workers=2)
    began = time.monotonic()
    for _ in range(30):  # of which each on its own would begin with a second's worth
        list(pickle.loads(pickle.dumps(share)).answers([pyarrow.table({"prompt": ["x"]})]))
    assert time.monotonic() - began >= 0.45  # 20 at once, then one each 50 ms


def test_threads_are_workers(local: dict[str, Any], up: Upstream) -> None:
    pyarrow = needed("pyarrow")
    share = Share(**{**local, "model": "openai/hello?delay=5"}, max_in_flight=4, workers=2)
    table = pyarrow.table({"prompt": ["x"] * 20})
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda _: list(share.answers([table])), range(4)))
    assert all(answered["text"].null_count == 0 for (answered,) in found)
    assert [len(idle) for idle in tables._idle.values()] in ([1], [2])


def test_defaults_go_along_and_a_key_need_not(up: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = needed("pyarrow")
    prices = {"openai/hello": {"input_cost_per_token": 1.0, "output_cost_per_token": 0.0}}
    with penstock.configured(prices=prices, hooks=[lambda: None]):
        sent = pickle.dumps(Share(model="openai/hello"))
    table = pyarrow.table({"prompt": ["x"]})
    with pytest.raises(penstock.AuthenticationError):
        list(pickle.loads(sent).answers([table]))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", up.base_url)
    (answered,) = pickle.loads(sent).answers([table])
    assert answered["cost"].to_pylist() == answered["prompt_tokens"].to_pylist()


def test_what_fails_for_all_ends_the_part(local: dict[str, Any], up: Upstream) -> None:
    pyarrow = needed("pyarrow")
    share = Share(**{**local, "model": "openai/hello?status=401"}, max_in_flight=4, workers=1)
    with pytest.raises(penstock.AuthenticationError):
        list(share.answers([pyarrow.table({"prompt": ["x"] * 1000})]))
    assert up.stats()["models"]["hello"]["requests"] < 20


def test_what_fails_for_all_ends_small_parts_too(local: dict[str, Any], up: Upstream) -> None:
    pyarrow = needed("pyarrow")
    share = Share(**{**local, "model": "openai/hello?status=401"})
    table = pyarrow.table({"prompt": ["x"] * 4})
    for _ in range(2):
        list(share.answers([table]))
    with pytest.raises(penstock.AuthenticationError):
        list(share.answers([table]))
    assert up.stats()["models"]["hello"]["requests"] <= 12


def test_the_adapters_need_nobody_else_to_be_imported() -> None:
    code = "import sys\nimport penstock.many.ray, penstock.many.spark, penstock.many.dask\nprint(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"ray", "pyspark", "dask", "pandas", "pyarrow"} & set(ran.stdout.split())


# Engines -------------------------------------------------------------------------------------------------------------
# Each in a process of its own: they leave threads and servers behind, and warn of what is not ours.

PRICES = {"openai/hello": {"input_cost_per_token": 0.5, "output_cost_per_token": 0.0}}

RAY = """
import json, sys
import ray
from penstock.many.ray import Ask

given, out = json.loads(sys.argv[1]), sys.argv[2]
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
names = list(given["frame"])
rows = [dict(zip(names, values)) for values in zip(*given["frame"].values())]
asking = {**given["options"], "workers": 2, "max_in_flight": 8, "rpm": 60000, "tpm": 60000000}
answered = ray.data.from_items(rows).map_batches(
    Ask, fn_constructor_kwargs=asking, batch_format="pyarrow", batch_size=7,
    compute=ray.data.ActorPoolStrategy(size=2),
)
json.dump(answered.take_all(), open(out, "w"))
ray.shutdown()
"""

SPARK = """
import json, sys
import penstock
from penstock.many.spark import Ask, schema
from pyspark.sql import SparkSession
from pyspark.sql.types import LongType, StringType, StructField, StructType

given, out = json.loads(sys.argv[1]), sys.argv[2]
session = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").config(
    "spark.sql.execution.arrow.maxRecordsPerBatch", "7").getOrCreate()
types = {"prompt": StringType(), "id": StringType(), "shelf": LongType()}
rows = list(zip(*given["frame"].values()))
frame = session.createDataFrame(rows, StructType([StructField(name, types[name]) for name in given["frame"]]))
with penstock.configured(prices=given["prices"]):
    asking = Ask(**given["options"], workers=2, max_in_flight=8, rpm=60000, tpm=60000000)
answered = frame.repartition(3).mapInArrow(asking, schema(frame))
json.dump([row.asDict() for row in answered.collect()], open(out, "w"))
session.stop()
"""

DASK = """
import json, sys
import dask.dataframe, pandas
import penstock
from penstock.many.dask import Ask, meta

given, out = json.loads(sys.argv[1]), sys.argv[2]
plain = pandas.DataFrame(given["frame"], index=[n // 2 for n in range(len(given["frame"]["id"]))])
frame = dask.dataframe.from_pandas(plain, npartitions=5, sort=False)
with penstock.configured(prices=given["prices"]):
    asking = Ask(**given["options"], workers=2, max_in_flight=8, rpm=60000, tpm=60000000)
answered = frame.map_partitions(asking, meta=meta(frame))
found = answered.compute(scheduler=given["scheduler"], num_workers=2)
assert list(found.dtypes) == list(answered.dtypes), (found.dtypes, answered.dtypes)
assert list(found.index) == list(plain.index)
rows = found.astype(object).where(found.notna(), None).to_dict("records")
json.dump(rows, open(out, "w"))
"""


def answered_by(script: str, local: dict[str, Any], tmp_path: Path, scheduler: str = "") -> list[dict[str, Any]]:
    out = tmp_path / "out.json"
    program = tmp_path / "program.py"
    program.write_text(f'if __name__ == "__main__":\n{indented(script)}', encoding="utf-8")
    given = {"frame": frame(), "options": local, "prices": PRICES, "scheduler": scheduler}
    home = str(Path(penstock.__path__[0]).parent)
    path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "PYSPARK_PYTHON": sys.executable, "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, str(program), json.dumps(given), str(out)]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=110, env=environment)
    assert ran.returncode == 0, ran.stderr[-5000:]
    found: list[dict[str, Any]] = json.loads(out.read_text())
    return found


def indented(script: str) -> str:
    return "".join(f"    {line}\n" for line in script.splitlines())


def test_ray_data(local: dict[str, Any], up: Upstream, tmp_path: Path) -> None:
    needed("ray")
    judge(answered_by(RAY, local, tmp_path), up)


def test_spark(local: dict[str, Any], up: Upstream, tmp_path: Path) -> None:
    needed("pyspark")
    judge(answered_by(SPARK, local, tmp_path), up, 0.5)


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_dask(local: dict[str, Any], up: Upstream, tmp_path: Path, scheduler: str) -> None:
    needed("dask")
    needed("pandas")
    judge(answered_by(DASK, local, tmp_path, scheduler), up, 0.5)
