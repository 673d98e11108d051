"""What a method plug-in is: a frozen dataclass of options that expands to a `Design`."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, ClassVar

from pydantic import Field, TypeAdapter
from pydantic_core import to_jsonable_python

from pet_bench.backbone.anatomy import OFFERS, Anatomy
from pet_bench.backbone.interface import Model
from pet_bench.errors import PluginError, UserError, foreign
from pet_bench.identity import filled
from pet_bench.pet.attach import attach
from pet_bench.pet.design import Design
from pet_bench.pet.parts import check_part
from pet_bench.pet.select import beyond
from pet_bench.registry import METHODS, ask, attribute_faults, title
from pet_bench.spec import MethodSpec, Recipe, Text, option_faults, validate

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
OF_THE_GRID = ("name", "sweep", "recipe", "scope")  # keys that a grid file has beside a method's options


@dataclass(frozen=True)
class Difference:
    """A place where published code differs from its paper or its intent.

    option: the method's option that decides; `published` is its default, `intended` the other behaviour. where: what
    must hold for it to matter: values of other options, or the backbone's `family`. evidence: where that is shown.
    """

    name: str
    option: str
    published: Any
    intended: Any
    where: dict[str, Any]
    what: str
    evidence: str


class Method(ABC):
    """A PET method. Subclasses are pydantic dataclasses (frozen, no unknown options).

    name: the registry's and the command line's. source, year: where it was published; reference: the implementation
    that was held against it, with its licence. learning_rates: peak learning rate by backbone name or, failing that, by
    family; where neither is there, the recipe must give one. size: the
    option that sets how many parameters it adds, a rank or a bottleneck say, where it has one. recipe: other
    values of the published runs' recipe that are this method's own. identity_at_start: before training, the model's
    output is that of the untouched backbone. batch_invariant: an example's output does not depend on what it is
    batched with. Both are properties where options decide, so ask a built method. needs: stacks and sites without which
    it makes no sense; where a backbone lacks one, `skip` says so, and the pair is left out. task_prompts: whether texts
    begin with the task's prompt ("vqa: "); None: unless the suite is among `promptless`, those whose published runs of
    this method had none. on_suite: by suite, the options for which the published runs on it had other values than
    `defaults`. differences: see `Difference`.
    """

    plugin_kind: ClassVar[str] = "method"
    name: ClassVar[str]
    source: ClassVar[str]
    reference: ClassVar[str] = ""
    year: ClassVar[int]
    learning_rates: ClassVar[dict[str, float]]
    size: ClassVar[str] = ""
    recipe: ClassVar[dict[str, Any]] = {}
    identity_at_start: ClassVar[bool] = False
    batch_invariant: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ()
    task_prompts: ClassVar[bool | None] = None
    promptless: ClassVar[tuple[str, ...]] = ()
    on_suite: ClassVar[dict[str, dict[str, Any]]] = {}
    differences: ClassVar[tuple[Difference, ...]] = ()

    @classmethod
    def defaults(cls, anatomy: Anatomy) -> dict[str, Any]:
        """The published options on a backbone of that anatomy."""
        return {}

    @classmethod
    def learning_rate(cls, anatomy: Anatomy) -> float | None:
        """The published peak learning rate, or None where the source has none."""
        return cls.learning_rates.get(anatomy.rates_of or anatomy.backbone, cls.learning_rates.get(anatomy.family))

    def has_prompts(self, suite: str) -> bool:
        """Whether the texts of a suite (`image-text`, or `image-text/vqa` for a part) begin with the task's prompt."""
        return suite.split("/")[0] not in self.promptless if self.task_prompts is None else self.task_prompts

    def label(self, changed: dict[str, Any]) -> str:
        """How tables call the method with these options changed from their defaults."""
        return str(MethodSpec(self.name, changed))

    def behaviour(self, anatomy: Anatomy) -> dict[str, str]:
        """Name of each difference that matters here → "published", "intended", or the option's own value."""
        states = {}
        for difference in self.differences:
            state = {"family": anatomy.family, **vars(self)}
            if all(state[key] == value for key, value in difference.where.items()):
                value = state[difference.option]
                states[difference.name] = (
                    "published" if value == difference.published
                    else "intended" if value == difference.intended
                    else f"{difference.option} = {value}"
                )  # fmt: skip
        return states

    def skip(self, anatomy: Anatomy) -> str | None:
        """Why this method cannot be had on a backbone of that anatomy, in a few words; None where it can."""
        lacking = [OFFERS.get(name, name) for name in anatomy.lacks(self.needs)]
        return f"the backbone has no {' and no '.join(lacking)}" if lacking else None

    @abstractmethod
    def design(self, anatomy: Anatomy) -> Design:
        """The design on a backbone of that anatomy."""


ATTRIBUTES = {
    "source": Text,
    "reference": str,
    "year": int,
    "learning_rates": dict[str, Rate],
    "size": str,
    "recipe": dict[str, Any],
    "identity_at_start": bool,
    "batch_invariant": bool,
    "needs": tuple[str, ...],
    "task_prompts": bool | None,
    "promptless": tuple[str, ...],
    "on_suite": dict[str, dict[str, Any]],
    "differences": tuple[Difference, ...],
}


def faults(plugin: Any) -> Iterator[str]:
    """What keeps a class from being a method, a line each."""
    if not issubclass(plugin, Method):
        yield "it does not extend pet_bench.pet.Method"
        return
    yield from option_faults(plugin)
    yield from attribute_faults(plugin, ATTRIBUTES)
    if isinstance(plugin.recipe, dict) and (foreign_keys := plugin.recipe.keys() - {f.name for f in fields(Recipe)}):
        yield f"recipe has no {', '.join(map(str, foreign_keys))}"
    options = getattr(plugin, "__pydantic_fields__", {})
    if isinstance(plugin.size, str) and plugin.size and plugin.size not in options:
        yield f"size is {plugin.size}, which is no option"
    for name in options.keys() & set(OF_THE_GRID):
        yield f"the option {name} is a grid file's own word"
    for name, option in options.items():
        if option.is_required():
            continue
        try:
            json.dumps(to_jsonable_python(option.get_default(call_default_factory=True)), allow_nan=False)
        except (TypeError, ValueError) as error:
            yield f"the option {name} is no plain data by default: {error}"
    for difference in plugin.differences if isinstance(plugin.differences, tuple) else ():
        if isinstance(difference, Difference):
            for name in {difference.option, *difference.where} - options.keys() - {"family"}:
                yield f"the difference {difference.name} is about {name}, which is no option"


def restored(method: MethodSpec) -> MethodSpec:
    """The method of a resolved spec with the options that stand at their neutral value, to be built.

    Raises UserError where there is no such method.
    """
    return replace(method, options=filled(METHODS.get(method.name), method.options))


def build_method(spec: MethodSpec, anatomy: Anatomy, suite: str = "") -> Method:
    """The method of that name with its defaults on `anatomy`, and in a suite, overridden by the spec's options.

    Raises UserError for an unknown name (with the nearest) and, together, for every unknown option or bad value.
    """
    cls = METHODS.get(spec.name)
    defaults = ask(cls, "defaults", anatomy, returns=dict[str, Any]) | cls.on_suite.get(suite.split("/")[0], {})
    try:
        with foreign(f"{title(cls)}: its options raised"):
            return validate(cls, {**defaults, **spec.options}, title(cls))
    except UserError as error:
        if spec.options:
            raise
        raise PluginError(*error.faults) from error.__cause__  # nobody gave any


def default_spec(method: Method) -> MethodSpec:
    """The spec of a built method with every option filled in, as plain data."""
    with foreign(f"{title(method)}: its options are no plain data:"):
        options = TypeAdapter(type(method)).dump_python(method, mode="json")
    return MethodSpec(method.name, options)


def design_of(method: Method, anatomy: Anatomy) -> Design:
    """The design of a built method; raises PluginError where the method fails or its parts are no such parts.

    Raises UserError where the scope has none of the layers that it attaches to.
    """
    if reason := _no_layers(method, anatomy):
        raise UserError(reason)
    design = ask(method, "design", anatomy, returns=Design)
    try:
        for part in design.parts():
            check_part(part)
    except PluginError as error:
        raise error.within(title(method)) from error
    return design


def why_skipped(method: Method, anatomy: Anatomy) -> str | None:
    """Why a built method is left out on a backbone of that anatomy; raises PluginError where the method fails."""
    scope = ", ".join(anatomy.scope)
    if reason := ask(method, "skip", anatomy, returns=str | None):
        return reason
    if reason := _no_layers(method, anatomy):
        return reason
    try:
        design = design_of(method, anatomy)
    except PluginError:
        return None  # which is said where it is to be attached
    sites = {site for insert in design.inserts for site in insert.sites}
    if out := sorted({site for site in sites if site in anatomy.sites and not anatomy.in_scope(site)}):
        return f"it attaches at {out[0]}, which is not in the scope {scope}"
    if not (design.inserts or design.doors) and {*design.train} == {"visual"} and beyond("visual", anatomy):
        return f"it trains the projector alone, which is not in the scope {scope}"
    return None


def _no_layers(method: Method, anatomy: Anatomy) -> str | None:
    """That the scope has no layers, where a method of that name would insert something in some."""
    if anatomy.adapted:
        return None
    layered = anatomy.scoped(["language"])
    if not design_of(build_method(MethodSpec(method.name), layered), layered).inserts:
        return None
    return f"it attaches to layers, and the scope {', '.join(anatomy.scope)} has none"


def attach_method(model: Model, method: Method, design: Design, tasks: Iterable[str]) -> None:
    """Attach the design of a built method.

    Raises UserError as `attach` does, and where the method is none for that backbone (`why_skipped`). Where nobody has
    chosen an option, a design that does not fit is the method's own fault, a PluginError: it costs the method, and no
    other of a grid.
    """
    if reason := why_skipped(method, model.anatomy):
        raise UserError(reason)
    try:
        attach(model, design, tasks)
    except PluginError:
        raise
    except UserError as error:
        if default_spec(method) == default_spec(build_method(MethodSpec(method.name), model.anatomy)):
            raise PluginError(*error.faults) from error
        raise
