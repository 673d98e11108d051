"""The splits of a finished trial's tasks, read again to be tested anew."""

from __future__ import annotations

from collections.abc import Sequence

from pet_bench.data.reading import Read, data_root, read_and_pack, read_data
from pet_bench.data.task import Split, Task
from pet_bench.errors import UserError
from pet_bench.results.consistency import primary
from pet_bench.trial.loaded import Loaded


def read_splits(
    trial: Loaded, tasks: Sequence[Task], splits: Sequence[Split] = ("test",), *, pooled: bool | None = None
) -> Read:
    """Examples of some tasks of a trial, and what it sees of their images. pooled: as in `FeatureStore.pack`.

    The noise of the control of that name depends on a feature's place among all of the trial's: all are read. Raises
    UserError for unusable data, and where the trial was tested on more or fewer examples.
    """
    for task in tasks:
        task.check_metrics()
    spec, runtime, fed = trial.spec, trial.runtime, trial.model.family.fed
    root, missing = data_root(spec.suite, runtime), runtime.missing_features
    read = read_and_pack(root, tasks, spec.visual, splits=splits, missing=missing, fed=fed, pooled=pooled)
    for task in tasks:
        found, (_, score) = len(read.examples[task.name]["test"]), primary(trial.result, task.name)
        if score and score.n != found:
            where = "say with --data where its data are"
            raise UserError(
                f"trial {spec.id} was tested on {score.n} examples of {task.name}, found {found}: {where}"
            )  # fmt: skip
    if spec.control == "noise":
        data = read_data(spec, runtime, fed=fed)
        assert data is not None  # it was packed
        return read._replace(store=data.store)
    return read
