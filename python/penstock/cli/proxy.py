"""`penstock proxy`: the gateway, from a config file or for models alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from . import advice, talk

if TYPE_CHECKING:
    from ..gateway.compile import Compiled
    from ..gateway.config import Problem
    from ..gateway.serve import Options

OK, API_ERROR, USAGE_ERROR = 0, 1, 2


@click.command(short_help="Serve an OpenAI-compatible proxy.")
@click.option("-c", "--config", type=click.Path(dir_okay=False), help="A YAML file in litellm's shape.")
@click.option("-m", "--model", "models", multiple=True, help="provider/model, without a file; may be repeated.")
@click.option("--host", help="Where to listen. Default: everywhere with a master key, this machine alone without one.")
@click.option("--port", type=click.IntRange(0, 65535), default=4000, show_default=True, help="0 takes a free one.")
@click.option("--workers", type=click.IntRange(1, 1024), help="Threads that serve. Default: one for each processor.")
@click.option("--ssl-certfile", type=click.Path(dir_okay=False), help="The certificate chain, in PEM: serves https.")
@click.option("--ssl-keyfile", type=click.Path(dir_okay=False), help="Its key, in PEM.")
@click.option("--check", is_flag=True, help="Show what would be served and all that is wrong, and serve nothing.")
@click.option("--allow-unauthenticated", is_flag=True, help="Serve other machines though there is no master key.")
@click.option("--detailed_debug", "--detailed-debug", "--debug", is_flag=True, hidden=True)
def proxy(
    config: str | None,
    models: Sequence[str],
    ssl_certfile: str | None,
    ssl_keyfile: str | None,
    check: bool,
    detailed_debug: bool,
    **given: Any,
) -> int:
    """Serve models to any client of OpenAI's API: keys, limits, fallbacks, spend.

    SIGTERM and Ctrl-C let requests under way end; SIGHUP reads the config anew. docs/proxy.md has examples.
    """
    context = click.get_current_context()
    if (config is None) == (not models):
        what = "it is --config or --model, not both" if models else "nothing to serve: --config FILE, or --model NAME"
        raise click.UsageError(what, context)
    if "" in models:
        raise click.UsageError("--model '' names no model", context)
    if (ssl_certfile is None) != (ssl_keyfile is None):
        raise click.UsageError("--ssl-certfile and --ssl-keyfile belong together", context)
    try:
        from ..gateway import serve
    except ModuleNotFoundError as error:
        if error.name != "yaml":
            raise
        advice.say(f"the proxy needs {error.name}, which is not installed.", 'pip install "penstock[proxy]"')
        return USAGE_ERROR
    if detailed_debug:
        talk.remark("--debug has no effect: each request is a line on standard output, each error says what was tried")
    cert = None if ssl_certfile is None or ssl_keyfile is None else (ssl_certfile, ssl_keyfile)
    options = serve.Options(config=config, models=tuple(models), cert=cert, **given)
    try:
        return _check(options) if check else serve.run(options)
    except serve.ConfigError as error:
        _list(error.problems)
        wrong = sum(problem.level == "error" for problem in error.problems)
        advice.say(f"{wrong} error{'s' if wrong > 1 else ''} in the config.", "docs/proxy-config.md has every key.")
        return USAGE_ERROR
    except serve.RefusedError as error:
        advice.say(error.what, error.advice)
        return API_ERROR


def _list(problems: "Sequence[Problem]") -> None:
    for problem in problems:
        click.echo(click.style(str(problem), fg="red" if problem.level == "error" else "yellow"), err=True)


def _check(options: "Options") -> int:
    """Shows what would be served."""
    from ..gateway import serve

    config, compiled = serve.load(options)
    _list(config.problems)
    serve.gateway_of(options, compiled)  # what it cannot take is wrong too
    talk.table(("model", "deployment", "asks", "at", "by", "price"), _lines(compiled))
    for alias, name in compiled.aliases.items():
        talk.remark(f"{alias} is {name}")
    refusals = list(serve.refusals(options, compiled))
    for refusal in refusals:
        advice.say(refusal.what, refusal.advice)
    if refusals:
        return API_ERROR
    where = serve.address(options, compiled)
    keyed = "with a master key" if compiled.settings["master_key"] is not None else "without a master key"
    talk.remark(f"it would listen on {where}:{options.port}, {keyed}")
    return OK


def _lines(compiled: "Compiled") -> list[tuple[str, ...]]:
    return [
        (
            line.group,
            line.id,
            f"{line.provider}/{line.model}",
            line.host,
            "the native module" if line.plain else "the planner",
            "known" if line.priced else "",
        )
        for line in compiled.served
    ]
