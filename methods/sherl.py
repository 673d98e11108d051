"""SHERL (Diao et al., ECCV 2024): frozen features merged beside the backbone and given to its last layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from pet_bench.backbone import EncoderDecoder
from pet_bench.errors import UserError
from pet_bench.pet import Anatomy, Builder, Design, Door, Method
from pet_bench.pet.inserted import states_of, with_states
from pet_bench.pet.select import no_words
from pet_bench.pet.side import FrozenStack, NormedDown, Wide, initialise, read, replaced
from pet_bench.spec import STRICT, Size

TEMPERATURE = 0.1  # of the gates, and of the teacher
# By the number of layers (METHODS_A 2.2, 2.4): the f_i that the two blocks read. On BART, f_0 is ours.
PUBLISHED: dict[str, dict[int, tuple[tuple[int, ...], tuple[int, ...]]]] = {
    "bart": {6: ((0, 1, 2, 4, 6), (1, 3, 4, 5))},
    "t5": {12: ((0, 2, 3, 4, 6, 7, 8, 10, 11, 12), (0, 2, 3, 4, 6, 7, 8, 10, 11))},
    "*": {},
}
Features = tuple[int, ...]
Form = Literal["gated", "normed"]


class GatedDown(nn.Module):
    """(W_2 h + b_2 + h) ⊙ σ(W_3 h + b_3), h = relu(W_1 f + b_1), d → w."""

    def __init__(self, d: int, width: int):
        super().__init__()
        self.down, self.value, self.gate = nn.Linear(d, width), nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, f: Tensor) -> Tensor:
        h = torch.relu(self.down(f))
        return (self.value(h) + h) * torch.sigmoid(self.gate(h))


class Block(nn.Module):
    """B(f_0 … f_{n-1}; last) = out + tanh(q / 0.1) · last, each position by itself, with x_i = D_i(f_i), g = x_{n-1}:

        e_i = relu(w_a · (x_i ⊙ g) + b_a) / ρ_i,  ρ_i = Σ_j relu(x̂_i · x̂_j),  x̂ = x / (‖x‖ + ε),  i, j < n - 1
        out = end(W_o relu(mix(Σ_i β_i x_i) + g) + b_o),  β_i = e_i / (Σ_j |e_j| + ε),  q = 0 at the start

    ρ_i counts j = i too. Where all e_i are 0, g alone is left.
    """

    def __init__(
        self, downs: Sequence[nn.Module], d: int, width: int, *, mix: nn.Module | None = None,
        end: nn.Module | None = None, eps: float = 1e-6,
    ):  # fmt: skip
        super().__init__()
        self.eps, self.gate = eps, nn.Parameter(torch.zeros(1))
        self.guide, self.downs = nn.Linear(width, 1), nn.ModuleList(downs)
        self.mix, self.up, self.end = mix or nn.Identity(), nn.Linear(width, d), end or nn.Identity()

    @classmethod
    def of(cls, form: Form, count: int, d: int, width: int) -> Block:
        """As on T5 and CLIP-ViL, "gated", or on MDETR, "normed"."""
        if form == "gated":
            return cls([GatedDown(d, width) for _ in range(count)], d, width)
        return cls([NormedDown(d, width) for _ in range(count)], d, width, mix=Wide(d, width), end=nn.LayerNorm(d))

    def forward(self, features: Sequence[Tensor], last: Tensor) -> Tensor:
        """n features (B, N, d) and last (B, N, d) → (B, N, d)."""
        *shallow, g = (down(f) for down, f in zip(self.downs, features, strict=True))
        x = torch.stack(shallow, dim=-2)
        y = self.mix((self.weights(x, g)[..., None] * x).sum(-2)) + g
        return self.end(self.up(torch.relu(y))) + torch.tanh(self.gate / TEMPERATURE) * last

    def weights(self, x: Tensor, g: Tensor) -> Tensor:
        """β (B, N, n-1) of x (B, N, n-1, w), g (B, N, w)."""
        unit = x / (x.norm(dim=-1, keepdim=True) + self.eps)
        redundancy = torch.relu(unit @ unit.transpose(-1, -2)).sum(-1)
        redundancy = redundancy + (redundancy == 0)  # of an x_i that is 0, which has no part
        e = torch.relu(self.guide(x * g[..., None, :])[..., 0]) / redundancy
        return e / (e.abs().sum(-1, keepdim=True) + self.eps)


class SideNetwork(nn.Module):
    """A block for each stack of words: the encoder's makes the memory of the decoder's last layer, the decoder's what
    that layer reads."""

    def __init__(self, spec: Side, build: Builder):
        super().__init__()
        anatomy, model = build.anatomy, build.model
        self.spec, self.backbone, self.context = spec, (model,), build.context  # in a tuple: it is no part of this one
        self.reading, self.writing = anatomy.reading, anatomy.writing
        self.two = self.reading != self.writing
        self.frozen = {stack: FrozenStack(model, stack, cut=spec.cut) for stack in anatomy.words}
        width = max(1, anatomy.d // spec.reduction)
        self.blocks = nn.ModuleDict()
        for stack in anatomy.words:
            numbers, place = spec.features[stack], anatomy.stacks[stack]
            most = place.layers - (stack == self.writing)
            if len(numbers) < 2 or not set(numbers) <= {*range(most + 1)}:
                raise UserError(f"sherl: {stack} must be two or more of f_0 to f_{most}, found {list(numbers)}")
            self.blocks[stack] = Block.of(spec.form, len(numbers), place.width, width)
        self.norms = nn.ModuleDict({stack: model.family.norm(anatomy.d) for stack in self._normed()})
        self.merge = nn.Parameter(torch.zeros(1)) if spec.merge_last else None
        self.penalty: Tensor | None = None
        initialise(self.modules(), spec.std)
        for block in self.blocks.values():
            nn.init.constant_(cast(Block, block).guide.bias, spec.guide)
        self._hook()

    def _normed(self) -> list[str]:
        """The stacks whose block has a new norm behind it; raises UserError where an option needs one and there is
        none."""
        model, stacks = self.backbone[0], []
        if self.two and self.spec.form == "gated":
            if not isinstance(model, EncoderDecoder):
                raise UserError(f'sherl: form "gated" on {model.anatomy.backbone}, whose last norms are not known')
            stacks = [self.reading, *([self.writing] if model.family.last_norm(self._stock(self.writing)) else [])]
        if self.writing not in stacks and (self.spec.merge_last or self.spec.distill):
            raise UserError("sherl: merge_last and distill need a decoder that ends in a norm, and the form gated")
        return stacks

    def _stock(self, stack: str) -> Any:
        model = self.backbone[0]
        return model.at(model.anatomy.stacks[stack].path)

    def _hook(self) -> None:
        model, anatomy = self.backbone[0], self.backbone[0].anatomy
        place, sites = anatomy.stacks[self.writing], anatomy.sites
        last = place.name_of(place.layers - 1)
        model.at(place.blocks, last).register_forward_pre_hook(self._enter, with_kwargs=True)
        model.at(sites[f"{self.writing}.output"].writer).register_forward_hook(self._write)
        if self.two:
            model.at(sites[f"{self.reading}.output"].writer).register_forward_hook(self._remember)
            memory = sites[f"{self.writing}.cross_attn.memory"]
            model.at(memory.writer, last).register_forward_pre_hook(self._attend, with_kwargs=True)
        if self.spec.distill:
            model.at(anatomy.head).register_forward_hook(self._compare)

    def _block(self, stack: str, features: Sequence[Tensor], last: Tensor) -> Tensor:
        return self.blocks[stack]([features[i] for i in self.spec.features[stack]], last)

    def _finish(self, stack: str, states: Tensor) -> Tensor:
        """The new norm and the stack's dropout, where there is one."""
        model = self.backbone[0]
        if stack not in self.norms or not isinstance(model, EncoderDecoder):
            return states
        return model.family.finish(self._stock(stack), self.norms[stack], states)

    def _remember(self, module: nn.Module, args: tuple, output: Any) -> None:
        """The memory of the last layer."""
        features, _ = self.frozen[self.reading].take()
        last = features[max(self.spec.features[self.reading])]
        self.context.side = self._finish(self.reading, self._block(self.reading, features, last))

    def _enter(self, layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """What the last layer reads."""
        return replaced(self._block(self.writing, self.frozen[self.writing].features, read(args, kwargs)), args, kwargs)

    def _attend(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        return args, kwargs | {"key_value_states": self.context.side}

    def _write(self, module: nn.Module, args: tuple, output: Any) -> Any:
        """What the output layer reads; behind it, while there are gradients, what it would read of the stock norm."""
        features, _ = self.frozen[self.writing].take()
        if self.writing not in self.norms:
            return None
        stock, states = states_of(output), self._finish(self.writing, features[-1])
        if self.merge is not None:
            share = torch.sigmoid(self.merge / TEMPERATURE)
            states = share * states + (1 - share) * stock
        if self.spec.distill and torch.is_grad_enabled():
            states = torch.cat([states, stock.detach()])
        return with_states(output, states)

    def _compare(self, head: nn.Module, args: tuple, logits: Tensor) -> Tensor | None:
        if not torch.is_grad_enabled():
            return None
        student, teacher = logits.chunk(2)
        teacher = (teacher.detach() / TEMPERATURE).log_softmax(-1)
        loss = F.kl_div(student.log_softmax(-1), teacher, reduction="batchmean", log_target=True)
        self.penalty = self.spec.distill * loss
        return student


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Side(Door):
    """The side network of `SHERL`, whose docstring has the formulas and the options."""

    kind: ClassVar = "sherl"
    form: Form
    reduction: Size
    encoder: Features
    decoder: Features
    std: float = Field(default=0.02, gt=0)
    guide: float = 0.0
    merge_last: bool = False
    distill: float = Field(default=0.0, ge=0)
    cut: bool = True

    @property
    def features(self) -> dict[str, Features]:
        return {"encoder": self.encoder, "decoder": self.decoder}

    @property
    def formula(self) -> str:
        return (
            "the last layer reads B(f; h), and as its memory B(f; h) of the encoder: B = W_o relu(Σ_i β_i x_i + g) + "
            f"tanh(q / 0.1) h, x_i = D_i(f_i), β_i ∝ relu(w · (x_i ⊙ g)) / ρ_i  ({self.form}, width d/{self.reduction})"
        )

    @property
    def counts_padding(self) -> bool:
        return bool(self.distill)

    def open(self, build):
        return SideNetwork(self, build)

    def penalty(self, model):
        side = cast(SideNetwork, model.pet[self.kind])
        penalty, side.penalty = side.penalty, None
        return 0.0 if penalty is None else penalty


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SHERL(Method):
    """The last frozen layer, the only one that gradients pass through, reads what a block makes of all features:

        B(f; h) = out + tanh(q / 0.1) h,  out = W_o relu(Σ_i β_i x_i + g) + b_o,  q = 0 at the start
        x_i = D_i(f_i), d → w, g the deepest,  β_i ∝ relu(w_a · (x_i ⊙ g) + b_a) / ρ_i,  ρ_i = Σ_j relu(x̂_i · x̂_j)

    w = d/reduction. Features are f_0 (what enters the first layer), f_1, …, f_L; `encoder` and `decoder` say which. The
    decoder's last layer reads B(f; f_{L-1}) and attends to the encoder's B(f; its last feature). All is by position,
    and so causal. At the start the backbone's own states are switched off: the model begins anew.

    form: "gated", D = (W_2 h + b_2 + h) ⊙ σ(W_3 h + b_3), h = relu(W_1 f + b_1), as on T5: new norms, which start at 1,
    follow the memory and, in place of the pretrained one, the last layer. "normed", as on MDETR: D = LN(W f + b), a
    network w → d → w with a norm before g is added, a norm of `out`, and the stock end. std: of all new weights. guide:
    b_a at the start, 0 as published; elsewhere than on T5 it is 1 (ours), so that no position begins without features.
    merge_last (off): the output is σ(p / 0.1) of the new norm's and 1 - σ of the pretrained one's, p = 0 at the start.
    distill (0): times KL(teacher, softmax of 10 × the logits of the pretrained norm ‖ student), summed and divided by
    B, as published over padding too. Both need the gated form and a decoder that ends in a norm.

    The released code is for T5 on GLUE, CLIP-ViL, MDETR, VSE. VL-T5 is the authors' T5 on [text; visual]; BART,
    post-norm as MDETR, has its form and layers, and f_0 in the encoder's list (ours: through it alone the visual
    embedding trains); a decoder-only model has the one block before its last layer, as CLIP-ViL, in the normed form
    (ours). The published lists are for 12 and 6 layers, other depths read all. `cut` is ours: the frozen layers read
    copies without a graph. The published learning rate is of T5 on GLUE. On the mini world it learns what text alone
    gives, for the reason that `UniPT` has (docs/mini-world.md).
    """

    name: ClassVar = "sherl"
    source: ClassVar = "SHERL (Diao et al., ECCV 2024), and its code; METHODS_A section 2"
    reference: ClassVar = "Paranioar/SHERL 36b44965 (Apache-2.0)"
    year: ClassVar = 2024
    size: ClassVar = "reduction"
    learning_rates: ClassVar = {"t5": 3e-3, "mini-bart": 3e-3, "mini-t5": 3e-3, "mini-llama": 3e-3}
    recipe: ClassVar = {"weight_decay": 0.0}

    form: Form
    reduction: Size
    encoder: Features
    decoder: Features
    std: float = Field(gt=0)
    guide: float
    merge_last: bool = False
    distill: float = Field(default=0.0, ge=0)
    cut: bool = True

    @classmethod
    def defaults(cls, anatomy):
        encoder, decoder = features(anatomy)
        return {
            "form": anatomy.among({"t5": "gated", "*": "normed"}),
            "reduction": anatomy.among({"t5": 4, "*": 2}),
            "std": anatomy.among({"t5": 0.01, "*": 0.02}),
            "guide": anatomy.among({"t5": 0.0, "*": 1.0}),
            "encoder": list(encoder),
            "decoder": list(decoder),
        }

    def skip(self, anatomy):
        if reason := no_words(anatomy):
            return reason
        if anatomy.reading != anatomy.writing and "decoder.cross_attn.memory" not in anatomy.sites:
            return "the backbone has no cross-attention whose memory could be another one"
        return super().skip(anatomy)

    def design(self, anatomy):
        side = Side(
            form=self.form, reduction=self.reduction, encoder=self.encoder, decoder=self.decoder, std=self.std,
            guide=self.guide, merge_last=self.merge_last, distill=self.distill, cut=self.cut,
        )  # fmt: skip
        return Design(doors=(side,))


def features(anatomy: Anatomy) -> tuple[Features, Features]:
    """Those of the published depth, else all: the decoder's last layer's input is the last."""
    layers = [anatomy.stacks[stack].layers for stack in anatomy.words]
    every = (tuple(range(layers[0] + 1)) if len(layers) > 1 else (), tuple(range(layers[-1])))
    published = anatomy.among(PUBLISHED)
    return published.get(layers[0], every) if len({*layers}) == 1 else every
