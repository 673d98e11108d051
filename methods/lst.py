"""Ladder side-tuning (Sung et al., NeurIPS 2022): a small network beside the frozen backbone, fed from every layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.masking_utils import create_bidirectional_mask

from pet_bench.backbone import Encoded, EncoderDecoder, EncoderDecoderFamily
from pet_bench.backbone.encoder_decoder import drop, first
from pet_bench.errors import UserError
from pet_bench.pet import Builder, Design, Door, Method, Model
from pet_bench.pet.masked import squared_gradients
from pet_bench.spec import STRICT, Size

STACKS = ("encoder", "decoder")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Side(Door):
    """The side network of `LST`, whose docstring has the formulas and the options."""

    kind: ClassVar = "side"
    reduction: Size = Field(gt=1)
    init: Literal["fisher", "magnitude", "random"]
    samples: Size

    @property
    def formula(self) -> str:
        return (
            "encoder, decoder: s ← SideBlock_l(g_l s + (1 - g_l) down_l(h_l)), g_l = σ(a_l / 0.1);  "
            f"head reads U norm(s) + u  (width d/{self.reduction})"
        )

    @property
    def reads_weights(self) -> bool:
        return True

    def open(self, build):
        model = cast(EncoderDecoder, build.model)  # `LST.needs` both stacks
        side = SideNetwork(self, build)
        if self.init != "random":
            side.prune(model, torch.Tensor.abs)
        side.hook(model)
        return side

    def before_training(self, model, batches):
        if self.init == "fisher":
            squared = fisher_importance(model, batches, self.samples)
            side = cast(SideNetwork, model.pet["side"])
            side.prune(cast(EncoderDecoder, model), lambda weight: squared[weight])


class SideStack(nn.Module):
    """Blocks of width w with what feeds them: first and downs (d → w), gates a_l, and a last norm where stacks have
    one."""

    def __init__(self, build: Builder, blocks: list[nn.Module], d: int, width: int, norm: nn.Module | None):
        super().__init__()
        self.first = build.linear(d, width)
        self.downs = nn.ModuleList(build.linear(d, width) for _ in blocks)
        self.gates = nn.ParameterList(nn.Parameter(torch.zeros(1)) for _ in blocks)
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm

    def rung(self, i: int, s: Tensor, h: Tensor, pad: int = 0) -> Tensor:
        """g s + (1 - g) down(h), with `pad` positions of zeros behind h: the input of block i."""
        gate = torch.sigmoid(self.gates[i] / 0.1)
        return gate * s + (1 - gate) * F.pad(self.downs[i](h), (0, 0, 0, pad))


class SideNetwork(nn.Module):
    def __init__(self, spec: Side, build: Builder):
        super().__init__()
        model = build.model
        assert isinstance(model, EncoderDecoder)
        self.backbone = (model,)  # in a tuple: the backbone is no part of the side network
        self.family: type[EncoderDecoderFamily] = model.family
        try:
            self.configs = {s: self.family.narrowed(self.stock(s).config, spec.reduction) for s in STACKS}
        except UserError as error:
            raise UserError(*(f"lst: {fault}" for fault in error.faults)) from error
        width = self.configs["encoder"].d_model
        self.encoder, self.decoder = (self._stack(build, stack, width) for stack in STACKS)
        self.up = build.linear(width, build.anatomy.d)
        for module in [*self.encoder.blocks.modules(), *self.decoder.blocks.modules()]:
            if isinstance(module, nn.Linear):
                self.family.init_linear(module)
        self.run: dict[str, Any] = {}  # of the decoder pass under way

    def stock(self, stack: str) -> Any:
        """The backbone's encoder or decoder."""
        return self.backbone[0].at(self.backbone[0].anatomy.stacks[stack].path)

    def layers(self, stack: str) -> nn.ModuleList:
        return self.family.layers(self.backbone[0].lm, stack)

    def _stack(self, build: Builder, stack: str, width: int) -> SideStack:
        config, count = self.configs[stack], len(self.layers(stack))
        blocks = [self.family.block(stack, config, i, count) for i in range(count)]
        normed = self.family.last_norm(self.stock(stack)) is not None
        norm = self.family.norm(width, eps=config.layer_norm_epsilon) if normed else None
        return SideStack(build, blocks, build.anatomy.d, width, norm)

    def _attend_alike(self) -> None:
        """The side attends with the backbone's kernel of the moment: it shares the masks, which are made for one."""
        for stack, config in self.configs.items():
            config._attn_implementation = self.stock(stack).config._attn_implementation

    # the encoder ----------------------------------------------------------------------------------------------------

    def encode(self, words: Tensor, mask: Tensor, visual: Tensor, seen: Tensor) -> Encoded:
        """words (B, L, d) and mask (B, L), visual (B, P, d) and mask `seen` (B, P) → the backbone's states of the text,
        the side's of all."""
        self._attend_alike()
        encoder, family, length, images = self.stock("encoder"), self.family, words.shape[1], visual.shape[1]
        words = family.begin(encoder, words)
        h = drop(encoder, words)
        s = self.encoder.first(drop(encoder, torch.cat([words, visual], dim=1)))
        joint = torch.cat([mask, seen], dim=1)
        text_mask, joint_mask = (
            create_bidirectional_mask(config=encoder.config, inputs_embeds=x, attention_mask=m)
            for x, m in ((h, mask), (s, joint))
        )
        positions = family.positions(self.layers("encoder"), length, 0)
        own = family.positions(self.encoder.blocks, length, images)
        for i, layer in enumerate(self.layers("encoder")):
            h = first(layer(h, text_mask, *positions))
            s = first(self.encoder.blocks[i](self.encoder.rung(i, s, h, images), joint_mask, *own))
        h = family.finish(encoder, family.last_norm(encoder), h)
        s = family.finish(encoder, self.encoder.norm, s)
        return Encoded(h, mask=mask, side=s, side_mask=joint)

    # the decoder ----------------------------------------------------------------------------------------------------

    def hook(self, model: EncoderDecoder) -> None:
        """Run the side decoder whenever the stock decoder runs, a block after each of its layers."""
        layers = self.layers("decoder")
        model.lm.register_forward_pre_hook(self._start, with_kwargs=True)
        model.at(model.anatomy.sites["decoder.input"].writer).register_forward_hook(self._embedded)
        layers[0].register_forward_pre_hook(self._begin)
        for i, layer in enumerate(layers):
            layer.register_forward_hook(partial(self._step, i), with_kwargs=True)
        model.at(model.anatomy.sites["decoder.output"].writer).register_forward_hook(self._finish)

    def _start(self, lm, args, kwargs) -> None:
        self._attend_alike()
        encoded = kwargs.get("encoder_outputs")
        self.run = {"encoded": encoded} if getattr(encoded, "side", None) is not None else {}

    def _embedded(self, module, args, words: Tensor) -> None:
        if self.run:
            self.run["words"] = words

    def _begin(self, layer, args) -> None:
        if self.run:
            self.run["s"] = self.decoder.first(drop(self.stock("decoder"), self.run["words"]))

    def _step(self, i: int, layer, args, kwargs, output) -> None:
        if not self.run:
            return
        run, cache = self.run, kwargs.get("past_key_values")
        if i == 0:
            run["mask"] = create_bidirectional_mask(
                config=self.stock("decoder").config, inputs_embeds=run["s"],
                attention_mask=run["encoded"].side_mask.to(torch.bool), encoder_hidden_states=run["encoded"].side,
            )  # fmt: skip
            run["kept"] = {}
            _grow(cache, 2 * len(self.decoder.blocks))
        s = self.decoder.rung(i, run["s"], first(output))
        block, side, mask = self.decoder.blocks[i], run["encoded"].side, args[1]
        run["s"] = self.family.decode_step(block, s, mask, side, run["mask"], cache, run["kept"])

    def _finish(self, decoder, args, output):
        if not self.run:
            return None
        states = self.family.finish(decoder, self.decoder.norm, self.run.pop("s"))
        output.last_hidden_state = self.up(states)
        self.run = {}
        return output

    # initialisation -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def prune(self, model: EncoderDecoder, importance: Callable[[Tensor], Tensor]) -> None:
        """Structured pruning of the backbone's layers into the side blocks; see `LST`.

        importance: of every entry of a weight matrix of the backbone, in the shape of that matrix.
        """
        kept = _largest(importance(model.words).abs().sum(0), self.up.in_features)
        for stack, side in zip(STACKS, (self.encoder, self.decoder), strict=True):
            columns = kept
            for layer, block in zip(self.layers(stack), side.blocks, strict=True):
                for path in self.family.walk[stack]:
                    columns = _prune(layer, block, path, columns, importance, self.family.alike)
            norm: Any = self.family.last_norm(self.stock(stack))
            if side.norm is not None:
                cast(Any, side.norm).weight.copy_(norm.weight[columns])
            for own, table in zip(side.blocks.modules(), self.layers(stack).modules(), strict=True):
                if isinstance(own, nn.Embedding) and isinstance(table, nn.Embedding):  # of relative positions
                    own.weight.copy_(table.weight)


def _prune(
    layer, block, path: str, columns: Tensor, importance: Callable, alike: tuple[tuple[str, ...], ...]
) -> Tensor:
    """Copy what is kept of `path` from layer to block; gives the rows kept, which the next matrix reads."""
    source, target = layer.get_submodule(path), block.get_submodule(path)
    groups = [names for names in alike if hasattr(source, names[0])]
    if isinstance(source, nn.Linear):
        head, _, name = path.rpartition(".")
        source, target, groups = layer.get_submodule(head), block.get_submodule(head), [(name,)]
    for names in groups:
        columns = _select(source, target, names, columns, importance)
    if not groups:
        for name, parameter in source.named_parameters():
            target.get_parameter(name).copy_(parameter[columns])
    return columns


def _select(source, target, names: tuple[str, ...], columns: Tensor, importance: Callable) -> Tensor:
    pairs = [(source.get_submodule(name), target.get_submodule(name)) for name in names]
    scores = [importance(old.weight)[:, columns].abs().sum(1) for old, _ in pairs]
    rows = _largest(torch.stack(scores).prod(0), pairs[0][1].out_features)
    for old, new in pairs:
        new.weight.copy_(old.weight[rows][:, columns])
        if new.bias is not None:
            new.bias.copy_(old.bias[rows])
    return rows


def _largest(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest, in their order."""
    return scores.topk(count).indices.sort().values


def fisher_importance(model: Model, batches: Iterable, samples: int) -> dict[Tensor, Tensor]:
    """Squared gradients of the frozen backbone's text-only loss, summed over single examples.

    batches: with `inputs["text"]` (B, L) and `targets` (B, T), padded with -100; as many as make up `samples` are read.
    Keys are the weights themselves.
    """
    lm = model.lm
    weights: list[Tensor] = [parameter for parameter in lm.parameters() if parameter.dim() > 1]

    def losses() -> Iterator[Tensor]:
        for batch in batches:
            for text, target in zip(batch.inputs["text"], batch.targets, strict=True):
                if not (target == -100).all():
                    mask = (text != lm.config.pad_token_id).long()
                    yield lm(input_ids=text[None], attention_mask=mask[None], labels=target[None]).loss

    return dict(zip(weights, squared_gradients(lm, weights, islice(losses(), samples)), strict=True))


def _grow(cache, layers: int) -> None:
    """Room in a generation cache for the side's layers, which then follow the beams as all others do."""
    if cache is not None:
        for part in (cache.self_attention_cache, cache.cross_attention_cache):
            part.layers += [type(part.layers[0])() for _ in range(layers - len(part.layers))]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LST(Method):
    """Encoder and decoder of width d/reduction beside the frozen ones, one stock block for each of their layers:

        s_0 = down_0([text; image]),  s ← SideBlock_l(g_l s + (1 - g_l) down_l(h_l)),  g_l = σ(a_l / 0.1), a_l = 0
        head reads U norm(s) + u instead of the decoder's states

    The backbone reads the text alone, h_l (B, L, d) are its layers' outputs, with zeros where the images are. Images
    pass through the side network only; its decoder's cross-attention reads its encoder. In the decoder [text; image]
    is the words so far. The recipe has the published weight decay of 0.03.

    init: the side blocks start as a structured pruning of the backbone. From the embedding's d/reduction columns of
    largest importance on, every matrix keeps the columns selected last and its rows (1 of `reduction`) of largest
    importance, q, k and v jointly by the product of theirs, and so the two of a gated feed-forward; norms follow,
    relative-bias tables are whole. importance is "fisher", squared gradients of the text-only loss over `samples`
    training examples, as published; "magnitude", |W|, needs no data, and stands until training begins. "random" starts
    as the family's new layers do.

    BART has no published run. Its side blocks are BART layers, its embedding norm acts on the text before both
    networks, and as it is post-norm there is no last norm.
    """

    name: ClassVar = "lst"
    source: ClassVar = "Ladder-Side-Tuning (Sung et al., NeurIPS 2022)"
    year: ClassVar = 2022
    size: ClassVar = "reduction"
    learning_rates: ClassVar = {"t5": 3e-3, "mini-bart": 3e-3, "mini-t5": 3e-3}
    recipe: ClassVar = {"weight_decay": 0.03}
    needs: ClassVar = ("encoder", "decoder.cross_attn", "side blocks")

    reduction: Size = Field(default=4, gt=1)
    init: Literal["fisher", "magnitude", "random"] = "fisher"
    samples: Size = 1024

    def design(self, anatomy):
        return Design(doors=(Side(reduction=self.reduction, init=self.init, samples=self.samples),))
