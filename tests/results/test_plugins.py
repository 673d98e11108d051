"""Which code of others a result was made with."""

from __future__ import annotations

import sys
from hashlib import sha256
from importlib.metadata import EntryPoint

import pytest

from pet_bench.pet import Delta, Door, Gate
from pet_bench.registry import BACKBONES, METHODS, METRICS, REGISTRIES, load_plugin, title
from pet_bench.results import check, plugins, store
from pet_bench.results.plugins import code, codes, differences
from pet_bench.results.schema import Plugin

LOOSE = """
from __future__ import annotations
from typing import ClassVar
from pydantic.dataclasses import dataclass
from torch import nn
from pet_bench.backbone.known import Backbone
from pet_bench.metrics.exact_match import ExactMatch
from pet_bench.pet import Delta, Design, Insert, Method
from pet_bench.spec import STRICT

@dataclass(frozen=True, config=STRICT)
class Part(Delta):
    kind: ClassVar = "written-here"
    formula: ClassVar = "{x}"

    def build(self, place, d_in):
        return nn.Linear(d_in, place.d_h)

@dataclass(frozen=True, kw_only=True, config=STRICT)
class Mine(Method):
    name: ClassVar = "mine"
    source: ClassVar = "here"
    year: ClassVar = 2026
    learning_rates: ClassVar = {"mini-bart": 1e-3}
    recipe: ClassVar = {"max_steps": 1}

    def design(self, shape):
        return Design((Insert(("encoder.ffn",), Part()),))

class Metric(ExactMatch):
    name = "mine-metric"

TWIN = Backbone("mine-base", "bart", "nowhere")
"""


@pytest.fixture(autouse=True)
def put_back(monkeypatch):
    METHODS.load()
    for registry in REGISTRIES.values():
        monkeypatch.setattr(registry, "_entries", dict(registry.entries))
    for base in (Delta, Gate, Door):
        monkeypatch.setattr(base, "kinds", dict(base.kinds))
    plugins._plugin.cache_clear()
    plugins._distribution.cache_clear()


@pytest.fixture
def loose(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(LOOSE)
    load_plugin(str(path))
    return path


def test_our_own_code_is_known_by_its_commit():
    used = {title(one): one for registry in REGISTRIES.values() for one in registry}
    assert len(used) > 40
    assert code(used) == []


def test_a_loose_file_is_its_name_and_its_digest(loose):
    things = [METHODS.get("mine"), METRICS.get("mine-metric"), BACKBONES.get("mine-base"), METHODS.get("lora")]
    used = {title(one): one for one in things} | {'delta "written-here"': Delta.kinds["written-here"]}
    theirs = code(used)
    assert {(one.module, one.distribution, one.version) for one in theirs} == {("mine.py", None, None)}
    assert {one.digest for one in theirs} == {sha256(LOOSE.encode()).hexdigest()}
    assert {name for one in theirs for name in one.provides} == used.keys() - {'method "lora"'}
    assert str(loose.parent) not in str(theirs)


def test_an_installed_plugin_is_its_module_in_its_distribution(tmp_path, monkeypatch):
    package = tmp_path / "theirs"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "base.py").write_text("class Base:\n    pass\n")
    (package / "metric.py").write_text(
        "from theirs.base import Base\nclass M(Base, dict):\n    plugin_kind = 'metric'\n    name = 'theirs-metric'\n"
    )
    info = tmp_path / "their_plugins-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-plugins\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[pet_bench.metrics]\ntheirs-metric = theirs.metric:M\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(METRICS, "_entries", None)
    assert isinstance(METRICS.entries["theirs-metric"], EntryPoint)
    metric = METRICS.get("theirs-metric")
    for name in ("theirs", "theirs.base", "theirs.metric"):
        monkeypatch.setitem(sys.modules, name, sys.modules[name])
    base, own = code({title(metric): metric})
    assert [(one.module, one.distribution, one.version) for one in (base, own)] == [
        ("theirs.base", "their-plugins", "1.2"),
        ("theirs.metric", "their-plugins", "1.2"),
    ]
    assert own.digest == sha256((package / "metric.py").read_bytes()).hexdigest()
    ((name, text),) = codes([base, own])
    assert name == 'metric "theirs-metric"'
    parts = (f"their-plugins 1.2, {one.module} {one.digest[:7]}" for one in (base, own))
    assert text == " and ".join(parts)
    assert plugins.running()[name] == text


def version(digest: str, *names: str) -> Plugin:
    return Plugin(module="mine.py", digest=digest * 64, provides=list(names))


def test_what_differs_between_trials_is_a_line_per_plugin():
    one, other = (codes([version(digest, 'method "mine"', 'delta "d"')]) for digest in "ab")
    third = codes([version("a", 'task "t"')])
    assert differences([one, one, third, (), float("nan")]) == []
    assert differences([one, other, one], {'delta "d"': "mine.py bbbbbbb"}) == [
        'caution: made with 2 different versions of delta "d": mine.py aaaaaaa (2 trials), '
        "mine.py bbbbbbb (1 trial, the code here)",
        'caution: made with 2 different versions of method "mine": mine.py aaaaaaa (2 trials), '
        "mine.py bbbbbbb (1 trial)",
    ]
    assert differences([one, third], {'delta "d"': "mine.py ccccccc", 'task "t"': "mine.py aaaaaaa"}) == [
        'made with another version of delta "d" (mine.py aaaaaaa) than the code here (mine.py ccccccc)'
    ]


def test_a_frame_and_a_folder_tell_them(make_result, tmp_path):
    results = [make_result(seed=seed) for seed in range(3)]
    for result, digest in zip(results[1:], "ab", strict=True):
        result.provenance.plugins = [version(digest, 'method "lora"')]
        store.save(result, tmp_path)
    frame = store.to_frame(store.load_all(tmp_path).values())
    (line,) = differences(frame.drop_duplicates("id").plugins)
    assert line.startswith('caution: made with 2 different versions of method "lora"')
    assert check.remarks(tmp_path) == [line]


def test_a_result_without_the_key_is_read_as_one_without_plugins(make_result, tmp_path):
    data = make_result().model_dump(mode="json")
    del data["provenance"]["plugins"]
    assert store.parse(data, "it").provenance.plugins == []
