from __future__ import annotations

import pytest

from pet_bench.mini.write import Sizes, write_image_text

SMALL = Sizes(
    coco_train=120,
    coco_restval=15,
    coco_val=15,
    coco_test=40,
    vg_train=120,
    vg_valid=15,
    gqa_testdev=40,
    nlvr_train=25,
    nlvr_valid=5,
    nlvr_test=10,
)


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mini") / "datasets"
    write_image_text(folder, seed=3, sizes=SMALL)
    return folder
