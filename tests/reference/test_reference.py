"""The reference material: nothing is lost in packing, what is added is found, and what is cited is there."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tests.conftest import REFERENCE, ROOT, SHARED, given
from tests.reference import build, packs
from tests.reference.discover import fixtures
from tests.reference.mersenne import BLOCK, Stream

PACKS = {path: folder for folder in build.FOLDERS for path in sorted((REFERENCE / folder).glob("*.h5"))}


def test_what_lies_here_is_what_was_given():
    """Packed fixtures to the bit, and the files that are carried over."""
    shared = given("parity", "what lies in tests/reference and results/published is, to the bit, what was given").parent
    packed = [(folder, path, name) for path, folder in PACKS.items() for name in packs.names(path)]
    for folder, path, name in packed:
        assert packs.about(path, name) == json.loads((shared / folder / f"{name}.json").read_text())
        ours, theirs = packs.tensors(path, name), load_file(shared / folder / f"{name}.safetensors")
        assert packs.digest(ours) == packs.digest(theirs), name
        assert all(np.array_equal(ours[key], theirs[key]) and ours[key].dtype == theirs[key].dtype for key in theirs)
    for name, content in build.copies(shared).items():
        assert (REFERENCE / name).read_bytes() == content, name
    for path in (shared / "published").glob("*.csv"):
        assert (ROOT / "results/published" / path.name).read_bytes() == path.read_bytes(), path.name


def test_sizes():
    """53 fixtures of whole models and 77 of the methods that followed, 26 MB in under 10, no file of 2."""
    sizes = [path.stat().st_size for path in REFERENCE.rglob("*") if path.is_file()]
    assert max(sizes) < 2e6
    assert sum(path.stat().st_size for path in PACKS) < 10e6
    names = {folder: [path for path in PACKS if PACKS[path] == folder] for folder in build.FOLDERS}
    counts = {folder: sum(len(packs.names(path)) for path in paths) for folder, paths in names.items()}
    assert counts == {"parity": 53, "followups/parity": 77}


# packing -------------------------------------------------------------------------------------------------------------


def drawn(seed):
    """Weights as the fixtures' are drawn, and numbers that are not."""
    torch.manual_seed(seed)
    weights = {
        "param/shared.weight": torch.randn(10, 8) * 0.5,
        "param/gate": torch.randn(1),
        "param/norm.weight": 1 + 0.2 * torch.randn(37),  # no multiple of 16: its last sixteen are drawn again
        "param/embedding": torch.randn(21, 32) * 0.9 / 32**0.5,
    }
    others = {"grad/gate": torch.tensor([-0.0, float("inf"), 1e-42]), "input/ids": torch.arange(4)}
    return {key: tensor.numpy() for key, tensor in (weights | others).items()}


def test_nothing_is_lost(tmp_path):
    given_fixtures = {f"f{seed}": packs.Given({"seed": seed, "é": None}, drawn(seed)) for seed in (3, 29_999)}
    given_fixtures["other"] = packs.Given({}, {"y": np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)})
    packs.write(path := tmp_path / "p.h5", given_fixtures)
    assert packs.names(path) == list(given_fixtures)
    for name, fixture in given_fixtures.items():
        assert packs.about(path, name) == fixture.about
        read = packs.tensors(path, name)
        assert packs.digest(read) == packs.digest(fixture.tensors)
        assert {key: tensor.tobytes() for key, tensor in read.items()} == {
            key: tensor.tobytes() for key, tensor in fixture.tensors.items()
        }


def test_weights_are_stored_by_their_draw():
    tensors = drawn(7)
    stream = Stream.beginning(tensors["param/shared.weight"])
    assert stream is not None
    assert stream.seed == 7
    for key, mean, std in (("param/norm.weight", 1, 0.2), ("param/embedding", 0, 0.9 / 32**0.5)):
        draw = stream.draw_of(tensors[key].ravel())
        assert draw is not None
        assert (draw.mean, draw.std) == (pytest.approx(mean, abs=1e-6), pytest.approx(std, rel=1e-6))
        ours = stream.drawn(tensors[key].size, draw)
        np.testing.assert_allclose(ours, tensors[key].ravel(), rtol=1e-5, atol=1e-6)
    assert stream.draw_of(np.arange(BLOCK, dtype=np.float32)) is None
    assert Stream.beginning(np.arange(BLOCK, dtype=np.float32)) is None


def test_another_reading_is_refused(tmp_path, monkeypatch):
    packs.write(path := tmp_path / "p.h5", {"f": packs.Given({}, drawn(3))})
    monkeypatch.setattr(Stream, "drawn", lambda self, size, draw: np.zeros(size, np.float32))
    with pytest.raises(ValueError, match=r"p\.h5: f is not what was packed"):
        packs.tensors(path, "f")


def test_other_types_are_refused(tmp_path):
    with pytest.raises(TypeError, match="y is of float64"):
        packs.write(tmp_path / "p.h5", {"f": packs.Given({}, {"y": np.zeros(3)})})


@pytest.mark.parametrize("values", [[0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, 1e-45, -1e-45, 3e38]])
def test_bits_are_counted_in_the_order_of_numbers(values):
    floats = np.array(values, np.float32)
    assert packs.unordered(packs.ordered(floats)).tobytes() == floats.tobytes()
    assert np.array_equal(np.argsort(packs.ordered(floats)), np.lexsort((packs.ordered(floats), floats)))


# discovery -----------------------------------------------------------------------------------------------------------


def loose(folder, name, value):
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"y": np.full(2, value, np.float32)}, folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(json.dumps({"value": value}))


@pytest.mark.parametrize("folder", ["parity", "followups/parity"])
def test_what_is_added_is_found(tmp_path, folder):
    house, shared = tmp_path / "house", tmp_path / "shared"
    loose(house / folder, "both", 1)
    loose(shared / folder, "both", 2)
    loose(shared / folder, "added", 3)
    packs.write(house / folder / "pack.h5", {"packed": packs.Given({"value": 4}, {"y": np.full(2, 4, np.float32)})})
    sources = fixtures(folder, (house, shared))
    assert list(sources) == ["added", "both", "packed"]
    assert [source.about["value"] for source in sources.values()] == [3, 1, 4]
    assert [source.tensors["y"].tolist() for source in sources.values()] == [[3, 3], [1, 1], [4, 4]]
    assert fixtures(folder, (tmp_path / "nowhere",)) == {}


def test_the_parity_tests_run_over_all_of_them():
    assert len(fixtures()) >= 53
    for folder in ("parity", "followups/parity"):
        assert {path.stem for path in (SHARED / folder).glob("*.safetensors")} <= fixtures(folder).keys()


# pages ---------------------------------------------------------------------------------------------------------------


def test_every_section_that_is_cited_is_there():
    pages = {name: (ROOT / "docs/reference" / f"{name.lower()}.md").read_text("utf-8") for name in ("METHODS", "TASKS")}
    numbers = {name: set(re.findall(r"^#+ (\d+(?:\.\d+)*)", page, re.M)) for name, page in pages.items()}
    cited = {
        (name, number)
        for folder in ("pet_bench", "methods", "tasks", "tests", "docs")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".md", ".yaml") and (ROOT / "docs/reference") not in path.parents
        for name, number in re.findall(r"(METHODS|TASKS)\.md\s+(?:section\s+)?(\d+(?:\.\d+)?)", path.read_text("utf-8"))
    }
    assert len(cited) > 20
    assert [citation for citation in sorted(cited) if citation[1] not in numbers[citation[0]]] == []
