"""The places of a backbone, as data: which stacks it has, and under which path in the model each site is. No torch.

A **site** is a pair of modules of one layer, (reader, writer): X is the reader's input, H the writer's output. Names
are the same on every backbone, `{stack}` being `vision`, `projector`, `encoder` or `decoder`:

    {stack}.self_attn, {stack}.cross_attn, {stack}.ffn    the sub-layers
    ….query, .key, .value, .out                           projections of an attention, reader and writer in one
    ….in, .gate, .out                                     of a feed-forward; `gate` where it is gated
    ….ffn.hidden                                          the hidden units that `.out` reads
    ….cross_attn.memory                                   the encoder's states as keys and values read them
    {stack}.input, {stack}.output                         what the first layer reads, what the last one wrote; X is H
    {stack}.layer                                         whole layers
    projector.in, projector.out                           its first linear layer and, where it has another, its last
    decoder.head                                          the output layer

For a whole sub-layer X is the input of the sub-layer and H its output before dropout and the residual (METHODS.md
section 2): in a post-norm model X is the normalised output of the previous sub-layer; in a pre-norm model the raw
residual stream, which is what the sub-layer's norm reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from pet_bench.errors import UserError
from pet_bench.spec import SCOPE, ScopePart

T = TypeVar("T")
STACKS = ("vision", "projector", "encoder", "decoder")
SUB_LAYERS = ("self_attn", "cross_attn", "ffn")
OFFERS = {  # what methods may ask for that is no place, and what a model without it has not
    "prompts": "place for learned words before its text",
    "side blocks": "thinner copies of its layers",
    "features": "visual tokens that are made of stored features",
}
ELSE = "*"  # the key of `among` for every other family


class Site(NamedTuple):
    """Paths inside the model, with `{i}` for the layer; reader None: X is H.

    argument: X and H are both that keyword argument of the writer, which gets H' in its place. feeds: the linear
    layer whose input H is, where neither reader nor writer tells its width. before: H is what the writer reads, and
    not what it writes. part: (k, n), H is the k-th of n equal parts of what the writer gives, as of a fused projection.
    """

    reader: str | None
    writer: str
    argument: str | None = None
    feeds: str | None = None
    before: bool = False
    part: tuple[int, int] | None = None


@dataclass(frozen=True)
class Stack:
    """A stack of layers. width: of its residual stream; path: where it is in the model; blocks: its layers.

    names: what stands for `{i}` in the paths of each layer, where that is not its number, and for `{i.x}` its attribute
    x; widths: that of each layer, where they differ. also: modules and parameters that belong to it and lie elsewhere.
    flat: its states are (N, d), those of all images one behind the other, with no axis of examples. over_channels: some
    of its attentions have a key for each channel, and none for a position.
    """

    layers: int
    width: int
    heads: int
    path: str
    blocks: str = ""
    names: tuple[str, ...] = ()
    widths: tuple[int, ...] = ()
    also: tuple[str, ...] = ()
    flat: bool = False
    over_channels: bool = False

    def name_of(self, layer: int) -> int | str:
        return self.names[layer] if self.names else layer

    def width_of(self, layer: int) -> int:
        return self.widths[layer] if self.widths else self.width

    def holds(self, parameter: str) -> bool:
        """Whether a parameter of that name is one of its own."""
        return any(parameter == path or parameter.startswith(f"{path}.") for path in (self.path, *self.also))


@dataclass(frozen=True)
class Anatomy:
    """A backbone's stacks and sites, and what else a method may scale with or ask for.

    reading, writing: the stacks that read the prompt and write the answer. embeddings: the word tables, the reading
    stack's first; head: the output layer. biases: whether the family's linear layers have them. rates_of: the backbone,
    if not this one, whose learning rates apply. offers: what else methods may ask for that is no place: "prompts", that
    embedded words may be edited before a stack reads them, "side blocks", that thinner copies of layers can be made,
    "features", that visual tokens are made of stored features.

    scope: the parts that a method touches. Inserts go to the language model and to the vision tower where those are in
    it, the projector trains where it is in it, and all else stays frozen.
    """

    backbone: str
    family: str
    stacks: Mapping[str, Stack]
    sites: Mapping[str, Site]
    reading: str
    writing: str
    embeddings: tuple[str, ...]
    head: str
    biases: bool
    rates_of: str = ""
    offers: tuple[str, ...] = ()
    scope: tuple[ScopePart, ...] = ("language", "projector")

    def scoped(self, scope: Iterable[ScopePart] | None) -> Anatomy:
        """With another scope; None: this one. Raises UserError for a part that the model does not have."""
        if scope is None:
            return self
        if lacking := [part for part in scope if part not in self.parts]:
            possible = ", ".join(self.parts)
            raise UserError(f"scope: {self.backbone} has no {' and no '.join(lacking)} (possible: {possible})")
        return replace(self, scope=tuple(part for part in SCOPE if part in scope))

    @property
    def parts(self) -> tuple[ScopePart, ...]:
        """Those that the model has."""
        return tuple(part for part in SCOPE if part == "language" or part in self.stacks)

    def stack_of(self, parameter: str) -> str | None:
        """The stack that a parameter of the backbone belongs to; a projector may lie inside of another one."""
        holding = [name for name, stack in self.stacks.items() if stack.holds(parameter)]
        return "projector" if "projector" in holding else next(iter(holding), None)

    def part_of(self, parameter: str) -> ScopePart:
        """The part that a parameter of the backbone belongs to; words, output layer and all else are language."""
        return as_part(self.stack_of(parameter))

    def in_scope(self, site: str) -> bool:
        """Whether an insert at that site is part of the scope."""
        return as_part(site.partition(".")[0]) in self.scope

    @property
    def adapted(self) -> tuple[str, ...]:
        """The stacks that inserts go to."""
        tower = ("vision",) if "vision" in self.scope else ()
        return (*tower, *(self.words if "language" in self.scope else ()))

    @property
    def d(self) -> int:
        """Width of the stack that writes."""
        return self.stacks[self.writing].width

    @property
    def heads(self) -> int:
        return self.stacks[self.writing].heads

    @property
    def words(self) -> tuple[str, ...]:
        """The stacks that words pass through, the reading one first."""
        return tuple(dict.fromkeys((self.reading, self.writing)))

    @property
    def sub_layers(self) -> tuple[str, ...]:
        """`encoder.self_attn`, `encoder.ffn`, `decoder.self_attn` …: those of the adapted stacks, in their order."""
        names = (f"{stack}.{name}" for stack in self.adapted for name in SUB_LAYERS)
        return tuple(name for name in names if name in self.sites)

    @property
    def attentions(self) -> tuple[str, ...]:
        return tuple(name for name in self.sub_layers if name.endswith("attn"))

    def projections(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """These projections of every attention; where a model has none, `in` and `out` of its feed-forwards."""
        if not self.attentions:
            return tuple(f"{site}.{name}" for site in self.sub_layers for name in ("in", "out"))
        return tuple(f"{site}.{name}" for site in self.attentions for name in names)

    def leaves(self, sites: Iterable[str]) -> list[str]:
        """What the modules that write these sites are called in their layers: `encoder.self_attn.query` → `q_proj`."""
        return sorted({self.sites[name].writer.rpartition(".")[2] for name in sites})

    def lacks(self, needs: tuple[str, ...]) -> list[str]:
        """Those of these stacks, sites and offers that there are not."""
        return [name for name in needs if not (name in self.stacks or name in self.sites or name in self.offers)]

    def among(self, table: Mapping[str, T]) -> T:
        """The value of this family in a table of published ones by family, or the one of every other family, "*"."""
        return table[self.family if self.family in table else ELSE]


def as_part(stack: str | None) -> ScopePart:
    """The part of the model that a stack is of; what lies in none is of the language model."""
    for part in SCOPE:
        if part == stack:
            return part
    return "language"


def attention_sites(name: str, reader: str, writer: str, projections: Mapping[str, str]) -> dict[str, Site]:
    """The site of an attention and of its projections, which are called so inside the writer."""
    sites = {name: Site(reader, writer)}
    for projection, path in projections.items():
        sites[f"{name}.{projection}"] = Site(f"{writer}.{path}", f"{writer}.{path}")
    if name.endswith("cross_attn"):
        sites[f"{name}.memory"] = Site(writer, writer, "key_value_states")
    return sites


def ffn_sites(
    name: str, reader: str, writer: str, projections: Mapping[str, str], hidden: str, *, before: bool = False
) -> dict[str, Site]:
    """The site of a feed-forward, of its projections and of its hidden units.

    hidden: the module that writes the hidden units, or with `before` the one that reads them.
    """
    sites = {name: Site(reader, writer)}
    sites |= {f"{name}.{projection}": Site(path, path) for projection, path in projections.items()}
    return sites | {f"{name}.hidden": Site(reader, hidden, feeds=projections["out"], before=before)}


def gated_sites(name: str, reader: str, mlp: str) -> dict[str, Site]:
    """The sites of a gated feed-forward: W_out(act(W_gate x) ⊙ W_in x), no module of which writes the product."""
    paths = {"gate": f"{mlp}.gate_proj", "in": f"{mlp}.up_proj", "out": f"{mlp}.down_proj"}
    return ffn_sites(name, reader, mlp, paths, paths["out"], before=True)
