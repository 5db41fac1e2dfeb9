"""What is said of the providers: as data, at a shell, on the page."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from penstock import BadRequestError, UnsupportedParamsError, completion, list_providers, supported_params
from penstock.providers.registry import NOT_SERVED, PROVIDERS, ROWS
from penstock.wire import Parameters

KNOWN = {row["slug"]: row for row in list_providers()}


def test_every_row_is_listed_as_plain_data() -> None:
    rows = list_providers()
    assert [row["slug"] for row in rows] == [row.slug for row in ROWS]
    assert json.loads(json.dumps(rows)) == rows
    assert len({frozenset(row) for row in rows}) == 1, "each has the same keys"
    documented = list_providers.__doc__ or ""
    assert all(name in documented for name in rows[0])


def test_a_list_is_the_callers_own() -> None:
    list_providers()[0]["key_env"].append("x")
    assert list_providers()[0]["key_env"] == KNOWN[ROWS[0].slug]["key_env"]


def test_what_is_said_of_some() -> None:
    openai = KNOWN["openai"]
    assert openai["key_env"] == ["OPENAI_API_KEY"]
    assert openai["base_url"] == "https://api.openai.com/v1"
    assert openai["usage"] == {"asked": True, "when": "after the finish reason, in a chunk of its own"}
    assert openai["settings"][0]["keyword"] == "organization"
    assert KNOWN["perplexity"]["usage"] == {"asked": False, "when": "in every chunk"}
    assert KNOWN["azure"]["needs_api_base"]
    assert KNOWN["azure"]["tokens"][0] == {"keyword": "azure_ad_token", "env": ["AZURE_AD_TOKEN"]}
    assert KNOWN["azure"]["grants"] == [["tenant_id", "client_id", "client_secret"]]
    assert KNOWN["vertex_ai"]["google_scope"] == "https://www.googleapis.com/auth/cloud-platform"
    assert (KNOWN["replay"]["base_url"], KNOWN["replay"]["needs_api_base"]) == (None, False)
    assert "anthropic" in KNOWN["replay"]["other_families"]
    assert KNOWN["bedrock"]["signed_as"] == "bedrock"


def test_to_list_them_starts_nothing() -> None:
    code = "import sys, penstock; penstock.list_providers(); sys.exit('penstock.replay' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.slug)
def test_supported_params_are_all_but_those_that_it_lacks(row: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in row.base_env:
        monkeypatch.delenv(name, raising=False)
    params = supported_params(f"{row.slug}/m")
    assert params == sorted(set(Parameters.__optional_keys__) - row.unsupported)


def test_supported_params_are_those_of_the_call() -> None:
    assert "top_k" not in supported_params("gpt-4o")
    assert "top_k" in supported_params("openai/m", api_base="http://localhost:8000/v1")
    assert "seed" in supported_params("replay/hello")
    assert "seed" not in supported_params("replay/anthropic/hello")
    with pytest.raises(UnsupportedParamsError):
        completion("replay/anthropic/hello", [{"role": "user", "content": "Hello"}], seed=1)
    with pytest.raises(BadRequestError):
        supported_params("nobody/m")


def test_the_page_is_what_the_rows_say(root: Path) -> None:
    command = [sys.executable, "-m", "penstock.catalogue"]
    written = subprocess.run(command, check=True, capture_output=True).stdout.decode()
    committed = (root / "docs" / "providers.md").read_text(encoding="utf-8")
    assert committed == written, "python -m penstock.catalogue > docs/providers.md"
    assert all(f"| `{name}` | {reason} |" in written for name, reason in NOT_SERVED.items())
    assert all(f"`{name}`" in written for name in PROVIDERS)
