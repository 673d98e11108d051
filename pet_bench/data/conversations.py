"""Conversations about images, in the forms that people train on, as turns of questions and answers.

    LLaVA       {"id", "image": path or paths, "conversations": [{"from": "human" | "gpt" | "system", "value"}]}
    TRL         {"images": paths, "messages": [{"role": "user" | "assistant" | "system", "content"}]}, the content being
                text or a list of {"type": "text", "text"} and {"type": "image"}
    prompts     {"image" or "images", "prompt", "completion"}, each text or such messages

LLaMA-Factory's are the first two under either name. Where images stand in a text (`<image>`) is not kept: what reads it
has its own place for them. They must be as many as there are images, if any is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple, NotRequired

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from pet_bench.data.rows import Id, Text, conforming

IMAGE = re.compile(r"[ \t]*<image>[ \t]*\n?")
ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}


class Part(TypedDict):
    type: Literal["text", "image"]
    text: NotRequired[str | None]
    index: NotRequired[int | None]


class Message(TypedDict):
    role: Literal["system", "user", "assistant"]
    content: str | list[Part]


Said = TypedDict("Said", {"from": Literal["human", "gpt", "user", "assistant", "system"], "value": str})


class Row(TypedDict):
    id: NotRequired[Id]
    image: NotRequired[Text | list[Text] | None]
    images: NotRequired[Text | list[Text] | None]
    conversations: NotRequired[list[Said]]
    messages: NotRequired[list[Message]]
    prompt: NotRequired[str | list[Message]]
    completion: NotRequired[str | list[Message]]


class Turn(NamedTuple):
    question: str
    answer: str


class Conversation(NamedTuple):
    """id: None where the row has none. system: what stands before the first turn."""

    id: str | None
    images: tuple[str, ...]
    system: str
    turns: tuple[Turn, ...]


ADAPTER = TypeAdapter(Row)
FORMS = ("conversations", "messages", "prompt")


def conversation(where: str, row: Any) -> tuple[list[str], Conversation | None]:
    """What is wrong with a row, a line each that begins with `where`; if nothing is, what it says."""
    known = {key: row[key] for key in Row.__annotations__ if key in row} if isinstance(row, dict) else row
    faults, valid = conforming(where, known, ADAPTER)
    if faults:
        return faults, None
    images, said = _images(valid), [*_wrong(valid)]
    if said:
        return [f"{where}: {line}" for line in said], None
    messages = [*_messages(valid)]
    named = sum(marks for *_, marks in messages)
    system = messages.pop(0)[1] if messages and messages[0][0] == "system" else ""
    for place, (role, text, _) in enumerate(messages):
        expected = ("user", "assistant")[place % 2]
        if role != expected:
            said.append(f"message {place + 1} is the {role}'s, expected the {expected}'s")
            break
        if not text:
            said.append(f"message {place + 1} is empty")
    if not said and (not messages or len(messages) % 2):
        said.append("the last message is the user's, expected an answer" if messages else "there are no messages")
    if named and named != len(images):
        said.append(f"<image> stands in it {named} times, and there are {len(images)} images")
    said += [f"image {one!r} leads out of its folder" for one in images if not _inside(one)]
    if said:
        return [f"{where}: {line}" for line in said], None
    texts = [text for _, text, _ in messages]
    turns = tuple(map(Turn, texts[::2], texts[1::2]))
    return [], Conversation(str(valid["id"]) if "id" in valid else None, tuple(images), system, turns)


def _images(row: Row) -> list[str]:
    either = row.get("images") or row.get("image") or []
    return [either] if isinstance(either, str) else either


def _wrong(row: Row) -> Iterator[str]:
    forms = [key for key in FORMS if key in row]
    if len(forms) != 1:
        yield f"a row has one of {', '.join(FORMS)}, found {', '.join(forms) or 'none'}"
    if ("prompt" in row) != ("completion" in row):
        yield "prompt and completion go together"
    if row.get("image") and row.get("images"):
        yield "a row has image or images, found both"


def _messages(row: Row) -> Iterator[tuple[str, str, int]]:
    """Role, text without the places of images, and how many of these there were."""
    if "conversations" in row:
        for one in row["conversations"]:
            yield ROLES[one["from"]], *_text(one["value"])
        return
    for key, role in (("messages", ""), ("prompt", "user"), ("completion", "assistant")):
        content = row.get(key, [])
        for one in [Message(role=role, content=content)] if isinstance(content, str) else content:  # type: ignore
            parts = one["content"]
            text = parts if isinstance(parts, str) else "\n".join(part.get("text") or "" for part in parts)
            marks = 0 if isinstance(parts, str) else sum(part["type"] == "image" for part in parts)
            said, within = _text(text)
            yield one["role"], said, marks + within


def _text(text: str) -> tuple[str, int]:
    said, marks = IMAGE.subn("\n", text)
    return said.strip(), marks


def _inside(path: str) -> bool:
    return not path.startswith(("/", ".")) and "\\" not in path and ".." not in PurePosixPath(path).parts
