"""A finished trial with its model, to ask whatever one likes."""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from pet_bench.backbone.interface import Model
from pet_bench.backbone.known import find_backbone
from pet_bench.backbone.loading import load, read_stock
from pet_bench.backbone.reader import Tokenizer
from pet_bench.data.albums import Albums
from pet_bench.data.batches import Store as BatchStore
from pet_bench.data.batches import TaskBatches
from pet_bench.data.reading import Store, build_tasks, data_root, packed_for, read_data
from pet_bench.data.suite import suite_by_name
from pet_bench.data.task import Example, Task
from pet_bench.errors import Faults, UserError, unknown
from pet_bench.files import parse_json
from pet_bench.pet import FROZEN, attach_frozen, build_method, design_of, load_frozen, load_trained
from pet_bench.pet.method import restored
from pet_bench.results import store
from pet_bench.results.schema import TrialResult
from pet_bench.spec import MissingFeatures, Runtime, TrialSpec
from pet_bench.trial.build import prepare_device, seed_everything
from pet_bench.trial.checkpoint import generators, set_generators
from pet_bench.trial.evaluate import OnBatch, fitting, sizes_of, unheard
from pet_bench.trial.questions import Question, given_store, question
from pet_bench.trial.ranks import ALONE
from pet_bench.trial.run import ADAPTER


@dataclass(frozen=True)
class Loaded:
    """A finished trial. model: in evaluation mode, on its device, the tensors of the moment that was tested.

    tokenizer: with the words that the model has, or the processor. result: what the trial measured. runtime: where data
    are read.
    """

    model: Model
    tokenizer: Tokenizer
    spec: TrialSpec
    result: TrialResult
    runtime: Runtime

    def task(self, name: str | None = None) -> Task:
        """One of the trial's tasks with its protocol, by default the first; raises UserError for any other."""
        if name is not None and name not in self.spec.tasks:
            raise unknown(f"task of trial {self.spec.id}", name, self.spec.tasks)
        (task,) = build_tasks((name or self.spec.tasks[0],), self.spec.protocol)
        return task

    def test_examples(self, task: str | None = None) -> list[Example]:
        """The examples that the trial was tested on, in their order; raises UserError where their files are not."""
        root = data_root(self.spec.suite, self.runtime)
        albums = Albums() if self.model.family.fed == "pixels" else None
        return self.task(task).used(root, "test", self.runtime.missing_features, albums)[0]

    def predict_test(self, task: str | None = None) -> dict[str, str]:
        """The prediction of every test example, by id: those that the trial saved, on the machine that it ran on."""
        examples = self.test_examples(task)
        return dict(zip([example.id for example in examples], self.predict(examples, task), strict=True))

    def predict(self, examples: Iterable[Example | Mapping[str, Any]], task: str | None = None) -> list[str]:
        """What the model answers to each example, as one of a task of the trial, by default the first.

        examples: those of the task's reader, whose features are looked for where the data are; or people's own, as
        `{"text": "what color is the ball?", "image": features}`, or with the picture itself for a model that is fed
        with pixels (see `questions.question`). They are answered in batches of the trial's size, or larger ones on an
        accelerator. Raises UserError, with
        all faults together, for what is no example and for features that are not there.
        """
        reader, suite, faults = self.task(task), suite_by_name(self.spec.suite), Faults()
        fed = self.model.family.fed
        asked: list[Example | Question] = []
        for number, one in enumerate(examples):
            with faults:
                asked.append(one if isinstance(one, Example) else question(one, number, reader, suite, fed))
        faults.check()
        answers: dict[int, str] = {}
        for numbers in _alike(asked).values():
            group = [asked[number] for number in numbers]
            own = [each for each in group if isinstance(each, Question)]
            read = [each for each in group if isinstance(each, Example)]
            texts = self._answers(
                reader, read or [each.example for each in own], given_store(own, fed) if own else None
            )
            answers |= dict(zip(numbers, texts, strict=True))
        return [answers[number] for number in range(len(asked))]

    def _answers(self, task: Task, examples: list[Example], given: Store | None) -> list[str]:
        """given: the features; None: they are where the data are."""
        numbered = [replace(example, id=str(i)) for i, example in enumerate(examples)]
        texts = self.answers(self.batches(task, numbered, given or self._features(task, examples)))
        return [texts[example.id] for example in numbered]

    def batches(self, task: Task, examples: Sequence[Example], store: BatchStore) -> TaskBatches:
        """Examples as the trial's model reads them, under the trial's control. store: what it sees of their images."""
        return TaskBatches(
            task, examples, self.model.family.reader(self.tokenizer), store, control=self.spec.control
        )  # fmt: skip

    @property
    def batch_size(self) -> int:
        """Examples that the trial computed with at once."""
        return -(-self.spec.recipe.batch_size // self.result.run.accumulation)

    def answers(self, batches: TaskBatches, on_batch: OnBatch = unheard) -> dict[str, str]:
        """The prediction of every example, by id, in batches of the trial's size, or larger ones on an accelerator."""
        reads, sizes = self.model.family.reader(self.tokenizer), sizes_of(self.batch_size, self.model.device)
        return ALONE.gathered(fitting(self.model, reads, batches, sizes, self.spec.recipe, on_batch, ALONE))

    def _features(self, task: Task, examples: list[Example]) -> Store:
        """What the model sees of these examples, where the data are.

        The noise of the control of that name depends on a feature's place among all of the trial's: all are read."""
        fed = self.model.family.fed
        if self.spec.control == "noise":
            data = read_data(self.spec, self.runtime, fed=fed)
            assert data is not None  # it was packed
            return data.store
        return packed_for(fed, data_root(self.spec.suite, self.runtime), [(task, examples)], self.spec.visual)


def _alike(asked: list[Example | Question]) -> dict[tuple[type, int], list[int]]:
    """The numbers of those that make batches together: of one kind, with as many images."""
    groups = defaultdict(list)
    for number, one in enumerate(asked):
        example = one if isinstance(one, Example) else one.example
        groups[type(one), len(example.images)].append(number)
    return groups


def load_trial(
    id_or_path: str | Path, *, out: str | Path | None = None, data: str | Path | None = None, device: str = "cpu"
) -> Loaded:
    """A finished trial, ready to predict: `pet_bench.load_trial("0123").predict([…])`.

    id_or_path: of its result, `<id>.json`, or of the folder beside it; or its id or the first 4 digits or more of that,
    which is then looked for in the results folder `out`, or in the folders in `results/`. data: root folder of the data
    sets (None: the suite's embedded data); for examples of one's own none are needed. device: as `--device` has it.
    Nothing needs to be seeded before, and no generator of the process is drawn from.

    Raises UserError where there is no such trial, it has no scores, or its trained tensors are not there or not whole.
    """
    path = find_trial(id_or_path, None if out is None else Path(out))
    result = store.load(path)
    if result.status not in store.FINISHED:
        raise UserError(f"trial {result.id} has no model: it is {result.status}")
    missing: MissingFeatures = "drop" if result.dropped else "refuse"
    runtime = Runtime(path.parent, None if data is None else Path(data), device, missing_features=missing)
    place, spec = prepare_device(runtime), TrialSpec.from_dict(result.spec)
    model, tokenizer = rebuild(spec, adapter_of(path))
    return Loaded(model.to(place), tokenizer, spec, result, runtime)


def find_trial(name: str | Path, out: Path | None = None) -> Path:
    """A trial's result by its path, its folder's, or the beginning of its id in `out` or in the folders in `results/`.

    Of several copies one that has its trained tensors. Raises UserError where there is none.
    """
    said = str(name.absolute()) if isinstance(name, Path) else name
    if (path := store.find(said, [out] if out else store.known_folders(), beside=ADAPTER)) is None:
        raise UserError(
            f'"{name}" is no trial (a result\'s path, or the first 4 digits or more of an id in {out or "results/*"}/)'
        )
    return path


def adapter_of(path: Path) -> Path:
    """The trained tensors beside a result; raises UserError where they are not there."""
    adapter = path.with_suffix("") / ADAPTER
    if not adapter.is_file():
        raise UserError(
            f"{adapter} is missing: adapters are not kept in git; run the trial again "
            f"(pet-bench rerun {path.parent} --trial {path.stem})"
        )
    return adapter


def rebuild(spec: TrialSpec, adapter: Path) -> tuple[Model, Tokenizer]:
    """A trial's model as it was tested, on the CPU and in evaluation mode, and its tokenizer.

    What is random and does not train lies beside the adapter, where the checkpoint does not give it; without that file,
    as trials once left it, it is drawn from the trial's seed again. The generators of the process stay as they are.
    """
    frozen = adapter.with_name(FROZEN)
    model, tokenizer = untrained(spec)
    load_trained(model, adapter)
    if frozen.is_file():
        load_frozen(model, frozen)
    for file in filter(Path.is_file, (adapter, frozen)):
        if (made := _trial_of(file)) not in (None, spec.id):
            raise UserError(f"{file} is of trial {made}")
    tasks = build_tasks(spec.tasks, spec.protocol)
    model.masks_empty = frozenset(task.name for task in tasks if task.masks_empty)
    return model.eval(), tokenizer


def untrained(spec: TrialSpec) -> tuple[Model, Tokenizer]:
    """A trial's model as it was before its first update, on the CPU, and its tokenizer; the generators of the process
    stay as they are. What a door makes ready of the data when training begins is not."""
    gc.collect()  # models built before stand in cycles with their hooks
    backbone, cpu = find_backbone(spec.backbone), torch.device("cpu")
    stock, before = read_stock(backbone), generators(cpu)
    try:
        seed_everything(spec.initial)
        model, tokenizer = load(backbone, spec.visual, stock, spec.method.scope)
        design = design_of(build_method(restored(spec.method), model.anatomy), model.anatomy)
        attach_frozen(model, design, spec.tasks, spec.recipe.frozen, spec.recipe.rates)
    finally:
        set_generators(before, cpu)
    return model, tokenizer


def _trial_of(file: Path) -> str | None:
    """The trial whose tensors these are, where the file says so."""
    with safe_open(file, "pt") as tensors:
        about = (tensors.metadata() or {}).get("pet-bench")
    said = parse_json(about, str(file)) if about else None
    return said.get("trial") if isinstance(said, dict) else None
