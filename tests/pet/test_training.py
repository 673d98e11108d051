"""Every method learns, on the joint tasks of the mini world with its own mini learning rate."""

from __future__ import annotations

import pytest
import torch

from pet_bench.backbone import Reader
from pet_bench.data.reading import read_data
from pet_bench.mini.write import write_image_text
from pet_bench.registry import METHODS
from pet_bench.spec import MethodSpec, Runtime
from pet_bench.trial.build import Trial
from pet_bench.trial.resolve import resolve
from pet_bench.trial.train import loss_of, train
from tests.conftest import part
from tests.mini.conftest import SMALL
from tests.pet.minis import FAMILIES, SUITE, built, mini, stock

# a third of the methods, each on one of the minis, drawn by its name; `make test-all`: all on both
LEARN = [
    case
    for method in part(METHODS.names(), len(METHODS.names()) // 3)
    for case in part([(family, method) for family in FAMILIES], 1)
]
RECIPE = {"batch_size": 16, "max_steps": 32, "valid_every": 0}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The data and, by family, the batches that all trials share."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PET_BENCH_CACHE", str(folder / "cache"))
        write_image_text(folder / "datasets", seed=3, sizes=SMALL)
        spec = resolve("mini-bart", MethodSpec("lora"), SUITE.name, 0, recipe=RECIPE)
        yield read_data(spec, Runtime(out=folder, data=folder / "datasets")), {family: {} for family in FAMILIES}


@pytest.mark.parametrize(("family", "method"), LEARN)
def test_the_loss_falls_and_nothing_frozen_moves(family, method, data):
    examples, tokenised = data
    spec = resolve(f"mini-{family}", MethodSpec(method), SUITE.name, 0, recipe=RECIPE)
    model = mini(family, method)
    doors = built(family, method).design(model.anatomy).doors
    trial = Trial(
        spec, model, Reader(stock(family)[1]), examples, torch.device("cpu"), lambda progress: None, doors,
        tokenised=tokenised[family],
    )  # fmt: skip
    probes = [(next(trial.batches(task, "test").eval_batches(32)), task.loss) for task in examples.tasks]

    def loss() -> float:
        with torch.no_grad():
            return sum(float(loss_of(model.eval(), batch, reduction, "float32")) for batch, reduction in probes)

    first, start = loss(), {name: parameter.clone() for name, parameter in model.named_parameters()}
    torch.manual_seed(0)
    train(trial)
    assert {point.task for point in trial.curve} == set(SUITE.tasks)
    assert loss() < 0.8 * first
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, start[name])}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    # boxes are zeros: nothing but weight decay moves what reads them
    assert moved == trained - ({"visual.box.weight"} if not spec.recipe.weight_decay else set())
