"""Conversations as one text, for models that continue a text and know no messages."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import BadRequestError
from . import plain_data


class Template(NamedTuple):
    """How the turns of a conversation stand in the text.

    Attributes:
        user, assistant: a turn, with `{text}`.
        answer: what stands before the answer that is asked for.
        system: the same for instructions; None where they stand before the text of the next user's turn.
        begin: what stands before everything.
        bare: whether the one turn of a user alone is the whole text, as it is.
    """

    user: str
    assistant: str
    answer: str
    system: str | None = None
    begin: str = ""
    bare: bool = False


TEMPLATES: Mapping[str, Template] = {
    # Where nothing is documented: roles as words, and no more than the text where there is nobody to tell apart.
    "plain": Template("User: {text}\n\n", "Assistant: {text}\n\n", "Assistant:", "{text}\n\n", bare=True),
    "titan": Template("User: {text}\n", "Bot: {text}\n", "Bot:", "{text}\n"),
    "inst": Template("[INST] {text} [/INST]", " {text}</s>", "", begin="<s>"),
    "llama3": Template(
        "<|start_header_id|>user<|end_header_id|>\n\n{text}<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n{text}<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|start_header_id|>system<|end_header_id|>\n\n{text}<|eot_id|>",
        "<|begin_of_text|>",
    ),
    "llama4": Template(
        "<|header_start|>user<|header_end|>\n\n{text}<|eot|>",
        "<|header_start|>assistant<|header_end|>\n\n{text}<|eot|>",
        "<|header_start|>assistant<|header_end|>\n\n",
        "<|header_start|>system<|header_end|>\n\n{text}<|eot|>",
        "<|begin_of_text|>",
    ),
}


def prompt(template: str, messages: Sequence[Any]) -> str:
    """The conversation as the text that the model goes on with.

    Raises:
        BadRequestError: a message that is no text, or of a role that has no place in it.
    """
    form = TEMPLATES[template]
    turns = [(_role(message), _text(message)) for message in plain_data(messages)]
    if form.bare and len(turns) == 1 and turns[0][0] == "user":
        return turns[0][1]
    said, before = [form.begin], ""
    for role, text in turns:
        if role == "system" and form.system is None:
            before += text + "\n\n"
        elif role == "user":
            said.append(form.user.replace("{text}", before + text))
            before = ""
        else:
            said.append((form.system or "" if role == "system" else form.assistant).replace("{text}", text))
    if before:
        said.append(form.user.replace("{text}", before.rstrip()))
    return "".join(said) + form.answer


def _role(message: Mapping[str, Any]) -> str:
    role = message.get("role")
    if role in ("system", "developer"):
        return "system"
    if role not in ("user", "assistant"):
        raise BadRequestError(
            f"messages: a model that continues a text has no place for one of role {role!r}", param="messages"
        )
    return str(role)


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    for part in content:
        if part.get("type") != "text":
            raise BadRequestError(
                f"messages: a model that continues a text has no place for content of type {part.get('type')!r}",
                param="messages",
            )
    return "".join(part["text"] for part in content)
