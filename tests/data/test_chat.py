"""Conversations of people's own: each form says the same, damage is said by row, and they go from files to a table."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pet_bench.data.albums import Albums
from pet_bench.data.conversations import Conversation, Turn, conversation
from pet_bench.data.task import FEATURES
from pet_bench.errors import UserError
from pet_bench.registry import TASKS
from tests.data import hub_layouts as hub
from tests.data.roots import grid
from tests.data.test_hub_convert import command, convert, options, run, shown

LLAVA = {
    "id": "7",
    "image": "a/1.jpg",
    "conversations": [
        {"from": "human", "value": "<image>\nWhat is it?"},
        {"from": "gpt", "value": "A cat."},
        {"from": "human", "value": "Where?"},
        {"from": "gpt", "value": "On a mat."},
    ],
}
TURNS = (Turn("What is it?", "A cat."), Turn("Where?", "On a mat."))


def said(role, text, images=0):
    return {"role": role, "content": [{"type": "image"}] * images + [{"type": "text", "text": text}]}


MESSAGES = [
    said("user", "What is it?", 1),
    said("assistant", "A cat."),
    said("user", "Where?"),
    said("assistant", "On a mat."),
]
PLAIN = [{"role": one["role"], "content": one["content"][-1]["text"]} for one in MESSAGES]
FORMS = {
    "LLaVA": LLAVA,
    "TRL, parts": {"id": 7, "images": ["a/1.jpg"], "messages": MESSAGES},
    "TRL, texts": {"id": "7", "images": "a/1.jpg", "messages": PLAIN, "source": "not read"},
    "prompts": {"id": "7", "image": ["a/1.jpg"], "prompt": MESSAGES[:3], "completion": MESSAGES[3:]},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_the_same(form):
    assert conversation("here", FORMS[form]) == ([], Conversation("7", ("a/1.jpg",), "", TURNS))


def test_a_prompt_and_a_completion_may_be_texts():
    row = {"image": "1.jpg", "prompt": "What? <image>", "completion": "A cat."}
    assert conversation("here", row) == ([], Conversation(None, ("1.jpg",), "", (Turn("What?", "A cat."),)))


def test_a_system_message_stands_first():
    row = LLAVA | {"conversations": [{"from": "system", "value": "Be brief."}, *LLAVA["conversations"]]}
    assert conversation("here", row)[1] == Conversation("7", ("a/1.jpg",), "Be brief.", TURNS)


HUMAN, GPT = LLAVA["conversations"][:2]
DAMAGE = [
    (7, "row 1: Input should be a valid dictionary, found 7"),
    ({"image": "a.jpg"}, "a row has one of conversations, messages, prompt, found none"),
    (LLAVA | {"messages": PLAIN}, "a row has one of conversations, messages, prompt, found conversations, messages"),
    ({"prompt": "a"}, "prompt and completion go together"),
    (LLAVA | {"images": ["b.jpg"]}, "a row has image or images, found both"),
    (LLAVA | {"id": 1.5}, "id"),
    (LLAVA | {"image": 3}, "image"),
    (LLAVA | {"image": "/etc/passwd.jpg"}, "image '/etc/passwd.jpg' leads out of its folder"),
    (LLAVA | {"image": "a/../../b.jpg"}, "image 'a/../../b.jpg' leads out of its folder"),
    (LLAVA | {"image": "..\\b.jpg"}, "leads out of its folder"),
    (LLAVA | {"conversations": []}, "there are no messages"),
    (LLAVA | {"conversations": [HUMAN]}, "the last message is the user's, expected an answer"),
    (LLAVA | {"conversations": [GPT, HUMAN]}, "message 1 is the assistant's, expected the user's"),
    (LLAVA | {"conversations": [HUMAN, HUMAN]}, "message 2 is the user's, expected the assistant's"),
    (LLAVA | {"conversations": [HUMAN, {"from": "gpt", "value": " "}]}, "message 2 is empty"),
    (LLAVA | {"conversations": [{"from": "human", "value": "<image>\n"}, GPT]}, "message 1 is empty"),
    (LLAVA | {"conversations": [{"from": "bot", "value": "x"}]}, "conversations.row 0.from"),
    (LLAVA | {"conversations": [{"from": "human"}]}, "conversations.row 0.value is missing"),
    (LLAVA | {"conversations": [{"from": "human", "value": None}]}, "conversations.row 0.value is null"),
    (LLAVA | {"image": None}, "<image> stands in it 1 times, and there are 0 images"),
    (LLAVA | {"image": ["a.jpg", "b.jpg"]}, "<image> stands in it 1 times, and there are 2 images"),
    ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages.row 0.content"),
]


@pytest.mark.parametrize(("row", "expected"), DAMAGE, ids=lambda value: str(value)[-50:])
def test_damage_is_said_by_row(row, expected, tmp_path):
    (tmp_path / "train.json").write_text(json.dumps([LLAVA, row]))
    with pytest.raises(UserError) as error:
        TASKS.get("chat")(images=2).examples(tmp_path, "train")
    where = f"chat: {tmp_path / 'train.json'}"
    assert any(line.startswith(where) and expected in line for line in error.value.faults), error.value.faults
    if isinstance(row, dict):
        assert all(line.startswith(f"{where}: row 1: ") for line in error.value.faults)


def test_one_file_of_a_name(tmp_path):
    (tmp_path / "train.json").write_text("[]")
    (tmp_path / "train.jsonl").write_text("")
    with pytest.raises(UserError, match=r"train\.jsonl and train\.json are both there; leave one of them"):
        TASKS.get("chat")().examples(tmp_path, "train")


def write(folder, split, rows, lines=False):
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)
    (folder / f"{split}.{'jsonl' if lines else 'json'}").write_text(text)


@pytest.mark.parametrize("lines", [False, True])
def test_all_turns_are_trained_and_the_last_is_tested(lines, tmp_path):
    for split in ("train", "test"):
        write(tmp_path / "chat", split, [LLAVA | {"id": f"{split}7"}], lines)
    task = TASKS.get("chat")(prompt="chat: ")
    first, second = task.examples(tmp_path, "train")
    assert (first.id, first.text, first.targets) == ("train7-0", "chat: What is it?", (("A cat.", 1.0),))
    assert second.text == "chat: user: What is it? assistant: A cat. user: Where?"
    assert second.text[slice(*second.spare)] == "user: What is it? assistant: A cat."
    (tested,) = task.examples(tmp_path, "test")
    assert (tested.id, tested.text, tested.targets) == ("test7-1", second.text, (("On a mat.", 1.0),))
    assert task.score({"test7-1": "On a mat."}, [tested]).values["accuracy"] == 100.0
    assert TASKS.get("chat")(scorer="cider").metrics()[0].name == "cider"


def test_more_images_than_are_asked_for(tmp_path):
    row = {"images": ["1.jpg", "2.jpg"], "messages": PLAIN[:2]}
    write(tmp_path, "test", [row])
    with pytest.raises(UserError, match=r"row 0: it has 2 images, at most 1 \(--set chat\.images=2\)"):
        TASKS.get("chat")().examples(tmp_path, "test")
    (example,) = TASKS.get("chat")(images=3).examples(tmp_path, "test")
    assert example.images == ("chat/1.jpg", "chat/2.jpg", "chat/.blank")


def test_an_image_that_is_not_there_is_zeros(tmp_path):
    write(tmp_path, "test", [{"messages": PLAIN[:2]}])
    path = tmp_path / FEATURES / "a" / "1.h5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file["1/features"] = np.ones((49, 2048), np.float16)
    task = TASKS.get("chat")()
    assert (task.feature(tmp_path, "chat/a/1.jpg") == 1).all()
    assert np.array_equal(task.feature(tmp_path, "chat/.blank"), np.zeros((49, 2048)))
    folder, name = task.picture(tmp_path, "chat/.blank")
    assert not np.asarray(Image.open(Albums().find(folder, name).file).convert("RGB")).any()


# from files, and from the hub's tables, to a table -------------------------------------------------------------------


def test_own_pictures_by_path(tmp_path, capsys):
    root = tmp_path / "mine"
    (root / "images" / "a").mkdir(parents=True)
    for number in range(6):
        Image.new("RGB", (20, 16), (40 * number, 0, 0)).save(root / "images" / "a" / f"{number}.png")
    rows = [LLAVA | {"id": str(number), "image": f"a/{number}.png"} for number in range(4)]
    write(root, "train", [*rows, {"id": "text", "messages": PLAIN}])
    write(root, "test", [{"images": ["a/4.png", "a/5.png"], "messages": PLAIN[:2]}], lines=True)
    more = "--set", "chat.valid=none", "--set", "recipe.valid_every=0", "--set", "chat.images=2"
    assert "chat: accuracy on test, 1 examples" in run(root, tmp_path, capsys, "chat", "mini-llava", *more)


def test_own_features(tmp_path, capsys):
    """Beside conversations with an image or two, some have none: zeros in the shape of the others."""
    root = tmp_path / "mine"
    for number in range(4):
        grid(root, ".", f"{number}", float(number))
    rows = [LLAVA | {"id": f"{number}", "image": f"{number}.jpg"} for number in range(3)]
    write(root, "train", [*rows, {"id": "two", "images": ["0.jpg", "1.jpg"], "messages": PLAIN}])
    write(root, "test", [{"id": f"{number}", "messages": PLAIN, "images": ["3.jpg"] * number} for number in range(2)])
    more = "--set", "chat.valid=none", "--set", "chat.images=2", "--set", "chat.max_length=8"
    assert not command("data", "check", root, "--suite", "chat", *more)
    text = run(root, tmp_path, capsys, "chat", "mini-bart", *more)
    assert "a run would go through" in text and "chat: accuracy on test, 2 examples" in text


MESSAGE = pa.struct(
    [("role", hub.S), ("content", pa.list_(pa.struct([("index", hub.I64), ("text", hub.S), ("type", hub.S)])))]
)
TRL = pa.schema({"messages": pa.list_(MESSAGE), "images": pa.list_(hub.IMAGE)})


def trl(number, question="What is it?", images=1):
    parts = [{"index": place, "text": None, "type": "image"} for place in range(images)]
    asked = [*parts, {"index": None, "text": question, "type": "text"}]
    answer = [{"index": None, "text": f"red {number}", "type": "text"}]
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "images": [hub.picture(10 * number + place) for place in range(images)]}


def test_trls_messages_with_embedded_pictures(tmp_path, capsys):
    copy, root = tmp_path / "copy", tmp_path / "root"
    hub.shards(copy / "data", "train", TRL, [trl(number) for number in range(5)], count=2)
    hub.shards(copy / "data", "test", TRL, [trl(number) for number in (7, 8)])
    assert not convert(copy, root, "--task", "chat")
    more = options(capsys.readouterr().out, "chat")
    assert more == ["--set", "chat.valid=none"]
    task = TASKS.get("chat")()
    trained = task.examples(root, "train")
    assert [example.targets[0][0] for example in trained] == [f"red {number}" for number in range(5)]
    assert shown(root, task, trained[3]) == [hub.picture(30)["bytes"]]
    text = run(root, tmp_path, capsys, "chat", "mini-llava", *more, "--set", "recipe.valid_every=0")
    assert "chat: accuracy on test, 2 examples" in text


def test_turns_of_finevision(tmp_path, capsys):
    """Without a test split a part of the training images is tested."""
    rows = [
        dict.fromkeys(hub.FINEVISION.names)
        | {
            "images": [hub.picture(number)],
            "texts": [{"user": f"What is {turn}?", "assistant": f"{number}"} for turn in range(2)],
            "source": "chartqa",
        }
        for number in range(20)
    ]
    hub.shards(tmp_path / "copy" / "chartqa", "train", hub.FINEVISION, rows)
    assert not convert(tmp_path / "copy", tmp_path / "root", "--task", "chat")
    said = options(capsys.readouterr().out, "chat")
    protocol = dict(setting.removeprefix("chat.").split("=", 1) for setting in said[1::2])
    assert protocol == {"valid": "none", "train": "train[:95%]", "test": "train[95%:]"}
    task = TASKS.get("chat")(**protocol)
    assert len(task.examples(tmp_path / "root", "train")) == 38
    (tested,) = task.examples(tmp_path / "root", "test")
    assert tested.text == "user: What is 0? assistant: 19 user: What is 1?"


def test_such_tables_are_chats_where_this_is_asked_for(tmp_path, capsys):
    hub.shards(tmp_path / "copy", "train", TRL, [trl(0)])
    assert convert(tmp_path / "copy", tmp_path / "root") == 2
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (trl(1) | {"images": []}, "row 1: <image> stands in it 1 times, and there are 0 images"),
        (trl(1, question=""), "row 1: message 1 is empty"),
        (trl(1) | {"messages": None}, "row 1: messages is null"),
        (trl(1) | {"images": None}, "row 1: images is null"),
    ],
)
def test_damage_in_a_table(row, expected, tmp_path, capsys):
    hub.shards(tmp_path / "copy", "train", TRL, [trl(0), row])
    assert convert(tmp_path / "copy", tmp_path / "root", "--task", "chat") == 2
    said = capsys.readouterr().err
    assert f"chat: {tmp_path / 'copy' / 'train-00000-of-00001.parquet'}: {expected}" in said
    assert not (tmp_path / "root").exists()
