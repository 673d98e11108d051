"""What a reader of the pages has: a home with data sets, small ones in the real layouts, and a checkout to work in."""

from __future__ import annotations

import json
import shutil
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from peft import LoraConfig, get_peft_model

from pet_bench import Grid, load_trial
from pet_bench.backbone import find_backbone
from pet_bench.backbone.loading import read_stock
from pet_bench.cli import main
from pet_bench.mini.write import Sizes, write_image_text
from pet_bench.results import store
from pet_bench.trial.exported import write_adapter
from tests.conftest import ROOT
from tests.data import hub, hub_layouts, roots, test_convert, zoo_roots
from tests.docs.pages import blocks

TINY = Sizes(coco_train=30, coco_restval=4, coco_val=4, coco_test=8, vg_train=30, vg_valid=4, gqa_testdev=8,
             nlvr_train=6, nlvr_valid=2, nlvr_test=4)  # fmt: skip
SHORT = ("--executor", "inline", "--set", "recipe.max_steps=2", "--set", "recipe.valid_every=0",
         "--set", "recipe.batch_size=8")  # fmt: skip
COMMITTED = "mini-image-text-bart"


@dataclass
class Reader:
    """home: where ~ is. work: where commands are typed. ids: of trials that are there, by what they are good for."""

    home: Path
    work: Path
    ids: dict[str, str]


def settle(home: Path, work: Path) -> Reader:
    """All but what is fetched; `~` and the working folder have to be these already."""
    _data(home)
    (work / "examples").symlink_to(ROOT / "examples")
    (work / "pyproject.toml").symlink_to(ROOT / "pyproject.toml")
    _files(work)
    ids = _trials(home, work)
    _adapters(work, ids["lora"])
    return Reader(home, work, ids)


def _data(home: Path) -> None:
    datasets = home / "datasets"
    for write in (roots.vqa, roots.gqa, roots.nlvr2, roots.coco_caption):
        write(datasets)
    hub.hub(datasets, home / "vl-adapter")
    roots.video(datasets)
    zoo_roots.everything(datasets)
    write_image_text(home / "mini", seed=3, sizes=TINY)
    shutil.copy(datasets / "vqa/karpathy_train.json", datasets / "vqa/hub_train.json")
    for write in (test_convert.vqa, test_convert.coco, test_convert.gqa, test_convert.nlvr2, test_convert.video):
        write(home / "downloads")
    hub_layouts.vqa(home / "hub/vqa")
    hub_layouts.vqa_cauldron(home / "hub/vqa-train")
    for folder in ("train2014", "ScienceQA/images"):
        zoo_roots.picture(home / folder / "test/1/image.png", 40)
        zoo_roots.picture(home / folder / "COCO_train2014_000000000001.jpg", 80)
    _conversations(home)


def _conversations(home: Path) -> None:
    """A folder of the suite `chat`, and a table of the kind that is made into one."""
    for first, split in enumerate(("train", "valid", "test")):
        turns = (f"a {word} cat" for word in ("red", "blue", "green", "black"))
        rows = [
            {"id": f"{split}{i}", "image": f"{4 * first + i}.png",
             "conversations": [{"from": "human", "value": "<image>\nwhat is it?"}, {"from": "gpt", "value": said}]}
            for i, said in enumerate(turns)
        ]  # fmt: skip
        roots.dump(home / f"mine/{split}.json", rows)
    for i in range(12):
        zoo_roots.picture(home / f"mine/images/{i}.png", 20 * i)
    pictures = [{"bytes": (home / f"mine/images/{i}.png").read_bytes(), "path": None} for i in range(4)]
    texts = [{"user": "what is it?", "assistant": "a cat"}]
    table = pa.table({"images": [[picture] for picture in pictures], "texts": [texts] * 4})
    for split in ("train", "test"):
        path = home / f"llava-instruct-mix/data/{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)


def _files(work: Path) -> None:
    """What pages call by a name of the reader's own."""
    committed = ROOT / "results" / COMMITTED
    some = {"name": "my_grid"} | yaml.safe_load((committed / "grid.yaml").read_text())
    some |= {"name": "my_grid", "methods": ["lora", "vl-adapter"]}
    (work / "my_grid.yaml").write_text(yaml.safe_dump(some))
    for folder in ("results", "committed"):
        shutil.copytree(committed, work / folder / COMMITTED)
    ids = [trial.id for trial in Grid.from_yaml(work / "my_grid.yaml").trials]
    for name, kept in {"my_grid": ids, "full": ids, "a": ids[:4], "b": ids[3:]}.items():
        for id in kept:
            shutil.copytree(committed / id, work / "results" / name / id)
            shutil.copy(committed / f"{id}.json", work / "results" / name)
    shutil.copy(committed / "grid.yaml", work / "results/full")
    roots.nlvr_v1(work / "path/to/nlvr")
    (work / "rank.yaml").write_text(blocks("README.md", "yaml")[0])
    captions = [
        {"id": i, "prediction": f"a {word} cat", "references": [f"a {word} cat on a mat", f"the {word}"]}
        for i, word in enumerate(("red", "blue", "green"))
    ]
    (work / "captions.json").write_text(json.dumps(captions))
    text = (ROOT / "examples/gated_adapter.py").read_text()
    text = text.replace("gated-adapter", "my-method").replace("scaled-bottleneck", "my-bottleneck")
    (work / "my_method.py").write_text(text)
    shutil.copy(ROOT / "results/published/vlpet-table2.yaml", work / "my-table.yaml")
    shutil.copy(ROOT / "results/published/vlpet_table2_image_text.csv", work)
    shutil.copy(ROOT / "results/published/methods.yaml", work)
    mini = ROOT / "pet_bench/mini/backbones/mini-llava"
    for name in ("my-llava", "my-qwen"):
        shutil.copytree(mini, work / "models" / name)


def _trials(home: Path, work: Path) -> dict[str, str]:
    """Trials of few updates, whose tensors are there: those of the demonstration, and a search's."""
    names = ["lora", "vl-adapter", "vl-pet-large"]
    methods = [word for name in names for word in ("--method", name)]
    data = ("--data", str(home / "mini"))
    run("run", "demo", *methods, "--seed", "0", "--control", "none", *data, *SHORT)
    run("run", "mini-soup", "--method", "lora", "--seed", "0", "--seed", "1", *data, *SHORT)
    search = {
        "name": "my_search", "suites": ["mini-image-text/vqa"], "backbones": ["mini-bart"], "methods": ["lora"],
        "recipe": {"max_steps": 2, "batch_size": 8}, "search": {"space": {"recipe.lr": [1e-3, 3e-3]}},
    }  # fmt: skip
    (work / "my_search.yaml").write_text(yaml.safe_dump(search))
    run("run", "my_search.yaml", *data, "--executor", "inline")
    shutil.copytree(work / "results/demo", work / "results/mine")
    results = store.load_all(work / "results/demo").values()
    return {result.spec["method"]["name"]: result.id for result in results}


def _adapters(work: Path, trial: str) -> None:
    """An adapter that a trial has exported, and one that peft made on a stock checkpoint."""
    write_adapter(load_trial(work / f"results/demo/{trial}.json"), work / "adapter/my-lora")
    config = LoraConfig(r=2, target_modules=r".*language_model.*\.q_proj", task_type="CAUSAL_LM")
    wrapper: Any = get_peft_model(read_stock(find_backbone("mini-llava")).lm, config)
    wrapper.save_pretrained(str(work / "adapter/theirs"))


def run(*arguments: str) -> tuple[int, str]:
    """Exit code and output of a command."""
    output = StringIO()
    try:
        with redirect_stdout(output):
            main([*arguments])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0, output.getvalue()
    return 0, output.getvalue()
