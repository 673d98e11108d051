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
    decoder.head                                          the output layer

For a whole sub-layer X is the input of the sub-layer and H its output before dropout and the residual (METHODS.md
section 2): in a post-norm model X is the normalised output of the previous sub-layer; in a pre-norm model the raw
residual stream, which is what the sub-layer's norm reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

T = TypeVar("T")
STACKS = ("vision", "projector", "encoder", "decoder")
SUB_LAYERS = ("self_attn", "cross_attn", "ffn")
ELSE = "*"  # the key of `among` for every other family


class Site(NamedTuple):
    """Paths inside the model, with `{i}` for the layer; reader None: X is H.

    argument: X and H are both that keyword argument of the writer, which gets H' in its place. feeds: the linear
    layer whose input H is, where neither reader nor writer tells its width. before: H is what the writer reads, and
    not what it writes.
    """

    reader: str | None
    writer: str
    argument: str | None = None
    feeds: str | None = None
    before: bool = False


@dataclass(frozen=True)
class Stack:
    """A stack of layers. width: of its residual stream; path: where it is in the model; blocks: its layers."""

    layers: int
    width: int
    heads: int
    path: str
    blocks: str = ""


@dataclass(frozen=True)
class Anatomy:
    """A backbone's stacks and sites, and what else a method may scale with or ask for.

    reading, writing: the stacks that read the prompt and write the answer. embeddings: the word tables, the reading
    stack's first; head: the output layer. biases: whether the family's linear layers have them. rates_of: the backbone,
    if not this one, whose learning rates apply.
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
        """`encoder.self_attn`, `encoder.ffn`, `decoder.self_attn` …: those of the stacks of words, in their order."""
        names = (f"{stack}.{name}" for stack in self.words for name in SUB_LAYERS)
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
        """Those of these stacks and sites that there are not."""
        return [name for name in needs if name not in self.stacks and name not in self.sites]

    def among(self, table: Mapping[str, T]) -> T:
        """The value of this family in a table of published ones by family, or the one of every other family, "*"."""
        return table[self.family if self.family in table else ELSE]


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
