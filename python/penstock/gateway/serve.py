"""The gateway's process: the config, the native module, the threads that do for it what Python has to, and signals.

SIGTERM and SIGINT drain: no new requests, those under way end or are cut after drain_seconds, and every row of spend is
written. A second one cuts at once. SIGHUP reads the config anew.
"""

import gc
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from errno import EADDRINUSE
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO

from .compile import Compiled, tables_of
from .config import Config, Problem, of_models, read
from .planner import Planner
from .telling import Telling

if TYPE_CHECKING:
    from .._native import Gateway
    from .ledger import Observer
    from .store import Store, StoreError

log = logging.getLogger("penstock.gateway")

LOOPBACK = ("127.0.0.1", "::1", "localhost")

FLUSH = 10.0
"""Seconds that the last rows have to get into the database; after that they wait on the disk for the next start."""

LOOK = 60.0
"""Seconds that the planner's thread waits for something to do; the end of the gateway ends it too."""

YOUNG = 50_000
"""Objects that are made before the youngest are looked through for circles."""

PATIENCE = 5.0
"""Seconds that hooks have to return when the process ends, and whoever reads its log."""

AT_START = ("database_url", "spill_folder", "flush_seconds", "retention_days", "log_format", "otel")
"""What of general_settings a reload does not change."""


class RefusedError(Exception):
    """Why the gateway does not start, and what to do about it."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what)
        self.what = what
        self.advice = advice


class ConfigError(ValueError):
    """A config with errors. The message names all of them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says.

    config, models: a file, or models without one. host: where to listen; None is everywhere with a master key, and
    this machine alone without. workers: threads that serve. cert: certificate chain and key, as files.
    """

    config: str | None = None
    models: tuple[str, ...] = ()
    host: str | None = None
    port: int = 4000
    workers: int | None = None
    cert: tuple[str, str] | None = None
    allow_unauthenticated: bool = False


def load(options: Options) -> tuple[Config, Compiled]:
    """The config that the options name, ready for use; its warnings are among its problems.

    Raises:
        ConfigError: it has errors.
    """
    config = of_models(options.models) if options.config is None else read(options.config)
    compiled = tables_of(config, allow_unauthenticated=options.allow_unauthenticated)
    if compiled is None:
        raise ConfigError(config.problems)
    return config, compiled


def address(options: Options, compiled: Compiled) -> str:
    """Where to listen.

    Raises:
        RefusedError: others could ask there, without a key.
    """
    keyed = compiled.settings["master_key"] is not None
    if options.host is None:
        return "0.0.0.0" if keyed else LOOPBACK[0]  # noqa: S104  that is what a master key is for
    if not keyed and options.host not in LOOPBACK and not options.allow_unauthenticated:
        raise RefusedError(
            f"on {options.host} everybody who reaches it could spend your money: there is no master key",
            "Set general_settings.master_key or PENSTOCK_MASTER_KEY (`penstock keys secret` makes one), "
            "or say --allow-unauthenticated.",
        )
    return options.host


def run(options: Options, out: TextIO = sys.stderr) -> int:
    """Serves until a signal ends it. Returns the exit status.

    Raises:
        ConfigError: the config has errors.
        RefusedError: anything else that keeps it from starting.
    """
    config, compiled = load(options)
    host = address(options, compiled)
    _log_to(out, compiled.settings["log_format"])
    for problem in config.problems:
        log.warning("%s", problem)
    _raise_limit()
    with ExitStack() as stack:
        # First in and last out: whoever is impatient does not keep the last rows from being written.
        serving = threading.Event()

        def heard(got: int, _frame: object) -> None:
            if not serving.is_set() and got in (signal.SIGINT, signal.SIGTERM):
                raise KeyboardInterrupt  # as long as it waits for a database there is nothing to let end

        signals = stack.enter_context(_Signals(_signals()))
        before = {number: signal.signal(number, heard) for number in _signals()}
        stack.callback(lambda: [signal.signal(number, handler) for number, handler in before.items()])
        gateway = gateway_of(options, compiled)
        stack.callback(gateway.close)
        server = stack.enter_context(_serving(options, compiled, gateway, host))
        serving.set()
        port = _listen(gateway, options, host)
        said = banner(options, compiled, host, port, keys=server.keys)
        if compiled.settings["log_format"] == "json":
            log.info("%s", said.partition("\n")[0])
        else:
            out.write(said)
            out.flush()
        _attend(gateway, server, signals)
    return 0


def _signals() -> list[signal.Signals]:
    return [signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


def _attend(gateway: "Gateway", server: "Server", signals: "_Signals") -> None:
    """Waits for signals, and for the end."""
    draining: threading.Thread | None = None
    while True:
        got = signals.next()
        if got is None:
            return
        if hasattr(signal, "SIGHUP") and got == signal.SIGHUP:
            try:
                server.reload()
            except ConfigError:
                pass  # it has been logged
            except Exception:
                log.exception("the old config stays")
            continue
        if draining is not None:
            log.warning("requests under way end at once")
            gateway.drain(0.0)
            return
        seconds = server.compiled.settings["drain_seconds"]
        log.info("no new requests; %g s for those under way, another signal ends them at once", seconds)

        def drain(seconds: float = seconds) -> None:
            left = gateway.drain(seconds)
            if left:
                log.warning("%d requests were cut", left)
            signals.end()

        draining = threading.Thread(target=drain, name="penstock-drain", daemon=True)
        draining.start()


class _Signals:
    """These signals, which are to have handlers, in their order. None is lost, nor has it to be looked for.

    Python hears of a signal that comes in the moment before a wait begins when the wait has ended. But its number is
    written to a socket at once, and that is what is waited for.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = numbers

    def __enter__(self) -> Self:
        self._in, self._out = socket.socketpair()
        self._out.setblocking(False)
        self._before = signal.set_wakeup_fd(self._out.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._before)
        self._in.close()
        self._out.close()

    def next(self) -> int | None:
        """The next one. None: `end` was called."""
        while got := self._in.recv(1)[0]:
            if got in self._numbers:  # others may have handlers too
                return got
        return None

    def end(self) -> None:
        """There is nothing more to wait for. From any thread."""
        with suppress(OSError):  # nobody waits any more
            self._out.send(b"\0")


# What is around the native module


class Server:
    """What serves: the native gateway, who plans for it, and the config that both work by."""

    def __init__(self, options: Options, compiled: Compiled, gateway: "Gateway", host: str) -> None:
        self.options = options
        self.compiled = compiled
        self.started = compiled.settings
        self.host = host
        self.gateway = gateway
        self.telling = Telling(compiled.hooks)
        self.planner = Planner(compiled.deployments, self.telling if compiled.hooks else None)
        self.admin: Any = None
        self.keys = False
        self._reloading = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="penstock-planner", daemon=True)

    def start(self) -> None:
        """Begins to answer jobs."""
        self._thread.start()

    def close(self) -> None:
        """Answers nothing more, requests or jobs."""
        self._closing.set()
        self.gateway.close()  # what it still has under way becomes rows
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            log.warning("a hook does not return, and is not waited for")
        self.planner.close()

    def _work(self) -> None:
        while not self._closing.is_set():
            job = self.gateway.next_job(LOOK)
            if job is None:
                continue
            try:
                if job.kind == "plan":
                    self.planner.plan(job)
                else:
                    self.admin.answer(job)
            except Exception:
                log.exception("a job could not be answered")

    def reload(self) -> list[str]:
        """Reads the config anew, and swaps it whole. Gives its warnings; what is wrong with it is logged.

        Raises:
            ConfigError: it has errors, and the old one stays.
        """
        with self._reloading:
            before = dict(os.environ)
            try:
                config, compiled = load(self.options)
                self._swap(compiled)
            except Exception as error:
                # Its environment_variables are the config's too, and keys are read from there.
                for name in os.environ.keys() - before.keys():
                    del os.environ[name]
                os.environ.update(before)
                if isinstance(error, ConfigError):
                    log.error("the old config stays: %s", error)  # noqa: TRY400  the message is all there is
                raise
            warnings = [str(problem) for problem in config.problems]
            warnings += [
                f"general_settings.{name} has effect with the next start"
                for name in AT_START
                if self.started[name] != compiled.settings[name]
            ]
            self.compiled = compiled
        for warning in warnings:
            log.warning("%s", warning)
        log.info("the config was read anew: %d deployments", len(compiled.deployments))
        return warnings

    def _swap(self, compiled: Compiled) -> None:
        """Serves by these tables from now on."""
        open_to_all = compiled.settings["master_key"] is None and not self.options.allow_unauthenticated
        if open_to_all and self.host not in LOOPBACK:
            raise ConfigError([Problem("error", str(self.options.config), "", "there is no master key any more")])
        # The planner first: it still knows the deployments of before, and the native module never asks for others.
        self._plan_for(compiled)
        try:
            self.gateway.reload(compiled.tables)
        except ValueError as error:
            self._plan_for(self.compiled)
            raise _unusable(self.options, error) from None
        self.telling.reload(compiled.hooks)

    def _plan_for(self, compiled: Compiled) -> None:
        self.planner.reload(compiled.deployments, self.telling if compiled.hooks else None)


def gateway_of(options: Options, compiled: Compiled) -> "Gateway":
    """The native module with these tables, which serves nothing yet.

    Raises:
        ConfigError: they cannot be.
        RefusedError: there is no such module here.
    """
    try:
        from .._native import Gateway
    except ImportError:
        raise RefusedError("the gateway is not built for this system", "Run it on Linux or macOS.") from None
    try:
        return Gateway(compiled.tables)
    except ValueError as error:
        raise _unusable(options, error) from None


def refusals(options: Options, compiled: Compiled) -> Iterator[RefusedError]:
    """What else than the config would keep it from starting, as far as nobody has to be asked and nothing made."""
    for look in (_look_at_cert, _look_at_database, address):
        try:
            look(options, compiled)
        except RefusedError as error:
            yield error


def _look_at_cert(options: Options, _compiled: Compiled) -> None:
    from .._native import Gateway

    if options.cert is not None:
        with _reading_cert():
            Gateway.check_cert(*options.cert)


def _look_at_database(options: Options, compiled: Compiled) -> None:
    try:
        from .store import StoreError, check
    except ModuleNotFoundError as error:
        raise _without(error) from None
    url = _database(options, compiled)
    try:
        if url is not None:
            check(url)
    except StoreError as error:
        raise _no_database(error) from None


@contextmanager
def _reading_cert() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise RefusedError(f"TLS: {error}", "--ssl-certfile and --ssl-keyfile are files of PEM.") from None


def _no_database(error: "StoreError") -> RefusedError:
    return RefusedError(str(error), "Check general_settings.database_url, and that the database runs.")


def _without(error: ModuleNotFoundError) -> RefusedError:
    return RefusedError(f"the gateway needs {error.name}, which is not installed.", 'pip install "penstock[proxy]"')


def _unusable(options: Options, error: ValueError) -> ConfigError:
    """What the native module says of tables. It knows no lines."""
    return ConfigError([Problem("error", options.config or "--model", "", str(error))])


@contextmanager
def _serving(options: Options, compiled: Compiled, gateway: "Gateway", host: str) -> Iterator[Server]:
    """The threads around the gateway: at the end they do what is left to do, in this order."""
    try:
        from .admin import Admin
        from .keyring import Keyring
        from .ledger import Ledger
        from .observe import AccessLog, Spans, exporting
        from .store import Store, StoreError
    except ModuleNotFoundError as error:
        raise _without(error) from None
    with ExitStack() as stack:
        url = _database(options, compiled)
        if url is None:
            url = stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-")) + "/penstock.db"
        try:
            store = Store(url)
            stack.callback(store.close)
            keyring = Keyring(store, gateway)
            keys = keyring.sync()
        except StoreError as error:
            raise _no_database(error) from None
        server = Server(options, compiled, gateway, host)
        server.keys = keys > 0
        settings = compiled.settings
        requests = AccessLog(settings["log_format"], name_of=keyring.name_of)
        stack.callback(requests.close, PATIENCE)
        observers: list[Observer] = [requests, server.telling, server.planner]
        if settings["otel"]:
            try:
                spans = Spans(exporting())
            except ModuleNotFoundError as error:
                raise RefusedError(
                    f"general_settings.otel needs {error.name}, which is not installed.",
                    'pip install "penstock[otel]" opentelemetry-sdk opentelemetry-exporter-otlp-proto-http',
                ) from None
            stack.callback(spans.close)
            observers.append(spans)
        ledger = Ledger(
            store,
            gateway,
            spill=_spill(store, settings["spill_folder"]),
            keyring=keyring,
            observers=observers,
            flush_seconds=max(settings["flush_seconds"], 0.05),
            retention_days=settings["retention_days"],
        ).start()
        stack.callback(server.telling.close, PATIENCE)
        stack.callback(ledger.close, FLUSH)
        server.admin = Admin(store, gateway, server.reload, keyring=keyring)
        stack.callback(server.admin.close)
        # Rows come and go by the thousand, in no circles: neither what is here to stay nor they themselves need to be
        # looked through for those.
        gc.freeze()
        stack.callback(gc.unfreeze)
        stack.callback(gc.set_threshold, *gc.get_threshold())
        gc.set_threshold(YOUNG)
        server.start()
        stack.callback(server.close)
        yield server


def _database(options: Options, compiled: Compiled) -> str | None:
    """The URL of the database. None: models alone are for a moment, they leave nothing behind."""
    from .store import DEFAULT

    url: str | None = compiled.settings["database_url"]
    return url or (None if options.config is None else DEFAULT)


def _spill(store: "Store", folder: str | None) -> Path:
    """What the files begin with that hold rows while the database is away.

    Raises:
        RefusedError: none can be written there.
    """
    file = store.file
    spill = Path("penstock.spill") if file is None else file.with_name(f"{file.name}.spill")
    if folder is not None:
        spill = Path(folder) / spill.name
    try:
        spill.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=spill.parent):
            pass
    except OSError as error:
        raise RefusedError(
            f"{spill.parent.absolute()}: {error.strerror}. Rows of spend wait there while the database is away",
            "general_settings.spill_folder names a folder that this process may write to.",
        ) from None
    return spill


def _listen(gateway: "Gateway", options: Options, host: str) -> int:
    workers = options.workers or _processors()
    try:
        with _reading_cert():
            return gateway.listen(host, options.port, workers=workers, cert=options.cert)
    except OSError as error:
        if isinstance(error, PermissionError):
            advice = "Ports below 1024 are for root: --port 4000 is not."
        elif f"(os error {EADDRINUSE})" in str(error):  # it comes as a text
            advice = f"--port chooses another one. `ss -ltnp sport = :{options.port}` tells who has it."
        else:
            advice = "--host is an address of this machine: 127.0.0.1, 0.0.0.0 for all of them."
        raise RefusedError(f"{host}:{options.port} cannot be had: {error}", advice) from None


def _processors() -> int:
    """Those that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _raise_limit() -> None:
    """As many open files as this process may have: a stream is two."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# What people see


class _Json(logging.Formatter):
    """A line of JSON, as those of the requests are."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        import orjson

        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": "log",
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


def _log_to(out: TextIO, form: str) -> None:
    handler = logging.StreamHandler(out)
    plain = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
    handler.setFormatter(_Json() if form == "json" else plain)
    log.handlers = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False


def banner(options: Options, compiled: Compiled, host: str, port: int, *, keys: bool = False) -> str:
    """What is served, where, for whom, and a line to try. keys: whether there are any beside the master key."""
    from .._native import __version__

    shown = f"[{host}]" if ":" in host else host
    here = "localhost" if host in ("0.0.0.0", "::") else shown  # noqa: S104  only shown
    scheme = "https" if options.cert is not None else "http"
    names = list(dict.fromkeys(line.group for line in compiled.served))
    master = compiled.settings["master_key"] is not None
    keyed = master or (keys and not options.allow_unauthenticated)
    who = (
        "for whoever has a key"
        if master
        else "for whoever on this machine has a key: there is no master key"
        if keyed
        else "for EVERYBODY who reaches it, as --allow-unauthenticated says"
        if host not in LOOPBACK
        else "for this machine alone: there is no master key"
    )
    asked = next((name for name in names if not name.endswith("*")), names[0].replace("*", "..."))
    body = (
        f'{{"model": "{asked}", "messages": [{{"role": "user", "content": "Say hello."}}], '
        '"stream": true, "stream_options": {"include_usage": true}}'
    )
    key = f' -H "Authorization: Bearer ${"PENSTOCK_MASTER_KEY" if master else "KEY"}"' if keyed else ""
    listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return (
        f"penstock {__version__} at {scheme}://{shown}:{port}, {who}\n"
        f"  models  {listed}\n"
        f"  live    {scheme}://{here}:{port}/\n"
        f"  try     curl {scheme}://{here}:{port}/v1/chat/completions{key} -H 'content-type: application/json' \\\n"
        f"            -d '{body}'\n"
    )
