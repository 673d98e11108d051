"""The mini tasks need their images and frames: who sees learns them, who does not stays near the majority answer."""

from __future__ import annotations

import pytest

from pet_bench import load_results
from pet_bench.mini.write import Sizes, write_image_text
from pet_bench.mini.write_clips import ClipSizes, write_video_text
from pet_bench.spec import MethodSpec, Runtime
from pet_bench.trial.resolve import resolve
from pet_bench.trial.run import run_trial
from tests.conftest import ROOT, everything

pytestmark = pytest.mark.xdist_group("sight")  # the trials are run once

# Suite → what writes its data, backbone, epochs with and without sight, and by how much each task's score must tell
# the two apart: points of accuracy, or the share of CIDEr that is due to sight.
SUITES = {
    "mini-image-text": (
        lambda root: write_image_text(root, sizes=Sizes(nlvr_train=150)),
        "mini-bart",
        {"none": 2, "text-only": 1},
        {"vqa": 15, "gqa": 10, "nlvr2": 4, "coco-caption": 0.4},
    ),
    "mini-video-text": (
        lambda root: write_video_text(root, sizes=ClipSizes(tv_val=60, how2_val=60, yc2_val=60)),
        "mini-bart-clips",
        {"none": 8, "text-only": 2},
        {"tvqa": 12, "how2qa": 10, "tvc": 0.5, "yc2c": 0.5},
    ),
}


@pytest.fixture(scope="module", params=SUITES)
def trials(request, tmp_path_factory):
    """Metrics of vl-adapter with sight and without, and what they must differ by."""
    write, backbone, epochs, margins = SUITES[request.param]
    folder = tmp_path_factory.mktemp("sight")
    write(folder / "datasets")
    runtime = Runtime(out=folder / "results", data=folder / "datasets", device="cpu", threads=1)
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PET_BENCH_CACHE", str(folder / "cache"))
        for control, count in epochs.items():
            recipe = {"valid_every": 0, "epochs": count}
            spec = resolve(backbone, MethodSpec("vl-adapter"), request.param, 0, control=control, recipe=recipe)
            found[control] = {
                task: next(iter(metrics.values())) for task, metrics in run_trial(spec, runtime).metrics.items()
            }
    return found["none"], found["text-only"], margins


@everything
def test_sight_is_what_the_scores_are_made_of(trials):
    seeing, blind, margins = trials
    assert seeing.keys() == blind.keys() == margins.keys()
    for task, margin in margins.items():
        with_sight, without = seeing[task].value, blind[task].value
        if margin < 1:
            assert without < (1 - margin) * with_sight, (task, with_sight, without)
        else:
            assert with_sight > without + margin, (task, with_sight, without)


@everything
def test_without_sight_a_method_stays_near_the_majority(trials):
    _, blind, margins = trials
    for task, margin in margins.items():
        if margin >= 1:  # of captions the majority is one sentence, which every method learns to better
            assert blind[task].value == pytest.approx(blind[task].majority, abs=7), task


@pytest.mark.parametrize("grid", ["mini-tuned-bart", "mini-tuned-t5"])
def test_in_committed_results_every_method_sees(grid):
    """In each task it has more than where no image was there to learn from or to be tested on. lst sees after more
    passes over the data (`mini-long`): all of its trials say of themselves that NLVR2 is at chance."""
    frame = load_results(ROOT / "results" / grid)
    seeing = frame[frame.control == "none"].groupby("method").status.agg(lambda status: (status != "suspect").any())
    assert set(seeing.index[~seeing]) <= {"lst"}
    frame = frame[frame.method.map(seeing)]
    scores = frame[frame.primary].groupby(["method", "task", "metric", "control"]).value.mean().unstack()
    assert scores.notna().all(axis=None) and scores.index.get_level_values("method").nunique() > 4
    margin = scores.index.get_level_values("metric").map({"accuracy": 3, "CIDEr": 20})
    assert (scores["none"] > scores["text-only"] + margin).all()
