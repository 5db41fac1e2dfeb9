"""What every test may ask for, and a last word about what could not be tested on this machine."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORPUS = Path(os.environ.get("PENSTOCK_CORPUS") or ROOT.parent / "shared" / "corpus")
PROVIDER_VARIABLES = ("_API_KEY", "_BASE_URL", "_API_BASE", "_API_TOKEN", "_AUTH_TOKEN", "_ACCESS_TOKEN")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The recorded responses; PENSTOCK_CORPUS names another place for them."""
    if not (CORPUS / "index.jsonl").is_file():
        pytest.skip(f"external: no recordings at {CORPUS} (set PENSTOCK_CORPUS)")
    return CORPUS


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees this machine's keys, endpoints or proxies."""
    for name in list(os.environ):
        if name.upper().endswith(PROVIDER_VARIABLES) or name.upper() in {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}:
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def fresh_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test spends the retries of another: there are so many a minute."""
    from penstock import api
    from penstock._native import RetryBudget

    monkeypatch.setattr(api, "_budget", RetryBudget(0.2, 100))


def pytest_report_header() -> list[str]:
    """Which build is tested: the wheel and not the tree, unless somebody chose otherwise."""
    import penstock

    recordings = CORPUS if (CORPUS / "index.jsonl").is_file() else "NOT FOUND"
    return [f"penstock {penstock.__version__} from {Path(penstock.__file__).parent}", f"recordings: {recordings}"]


def reasons(reports: list[pytest.TestReport]) -> Iterator[str]:
    """Why each of these tests was skipped."""
    for report in reports:
        _, _, reason = report.longrepr if isinstance(report.longrepr, tuple) else ("", 0, str(report.longrepr))
        yield str(reason).removeprefix("Skipped: ")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A skipped test is never silent: a green run that left something out says so in its last lines."""
    skipped = Counter(reasons(terminalreporter.stats.get("skipped", [])))
    if not skipped:
        return
    total = skipped.total()
    terminalreporter.section(f"NOT TESTED HERE: {total} skipped", sep="!", red=True, bold=True)
    for reason, count in skipped.most_common():
        terminalreporter.line(f"{count:6}  {reason}", red=True)
