from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest

from pet_bench import registry as registries
from pet_bench.errors import PluginError, UserError
from pet_bench.pet import Delta, Door, Gate
from pet_bench.registry import REGISTRIES, Registry, load_plugin


@pytest.fixture
def things(monkeypatch):
    """A registry of its own, that the others never see."""
    monkeypatch.setattr(registries, "REGISTRIES", {})
    return Registry("thing", classes=True)


@pytest.fixture
def module(monkeypatch):
    """A module `demo_plugins` with two classes of one name."""
    module = ModuleType("demo_plugins")
    monkeypatch.setitem(sys.modules, "demo_plugins", module)
    for name in ("One", "Two"):
        vars(module)[name] = type(name, (), {"name": "same", "__module__": "demo_plugins"})
    return module


def entry(name, value):
    return EntryPoint(name=name, value=value, group="pet_bench.things")


def offer(monkeypatch, *entries):
    monkeypatch.setattr(registries, "entry_points", lambda group: [e for e in entries if e.group == group])


@pytest.fixture
def put_back(monkeypatch):
    """Undo what a loose plug-in registers."""
    for registry in REGISTRIES.values():
        monkeypatch.setattr(registry, "_entries", dict(registry.entries))


@pytest.mark.parametrize("registry", REGISTRIES.values(), ids=lambda registry: registry.kind)
def test_what_is_offered_can_be_had_under_its_name(registry):
    assert registry.names()
    for name in registry.names():
        assert registry.get(name).name == name


def test_a_duplicate_names_both_places(things, module):
    things.register(module.One)
    with pytest.raises(UserError, match=r'thing "same" registered twice: demo_plugins:One and demo_plugins:Two'):
        things.register(module.Two)
    assert things.get("same") is module.One


def test_entry_points_of_one_name_clash_and_both_are_named(things, monkeypatch):
    offer(monkeypatch, entry("same", "package_a:Thing"), entry("same", "package_b:Thing"))
    with pytest.raises(UserError, match=r"package_a:Thing and package_b:Thing"):
        things.names()


def test_a_clash_is_said_every_time(things, monkeypatch):
    offer(monkeypatch, entry("same", "package_a:Thing"), entry("other", "x:Y"), entry("same", "package_b:Thing"))
    for use in (things.names, lambda: "other" in things, lambda: things.get("other"), lambda: list(things)):
        with pytest.raises(PluginError, match=r"package_a:Thing and package_b:Thing"):
            use()
    offer(monkeypatch, entry("same", "package_a:Thing"))
    assert things.names() == ["same"]


def test_distributions_that_offer_one_name_clash(things, monkeypatch, tmp_path):
    for name, value in (("a", "package_a:Thing"), ("b", "package_b:Thing")):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[pet_bench.things]\nsame = {value}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError) as caught:
        things.names()
    assert all(value in str(caught.value) for value in ("package_a:Thing", "package_b:Thing"))


@pytest.mark.parametrize("registry", [*REGISTRIES.values()], ids=lambda registry: registry.kind)
def test_two_loose_files_with_one_name_clash_and_one_loaded_again_does_not(registry, put_back, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "check", None)
    thing = "class Thing:" if registry.classes else "class _Kind:"
    text = f'{thing}\n    plugin_kind = "{registry.kind}"\n    name = "loose-twin"\n'
    text += "" if registry.classes else "Thing = _Kind()\n"
    one, other = tmp_path / "one.py", tmp_path / "other.py"
    for path in (one, other):
        path.write_text(text)
    assert load_plugin(str(one)) == load_plugin(str(one)) == [f"{registry.kind} loose-twin"]
    with pytest.raises(PluginError) as caught:
        load_plugin(str(other))
    assert str(caught.value) == (f'{registry.kind} "loose-twin" registered twice: {one}:Thing and {other}:Thing')
    assert registry.origin("loose-twin") == f"{one}:Thing"


@pytest.mark.parametrize("base", [Delta, Gate, Door])
def test_parts_of_one_kind_clash_and_both_modules_are_named(base, monkeypatch):
    monkeypatch.setattr(base, "kinds", dict(base.kinds))
    members = {"kind": "twin", "__qualname__": "Twin"}
    type("Twin", (base,), {"__module__": "package_a", **members})
    again = type("Twin", (base,), {"__module__": "package_a", **members})  # the module was loaded again
    assert base.kinds["twin"] is again
    with pytest.raises(PluginError, match=r"package_a:Twin and package_b:Twin"):
        type("Twin", (base,), {"__module__": "package_b", **members})


def test_the_same_entry_point_seen_twice_is_no_clash(things, monkeypatch):
    offer(monkeypatch, entry("one", "demo_plugins:One"), entry("one", "demo_plugins:One"))
    assert things.names() == ["one"]


def test_names_are_listed_without_importing(things, monkeypatch):
    offer(monkeypatch, entry("broken", "no_such_module:Thing"))
    assert things.names() == ["broken"]
    assert "broken" in things
    assert things.origin("broken") == "no_such_module:Thing"


def test_a_failing_import_says_what_failed_where(things, monkeypatch):
    offer(monkeypatch, entry("broken", "no_such_module:Thing"))
    with pytest.raises(UserError) as caught:
        things.get("broken")
    (fault,) = caught.value.faults
    assert all(part in fault for part in ('thing "broken"', "no_such_module:Thing", "ModuleNotFoundError"))


def test_an_entry_point_under_another_name_is_refused(things, module, monkeypatch):
    offer(monkeypatch, entry("other", "demo_plugins:One"))
    with pytest.raises(UserError, match='calls itself "same"'):
        things.get("other")


def test_an_unknown_name_gets_a_suggestion(things, module):
    things.register(module.One)
    with pytest.raises(UserError, match=r'unknown thing "smae": did you mean "same"\?'):
        things.get("smae")


LOOSE = """
class Loose:
    plugin_kind = "metric"
    name = "loose"
"""


def test_a_loose_file_registers_what_it_defines_once(put_back, tmp_path):
    path = tmp_path / "loose.py"
    path.write_text(LOOSE)
    assert load_plugin(str(path)) == load_plugin(str(path)) == ["metric loose"]
    assert REGISTRIES["metric"].get("loose").name == "loose"
    assert str(path) in REGISTRIES["metric"].origin("loose")


def test_a_loose_plugin_that_takes_a_name_names_both_places(put_back, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(LOOSE.replace('"loose"', '"cider"'))
    with pytest.raises(UserError) as caught:
        load_plugin(str(path))
    assert all(part in str(caught.value) for part in ('"cider"', "pet_bench.metrics.cider:CIDEr", str(path)))


@pytest.mark.parametrize(
    "text, parts",
    [
        ("1 / 0", ["failed on import", "ZeroDivisionError"]),
        ("import no_such_module", ["failed on import", "no_such_module"]),
        ("def f(:", ["failed on import", "SyntaxError"]),
        ("x = 1", ["defines no method"]),
        ("from pathlib import Path", ["defines no method"]),
    ],
)
def test_a_file_that_is_no_plugin(put_back, tmp_path, text, parts):
    path = tmp_path / "bad.py"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_plugin(str(path))
    (fault,) = caught.value.faults
    assert all(part in fault for part in [str(path), *parts])


@pytest.mark.parametrize("source", ["missing.py", "no_such_module_at_all"])
def test_a_plugin_that_does_not_exist(put_back, source):
    with pytest.raises(UserError, match=source):
        load_plugin(source)
