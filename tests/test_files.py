"""Files are read strictly, one way for each kind, and written whole."""

from __future__ import annotations

import itertools
import json
import sys
from functools import partial

import pytest
import torch
import yaml
from safetensors.torch import save_file

from pet_bench.errors import UserError
from pet_bench.files import (
    BOM,
    dump_yaml,
    filling,
    is_file,
    is_folder,
    parse_json,
    parse_yaml,
    read_json,
    read_text,
    read_yaml,
    replacing,
    write_text,
)

READERS = {"text": read_text, "json": read_json, "yaml": read_yaml}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"


def said(read, *arguments):
    with pytest.raises(UserError) as caught:
        read(*arguments, "the file")
    (line,) = caught.value.faults
    assert line.startswith("the file")
    return line


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize(
    ("content", "part"),
    [
        (POINTER, "is a Git LFS pointer"),
        (BOM + POINTER, "is a Git LFS pointer"),
        (b"\n<!DOCTYPE html>\n<html>", "is a web page"),
        (b"<HTML lang=en>", "is a web page"),
        (b'"caf\xe9"', "is not UTF-8 text: byte 4 is 0xe9"),
        ('"x"'.encode("utf-16"), "is not UTF-8 text: byte 0 is 0xff"),
    ],
)
def test_what_no_reader_takes(tmp_path, kind, content, part):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert part in said(READERS[kind], path)


@pytest.mark.parametrize("kind", READERS)
def test_what_is_no_file(tmp_path, kind):
    assert said(READERS[kind], tmp_path / "no").endswith("is missing")
    assert "cannot be read" in said(READERS[kind], tmp_path)
    assert "cannot be read" in said(READERS[kind], tmp_path / ("n" * 300))
    assert "cannot be read" in said(READERS[kind], tmp_path / "a\0b")


@pytest.mark.parametrize("kind", READERS)
def test_a_byte_order_mark_is_no_text(tmp_path, kind):
    path = tmp_path / "file"
    path.write_bytes(BOM + '["é"]'.encode())
    assert READERS[kind](path, "the file") == ('["é"]' if kind == "text" else ["é"])


@pytest.mark.parametrize("name", ["n" * 300, f"a/{'é' * 200}/b", "a\0b", "a/" * 3000])
def test_names_that_nothing_can_have(tmp_path, name):
    assert not is_file(tmp_path / name)
    assert not is_folder(name)


def test_what_is_there(tmp_path):
    (tmp_path / "file").touch()
    assert (is_file(tmp_path / "file"), is_folder(tmp_path / "file")) == (True, False)
    assert (is_file(tmp_path), is_folder(str(tmp_path))) == (False, True)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "key 'c' is given twice"),
        ("[NaN]", "no number, found nan"),
        ("[-Infinity]", "no number, found -inf"),
        ("[1e999]", "no number, found inf"),
        (f"[{'3' * 65}]", "an integer of 65 digits"),
        ('["\\ud83d"]', "half of a surrogate pair"),
        ('{"\\udc00": 1}', "half of a surrogate pair"),
        ("[" * 65 + "]" * 65, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"a": 1', "half-written?"),
        ("", "half-written?"),
        ("{} {}", "half-written?"),
    ],
)
def test_json_to_the_letter(text, part):
    assert part in said(parse_json, text)
    assert part in said(parse_json, text.encode())


def test_json_as_it_is():
    data = {"a": [1, -2.5e-3, True, None, "é😀", {"b": []}], "deep": json.loads("[" * 60 + "]" * 60)}
    assert parse_json(json.dumps(data), "x") == parse_json(json.dumps(data, ensure_ascii=False), "x") == data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"), ("no", "no"), ("Yes", "Yes"), ("y", "y"), ("1:30", "1:30"), ("[1:30]", ["1:30"]),
        ("2001-01-01", "2001-01-01"), ("1_000", "1_000"), ("0x1F", "0x1F"), ("010", 10), ("+5", 5), ("1e-3", 1e-3),
        ("1.e2", 100.0), ("True", True), ("false", False), ("~", None), ("", None), ("'1'", "1"), ("<<: 1", {"<<": 1}),
        ("!!str 12", "12"), ("!!int '12'", 12), ("- &a [1]\n- *a", [[1], [1]]),
    ],
)  # fmt: skip
def test_yaml_as_version_1_2_has_it(text, value):
    assert (parse_yaml(text, "x"), type(parse_yaml(text, "x"))) == (value, type(value))


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: 1\nb: 2\na: 3", 'line 3: key "a" is given twice'),
        ("1: a\n1.0: b", 'key "1.0" is given twice'),
        ("? [a]\n: 1", "a key is text or a number"),
        ("!!python/object/apply:os.system [ls]", "line 1"),
        ("!!binary aGk=", "line 1"),
        ("!!timestamp 2001-01-01", "line 1"),
        ("!!set {a}", "line 1"),
        ("!!bool maybe", "'maybe' is no bool"),
        ("!!int 1_000", "'1_000' is no int"),
        ("!!null x", "'x' is no null"),
        ("1e999", "too large for a float"),
        (f"{'9' * 400}.0", "too large for a float"),
        ("5" * 65, "an integer of 65 digits"),
        ("&m [*m]", "leads back to itself"),
        ("a: &m {b: [*m]}", "leads back to itself"),
        ("*m", "line 1"),
        (LAUGHS, "more than 100,000 values"),
        ("[" * 5000, "nested too deeply"),
        ("- " * 5000, "nested too deeply"),
        ("[1", "line"),
        ("a: b: c", "line 1"),
        ("--- 1\n--- 2", "another document"),
        ("\0", "is not valid YAML"),
        ("\ud83d", "is not valid YAML"),
    ],
)
def test_yaml_that_is_refused(text, part):
    assert part in said(parse_yaml, text)


TEXTS = [
    "1e3", "1e-3", "-2E5", "5.", ".5", "010", "0o7", "0x1F", "1_000", "1:30", "off", "no", "Y", "true", "~", "null", "",
    "<<", "=", "2001-01-01", ".inf", ".nan", "1e999", "- a", "a: b", "#a", "*a", "&a", "!a", "%a", "@a", "'", '"',
    " a ", "a\nb\n", "é", "😀", "\u2028", "\x85", "n" * 300, "9" * 100,
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_dumped_so_that_it_is_read_as_text(text):
    data = {"keys": {text: [text]}, "text": text}
    assert parse_yaml(dump_yaml(data), "x") == data
    assert yaml.safe_load(dump_yaml(data)) == data  # and by readers of version 1.1


def test_values_are_dumped_as_they_are():
    shared = [1, 2.0, 1e-300, -1e22, True, None]
    data = {"a": shared, "b": shared, "c": {}, "d": [[], {"e": 0.1}]}
    again = parse_yaml(dump_yaml(data, width=100), "x")
    assert json.dumps(again) == json.dumps(data)
    assert "&" not in dump_yaml(data)


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder" / "file"
    write_text(path, "é")
    assert read_text(path, "x") == "é"
    with pytest.raises(RuntimeError), replacing(path) as draft:
        draft.write_text("half")
        raise RuntimeError
    assert [(one.name, one.read_text("utf-8")) for one in path.parent.iterdir()] == [("file", "é")]


def replaced(draft):
    private = draft.with_name("private")
    private.touch(mode=0o600)
    private.replace(draft)


@pytest.mark.parametrize(
    "fill", [lambda draft: draft.write_text("x"), replaced, lambda draft: save_file({"x": torch.ones(1)}, draft)]
)
def test_a_file_is_as_readable_as_any_other(tmp_path, fill):
    (tmp_path / "other").touch()
    with replacing(tmp_path / "file") as draft:
        fill(draft)
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode


def interrupted(call, line):
    """Whether Ctrl-C came in time: before the call's so-manieth line, those of libraries too."""
    left = iter(range(line))

    def trace(frame, event, argument):
        if event == "line" and next(left, None) is None:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def fill(root):
    with filling(root) as draft:
        (draft / "file").write_text("new")


@pytest.mark.parametrize(("write", "old"), [(lambda root: write_text(root / "file", "new"), ["old"]), (fill, [])])
def test_an_interruption_at_any_line_leaves_what_was_there_or_what_is_new(tmp_path, write, old):
    for line in itertools.count():
        root = tmp_path / f"at-{line}"
        root.mkdir()
        for text in old:
            (root / "file").write_text(text)
        early = interrupted(partial(write, root), line)
        assert not list(tmp_path.rglob(".*"))
        assert [path.read_text() for path in root.glob("*")] in ([old, ["new"]] if early else [["new"]])
        if not early:
            break
    assert line > 50
