"""Talking to a model at a terminal or through pipes: standard output is the answer and nothing else."""

import io
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ..errors import APIError, BadRequestError

if TYPE_CHECKING:
    from .._native import ChatCompletion, CompletionUsage
    from ..stream import Stream

# What a model writes must not steer the terminal: control characters but tab and line feed are shown, not obeyed.
_TAME = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | dict.fromkeys(range(127, 160), 0xFFFD)


def tame(text: str) -> str:
    """The text without the characters that a terminal obeys."""
    return text.translate(_TAME)


def remark(text: str) -> None:
    """Print a line on standard error, dimmed."""
    click.echo(click.style(text, dim=True), err=True)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: for people at a terminal, with tabs and without a head for programs."""
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    shown = Table(*head, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        shown.add_row(*row)
    Console(highlight=False, markup=False).print(shown)


class Paper:
    """Standard output, onto which an answer is written as it comes."""

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty()
        self._thinking = False
        self._last = ""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal without Unicode gets question marks, not an error

    def think(self, text: str) -> None:
        """Show a piece of the reasoning, dimmed; a pipe gets none of it."""
        if self.terminal and text:
            self._thinking = True
            self._write(text, dim=True)

    def say(self, text: str) -> None:
        """Write a piece of the answer."""
        if text:
            if self._thinking:
                self._thinking = False
                self._write("\n\n" if self._last != "\n" else "\n")
            self._write(text)

    def line(self, text: str) -> None:
        """Write a whole line, as it is."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def end(self) -> None:
        """End the last line, if it is not."""
        self._thinking = False
        if self._last not in ("", "\n"):
            self._write("\n")
        self._last = ""

    def _write(self, text: str, *, dim: bool = False) -> None:
        self._last = text[-1]
        if self.terminal:
            click.echo(click.style(tame(text), dim=True) if dim else tame(text), nl=False)
        else:
            sys.stdout.write(text)
            sys.stdout.flush()


class Talker:
    """One model, asked once or in a conversation.

    Args:
        model: as `completion` takes it.
        system: the system message, if any.
        as_json: print chunks, or the response, as lines of JSON.
        stream: whether to stream.
        options: further arguments of `completion`.
    """

    def __init__(self, *, model: str, system: str | None, as_json: bool, stream: bool, options: dict[str, Any]) -> None:
        self.model = model
        self.as_json = as_json
        self.stream = stream
        self.options = options
        self.messages: list[Any] = [{"role": "system", "content": system}] if system else []
        self.paper = Paper()

    def ask(self, prompt: str) -> int:
        """Ask once.

        Returns the exit status: 0, 1 after an error of the API, 2 if the request was refused here, 130 after Ctrl-C.
        """
        from .advice import complain

        self.messages.append({"role": "user", "content": prompt})
        try:
            finished = self._streamed() if self.stream else self._whole()
        except APIError as error:
            self.messages.pop()
            self.paper.end()
            if error.usage is not None:
                remark(describe(error.usage))
            complain(error, self.model, self.options.get("api_base"))
            return 2 if isinstance(error, BadRequestError) and error.status_code is None else 1
        except KeyboardInterrupt:
            # Before the first token, or without streaming: there is nothing to show.
            self.messages.pop()
            remark("interrupted")
            return 130
        return 0 if finished else 130

    def converse(self) -> int:
        """Ask again and again, until Ctrl-D. Ctrl-C stops an answer, and at the prompt everything."""
        import contextlib

        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  gives `input` its line editing

        remark(f"{self.model}: Ctrl-C stops an answer, Ctrl-D ends the conversation")
        while True:
            try:
                prompt = input("> ") if self.paper.terminal else _input()
            except EOFError:
                click.echo(err=True)
                return 0
            except KeyboardInterrupt:
                click.echo(err=True)
                return 130
            if prompt.strip():
                self.ask(prompt)

    def _streamed(self) -> bool:
        """Stream an answer onto the paper; whether it came to its end."""
        from .. import completion

        stream = completion(
            self.model, self.messages, stream=True, stream_options={"include_usage": True}, **self.options
        )
        with stream:
            try:
                self._write(stream)
                finished = True
            except KeyboardInterrupt:
                finished = False
        self.paper.end()
        if not finished:
            remark("interrupted")
        timings = stream.timings
        notes = []
        if timings.to_first_token is not None:
            notes.append(f"first token after {timings.to_first_token:.2f} s")
        if timings.tokens_per_second is not None:
            notes.append(f"{timings.tokens_per_second:.0f} tokens/s")
        self._close(stream.collect() if finished else None, stream.usage, notes)
        return finished

    def _write(self, stream: "Stream") -> None:
        for chunk in stream:
            if self.as_json:
                self.paper.line(chunk.model_dump_json())
                continue
            for choice in chunk.choices:
                if choice.index == 0:
                    self.paper.think(choice.delta.reasoning_content or "")
                    self.paper.say(choice.delta.content or choice.delta.refusal or "")

    def _whole(self) -> bool:
        """Ask without streaming."""
        from .. import completion

        started = time.monotonic()
        response = completion(self.model, self.messages, **self.options)
        if self.as_json:
            self.paper.line(response.model_dump_json())
        else:
            message = response.choices[0].message
            self.paper.think(message.reasoning_content or "")
            self.paper.say(message.content or message.refusal or "")
            self.paper.end()
        self._close(response, response.usage, [f"{time.monotonic() - started:.2f} s"])
        return True

    def _close(self, response: "ChatCompletion | None", usage: "CompletionUsage | None", notes: list[str]) -> None:
        """Remember the answer, and print what there is to say about it."""
        if response is None:
            self.messages.pop()
        else:
            message = response.choices[0].message
            self.messages.append({"role": "assistant", "content": message.content or ""})
            for call in message.tool_calls or ():
                if not self.as_json and call.function is not None:
                    remark(tame(f"calls {call.function.name}({call.function.arguments})"))
        if not self.as_json or response is None:
            remark(", ".join([describe(usage), *notes]))


def _input() -> str:
    click.echo("> ", nl=False, err=True)
    return input()


def describe(usage: "CompletionUsage | None") -> str:
    """The usage in a line: `19 prompt (8 cached) + 87 completion (41 reasoning) tokens`."""
    if usage is None:
        return "no usage reported"
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    cached = prompt.cached_tokens if prompt is not None else None
    reasoning = completion.reasoning_tokens if completion is not None else None
    parts = [
        f"{_count(usage.prompt_tokens)} prompt" + (f" ({cached} cached)" if cached else ""),
        f"{_count(usage.completion_tokens)} completion" + (f" ({reasoning} reasoning)" if reasoning else ""),
    ]
    return " + ".join(parts) + " tokens" + ("" if usage.complete else " so far")


def _count(tokens: int | None) -> str:
    return "?" if tokens is None else str(tokens)
