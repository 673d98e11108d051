"""In a process of its own: `python -m tests.trial.fresh RESULTS DATA` asks every trial of a folder its test again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

import pet_bench


def main(results: str, data: str) -> None:
    torch.set_num_threads(1)
    answers = {}
    for path in sorted(Path(results).glob("*.json")):
        trial = pet_bench.load_trial(path.stem[:6], out=results, data=data)
        answers[path.stem] = {task: trial.predict_test(task) for task in trial.spec.tasks}
    print(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
