"""The commands: what they take, what they print, how they end."""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import rich  # noqa: F401  so that its absence shows in the first moment and not with the first table

from ..catalogue import list_providers
from ..errors import APIError
from ..providers.registry import NOT_SERVED
from . import advice, keys, proxy, talk

OK, API_ERROR, USAGE_ERROR, INTERRUPTED = 0, 1, 2, 130

BUILT_IN = "replay/hello"

STATUSES = """
\b
Exit status:
  0    all is well
  1    the API, or the way to it, reported an error
  2    the command line is wrong: an option, or a model of no known provider
  130  interrupted
"""


def run(arguments: list[str]) -> int:
    """Run a command line without its program. Returns the exit status; prints what goes wrong in two lines."""
    try:
        status = penstock.main(arguments, "penstock", standalone_mode=False)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx is not None else "penstock"
        advice.say(error.format_message(), f"`{path} --help` has the details.")
        return USAGE_ERROR
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except APIError as error:
        advice.complain(error)
        return API_ERROR
    except Exception as error:
        # The last line of a program: two lines say more to its user than a traceback.
        if os.environ.get("PENSTOCK_TRACEBACK"):
            raise
        advice.say(f"{type(error).__name__}: {error}", "This is a bug of penstock. PENSTOCK_TRACEBACK=1 shows where.")
        return API_ERROR
    return status if isinstance(status, int) else OK


def _version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from .. import __version__

        click.echo(f"penstock {__version__}")
        context.exit()


@click.group(
    epilog=STATUSES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
@click.pass_context
def penstock(context: click.Context) -> int:
    """Stream every LLM through one OpenAI-shaped call."""
    if context.invoked_subcommand is not None:
        return OK
    click.echo(context.get_help(), err=True)
    return USAGE_ERROR


@penstock.command(epilog=STATUSES, short_help="Ask a model.")
@click.argument("prompt", required=False)
@click.option("-m", "--model", envvar="PENSTOCK_MODEL", help="provider/model, or a bare name such as gpt-4o.")
@click.option("-s", "--system", help="A system message to begin with.")
@click.option("--json", "as_json", is_flag=True, help="Each chunk as a line of JSON, the usage last.")
@click.option("--no-stream", is_flag=True, help="Wait for the whole answer.")
@click.option("--api-base", help="Base URL of a compatible server, as http://localhost:8000/v1.")
@click.option("--api-key", help="The key. Better in the provider's variable: other users see this command line.")
@click.option("--max-tokens", type=click.IntRange(1), help="Limit of the answer, in tokens.")
@click.option("--temperature", type=float, help="As the provider defines it.")
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), help="Seconds for the first token and each silence."
)
def chat(
    prompt: str | None, model: str | None, as_json: bool, no_stream: bool, system: str | None, **given: Any
) -> int:
    """Ask a model; its answer appears as it arrives, its usage after it on standard error.

    Without PROMPT it is read from standard input; at a terminal a conversation begins (Ctrl-D ends it). PENSTOCK_MODEL
    is the model if none is given.
    """
    if model is None:
        model = BUILT_IN
        talk.remark(f"no --model and no PENSTOCK_MODEL: this is {BUILT_IN}, the built-in local upstream")
    talker = talk.Talker(
        model=model,
        system=system,
        as_json=as_json,
        stream=not no_stream,
        options={name: value for name, value in given.items() if value is not None},
    )
    if prompt is None and sys.stdin.isatty():
        return talker.converse()
    if prompt is None:
        prompt = sys.stdin.buffer.read().decode(errors="replace")
    if not prompt.strip():
        raise click.UsageError("the prompt is empty", click.get_current_context())
    return talker.ask(prompt)


@penstock.command(epilog=STATUSES, short_help="Ask a file of requests.")
@click.argument("requests", metavar="IN.jsonl", type=click.Path(exists=True, dir_okay=False))
@click.argument("output", metavar="OUT.jsonl", type=click.Path(dir_okay=False))
@click.option("-m", "--model", help="Asked for every row. Without it each row names its own.")
@click.option("--max-in-flight", type=click.IntRange(1), help="The most at once. Without it the best number is found.")
@click.option("--rpm", type=click.FloatRange(0, min_open=True), help="Requests a minute.")
@click.option("--tpm", type=click.FloatRange(0, min_open=True), help="Tokens a minute.")
@click.option("--ordered", is_flag=True, help="Results in the order of the rows.")
@click.option("--checkpoint", type=click.Path(dir_okay=False), help="Where to remember what is done.")
@click.option("--api-base", help="Base URL of a compatible server, as http://localhost:8000/v1.")
@click.option("--api-key", help="The key. Better in the provider's variable: other users see this command line.")
@click.option("--max-tokens", type=click.IntRange(1), help="Limit of each answer, in tokens, unless its row says one.")
@click.option("--temperature", type=float, help="As the provider defines it, unless the row says one.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), help="Seconds for each answer, retries included.")
@click.option("--max-retries", type=click.IntRange(0), help="Further attempts for each row; 5 by default.")
def bulk(requests: str, output: str, **given: Any) -> int:
    """Ask everything in a file of JSON Lines; OUT.jsonl gets a line for each row, as the answers come.

    A row is {"messages": [...]} or {"prompt": "..."} with parameters of its own, or one of OpenAI's batch format. What
    was interrupted, even killed, goes on when the same command is given again: OUT.jsonl.checkpoint knows what is done.
    """
    from .bulk import run as ask

    return ask(requests, output, **{name: value for name, value in given.items() if value is not None})


@penstock.command(epilog=STATUSES, short_help="List the providers.")
@click.argument("slug", required=False)
def providers(slug: str | None) -> None:
    """List the providers, or all that is known of one."""
    rows = list_providers()
    if slug is None:
        head = ("provider", "family", "base URL", "key", "bare names")
        shown = [
            (row["slug"], row["family"], _base(row), _shown(row["key_env"]), _shown(row["models"])) for row in rows
        ]
        talk.table(head, shown)
        return
    row = next((row for row in rows if slug in (row["slug"], *row["aliases"])), None)
    if row is None:
        reason = f"{slug} is not served: {NOT_SERVED[slug]}" if slug in NOT_SERVED else f"no provider {slug!r}"
        raise click.UsageError(f"{reason}. {advice.nearest(slug)}", click.get_current_context())
    known = [(name, _shown(value)) for name, value in {**row, "base_url": _base(row)}.items()]
    talk.table(("field", "value"), [(name, value) for name, value in known if value])


def _base(row: Mapping[str, Any]) -> str:
    if row["needs_api_base"]:
        return " or ".join(("api_base", *row["base_env"]))
    return row["base_url"] or "known at the call"


def _shown(value: Any) -> str:
    """A value for people: as few brackets and quotes as it takes."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return " ".join(f"{name}={text}" for name, each in value.items() if (text := _shown(each)))
    if isinstance(value, list):
        return ("; " if value and isinstance(value[0], dict) else ", ").join(_shown(each) for each in value)
    return "" if value is None else str(value)


def _keys() -> str:
    from ..replay.faults import KEYS

    forms = {name: f"{name}={key['form']}" if key["form"] else name for name, key in KEYS.items()}
    width = max(map(len, forms.values()))
    return "\n".join(["\b", "Keys:", *(f"  {forms[name]:{width}}  {key['about']}" for name, key in KEYS.items())])


REPLAY = """Serve the local upstream until Ctrl-C: authored cases, and recorded bodies under the names of their files.

\b
POST /v1/chat/completions   answers with the case that `model` names
GET /v1/models              the cases
GET /stats, DELETE /stats   what each caller did; forget it

What goes wrong follows a `?` in the model, or stands in the request header `x-replay`: `hello?delay=50&cut=finish`.
PLACE is a number of events (negative: from the end), `finish`, `finish+1`, `finish-2`.
"""


class _ReplayCommand(click.Command):
    """A command whose help ends with the grammar, read when it is asked for."""

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        self.epilog = f"{_keys()}\n{STATUSES}"
        super().format_epilog(context, formatter)


@penstock.command(cls=_ReplayCommand, help=REPLAY, short_help="Serve the local upstream.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on. Nobody is asked for a key.")
@click.option("--port", default=8765, show_default=True, type=click.IntRange(0, 65535), help="0: any free one.")
@click.argument(
    "bodies", metavar="[BODY.sse ...]", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
def replay(host: str, port: int, bodies: tuple[Path, ...]) -> int:
    """Serve the local upstream until Ctrl-C."""
    from ..replay import Upstream

    try:
        upstream = Upstream(host=host, port=port, bodies=bodies).start()
    except OSError as error:
        advice.say(f"{host}:{port}: {error.strerror}", "--port 0 takes any free port, --host another address.")
        return USAGE_ERROR
    with upstream:
        click.echo(upstream.base_url)
        talk.remark("Ctrl-C stops it. Cases:")
        talk.remark("  " + ", ".join(upstream.names()))
        while True:
            # A signal that comes in the moment before a sleep begins does not end it: so it is not a long one.
            time.sleep(0.5)


@penstock.command(epilog=STATUSES)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 100), help="Turns that each one gets.")
@click.option("--json", "as_json", is_flag=True, help="Every figure, as JSON.")
def bench(rounds: int, as_json: bool) -> None:
    """Measure the parser and the calls on this machine, against a local upstream."""
    from . import bench as benchmark

    result = benchmark.run(rounds)
    if as_json:
        click.echo(benchmark.as_json(result))
        return
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    talk.remark(f"{result['machine']}, Python {result['python']}, {versions}; {rounds} rounds")
    for part in ("parser", "http"):
        talk.table((f"{part}: us of CPU per chunk", "median", "range", "speed"), benchmark.rows(result[part]))


for command in (keys.keys, *keys.keys.commands.values(), keys.spend, proxy.proxy):
    command.epilog = STATUSES
penstock.add_command(keys.keys)
penstock.add_command(keys.spend)
penstock.add_command(proxy.proxy)
