"""How commands and Python of the pages are executed that cannot be as they stand: for their time, a network, a GPU,
another program. What no pattern here matches is executed as it is.

A rehearsal is a pattern and what takes its place, all of them in turn. `{…}` are ids of the reader's trials
(`tests.docs.reader`), which the pages call 0123.
"""

from __future__ import annotations

import re

from tests.docs.reader import SHORT, Reader

SHORTLY = " ".join(SHORT)
NAMES = [
    # a trial whose method has gates; the one with low-rank updates; a result that is there
    (r"(?<=gates )0123\b", "{vl-pet-large}"),
    (r"(?<=[ \"])0123\b", "{lora}"),
    (r"(?<=show )3fa9\b", "{vl-adapter}"),
    (r"results/my_grid/0123456789ab", "results/demo/{lora}"),
    # the grid of the README, where it is given data; else one whose results are there
    (r"(?<=run )my_grid\.yaml(?=.*--data)", "rank.yaml"),
    # grids that are shipped, by the folder of the few and short trials that there are of them
    (r"(?<=export )demo\b", "results/demo"),
    (r"(?<=soup )mini-soup\b", "results/mini-soup"),
]
COMMANDS = [
    # make: that the target is there and what it would do, since each sets up an environment
    (r"^make (\S+)", r"make -n \1"),
    # of the network: a server that answers as the hub does is asked what there is
    (r"^(pet-bench data fetch .*) --to (\S+)", r"\1 --to \2/fetched --dry-run"),
    # into a folder of its own, not among files of other origin
    (r"^(pet-bench data convert ~/(\S+) )~/\S+", r"\1~/converted/\2"),
    # a method of a package that is not installed here (tests/examples/ does that): by its file
    (r"^(pet-bench .*(?:--method vera|vera\.yaml).*)", r"\1 --plugin examples/pet-bench-vera/pet_bench_vera.py"),
    # on few examples
    (r"^(pet-bench (?:soup|run mini-soup) ?.*)", r"\1 --data ~/mini"),
    # trials of two updates, where something later reads their results
    (r"^(pet-bench run (?!.*--suite).*--plugin (?!.*vera).*)", rf"\1 --data ~/mini {SHORTLY}"),
    (r"^(pet-bench run --suite (?:counting|shapes) .*)", rf"\1 {SHORTLY}"),
    # of two methods in the place of all
    (r"^(pet-bench params (?!.*--method).*)", r"\1 --method lora --method vl-adapter"),
    # nor other nodes (tests/grid/test_doctor_on_hosts.py has some)
    (r"^(pet-bench doctor .*) --ray-address auto --nodes 4", r"\1"),
    # this machine may have no GPU
    (r"--gpus 0\.25", "--cpus 1"),
    # any other run: everything but the updates
    (r"^(pet-bench run (?!.*--dry-run|.*--executor inline).*)", r"\1 --dry-run"),
    (r"^(pet-bench run .*--dry-run(?!.*--estimate).*)", r"\1 --estimate earlier"),  # without a measured update
    (r"^(pet-bench rerun (?!.*--dry-run).*)", r"\1 --dry-run"),
    # the trials that there are have seen the mini world alone; one strength of one corruption says as much as all
    (r"^(pet-bench (?:report results/mine|evaluate) .*--data )~/datasets", r"\1~/mini"),
    (r"^(pet-bench evaluate .*)--corrupt (?:all|text)", r"\1--corrupt word-drop:1"),
    (r"^(pet-bench (?:evaluate|gates|score results/|import|export .* lmms-eval)(?!.*--data).*)", r"\1 --data ~/mini"),
    # of one grid in the place of all
    (r"^(pet-bench report --all .*)", r"\1 --out committed --examples 1"),
    (r"^(pet-bench pretrain .*)", r"\1 --steps 1"),
]
PYTHON = [
    (r"(?<=from_yaml\(\")demo(?=\"\))", "results/demo"),
    (r'(?<=grid\.run\()(?=executor="inline")', 'data="../home/mini", '),
    (r'(?<=suite="mini-image-text", )(?=out=)', 'recipe={"max_steps": 2, "batch_size": 8}, data="../home/mini", '),
]
# What is refused here in one line, and a part of that line.
REFUSED = [
    (r"^pet-bench export .*--format eval-results", "is drawn by pet-bench: it is no data set of the hub's"),
    (r"^pet-bench evaluate .*--as vqa", "only tasks with the same features can be asked of it"),
]
# What is not tried at all, and why.
UNTRIED = [
    (r"^(?:\.venv/bin/)?pip install", "it would change the environment of the tests"),
    (r"^(?:sbatch|kubectl|export HEAD=|examples/clusters/)", "no cluster is here; tests/examples/ has stand-ins"),
    (r"^\.venv/bin/jupyter", "another program; tests/test_notebooks.py runs what it is to show"),
]


def named(text: str, reader: Reader) -> str:
    """With the ids of the reader's trials."""
    for pattern, replacement in NAMES:
        for name, id in reader.ids.items():
            replacement = replacement.replace(f"{{{name}}}", id)
        text = re.sub(pattern, replacement, text)
    return text


def rehearsed(command: str, reader: Reader) -> str:
    """What is executed in the place of a command."""
    command = named(re.sub(r"(^|\s)#.*", "", command).strip(), reader)
    for pattern, replacement in COMMANDS:
        command = re.sub(pattern, replacement, command)
    return command


def rehearsed_python(code: str, reader: Reader) -> str:
    code = named(code, reader)
    for pattern, replacement in PYTHON:
        code = re.sub(pattern, replacement, code)
    return code


def found(command: str, table: list[tuple[str, str]]) -> str:
    """What a table says of a command, if anything."""
    return next((text for pattern, text in table if re.search(pattern, command)), "")
