"""Ladder side-tuning (Sung et al., NeurIPS 2022): a small network beside the frozen backbone, fed from every layer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.bart.modeling_bart import BartDecoderLayer, BartEncoderLayer
from transformers.models.t5.modeling_t5 import T5Block

from pet_bench.errors import UserError
from pet_bench.pet import Builder, Design, Door, Encoded, Method, VisionLanguageModel
from pet_bench.spec import STRICT, Size

NARROWED = {
    "bart": ("d_model", "encoder_ffn_dim", "decoder_ffn_dim"),
    "t5": ("d_model", "d_ff", "d_kv"),
}
# What pruning walks through, in order: the projections of a module that read the same input keep the same rows.
ALIKE = {
    "bart": (("q_proj", "k_proj", "v_proj"), ("out_proj",)),
    "t5": (("q", "k", "v"), ("o",), ("wi",), ("wi_0", "wi_1"), ("wo",)),
}
WALK = {
    "bart": {
        "encoder": ("self_attn", "self_attn_layer_norm", "fc1", "fc2", "final_layer_norm"),
        "decoder": (
            "self_attn", "self_attn_layer_norm", "encoder_attn", "encoder_attn_layer_norm", "fc1", "fc2",
            "final_layer_norm",
        ),
    },
    "t5": {
        "encoder": (
            "layer.0.layer_norm", "layer.0.SelfAttention", "layer.1.layer_norm", "layer.1.DenseReluDense",
        ),
        "decoder": (
            "layer.0.layer_norm", "layer.0.SelfAttention", "layer.1.layer_norm", "layer.1.EncDecAttention",
            "layer.2.layer_norm", "layer.2.DenseReluDense",
        ),
    },
}  # fmt: skip


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

    def open(self, build):
        side = SideNetwork(self, build)
        if self.init != "random":
            side.prune(build.model, torch.Tensor.abs)
        side.hook(build.model)
        return side

    def before_training(self, model, batches):
        if self.init == "fisher":
            squared = fisher_importance(model, batches, self.samples)
            model.pet["side"].prune(model, lambda weight: squared[weight])


class SideStack(nn.Module):
    """Blocks of width w with what feeds them: first and downs (d → w), gates a_l, and T5's last norm."""

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
        lm, self.family = model.lm, model.family.name
        self.lm = (lm,)  # in a tuple: the backbone is no part of the side network
        configs = {stack: _narrow(module.config, self.family, spec.reduction) for stack, module in _stacks(lm).items()}
        width = next(iter(configs.values())).d_model
        self.configs = configs
        stacks = {}
        for stack, config in configs.items():
            layers = len(_layers(lm, stack))
            blocks = [_block(self.family, stack, config, i, layers) for i in range(layers)]
            norm = model.family.norm(width, eps=config.layer_norm_epsilon) if self.family == "t5" else None
            stacks[stack] = SideStack(build, blocks, model.shape.d, width, norm)
        self.encoder, self.decoder = stacks["encoder"], stacks["decoder"]
        self.up = build.linear(width, model.shape.d)
        for module in [*self.encoder.blocks.modules(), *self.decoder.blocks.modules()]:
            if isinstance(module, nn.Linear):
                build.family.init_linear(module)
        self.run: dict = {}  # of the decoder pass under way

    def _attend_alike(self) -> None:
        """The side attends with the backbone's kernel of the moment: it shares the masks, which are made for one."""
        for stack, config in self.configs.items():
            config._attn_implementation = _stacks(self.lm[0])[stack].config._attn_implementation

    # the encoder ----------------------------------------------------------------------------------------------------

    def encode(self, words: Tensor, mask: Tensor, visual: Tensor, seen: Tensor) -> Encoded:
        """words (B, L, d) and mask (B, L), visual (B, P, d) and mask `seen` (B, P) → the backbone's states of the text,
        the side's of all."""
        self._attend_alike()
        encoder, images = _stacks(self.lm[0])["encoder"], visual.shape[1]
        if self.family == "bart":
            words = encoder.layernorm_embedding(words)
        h = _dropout(encoder, words)
        s = self.encoder.first(_dropout(encoder, torch.cat([words, visual], dim=1)))
        joint = torch.cat([mask, seen], dim=1)
        masks = [
            create_bidirectional_mask(config=encoder.config, inputs_embeds=x, attention_mask=m)
            for x, m in ((h, mask), (s, joint))
        ]
        biases = self._biases(words.shape[1], images) if self.family == "t5" else ((), ())
        for i, layer in enumerate(_layers(self.lm[0], "encoder")):
            h = _first(layer(h, masks[0], *biases[0]))
            s = _first(self.encoder.blocks[i](self.encoder.rung(i, s, h, images), masks[1], *biases[1]))
        if self.family == "t5":
            h, s = (_dropout(encoder, norm(x)) for norm, x in ((encoder.final_layer_norm, h), (self.encoder.norm, s)))
        return Encoded(h, mask=mask, side=s, side_mask=joint)

    def _biases(self, length: int, images: int) -> tuple[tuple[Tensor], tuple[Tensor]]:
        """Relative position biases of backbone and side; the side's is 0 wherever an image token is concerned."""
        tables = [blocks[0].layer[0].SelfAttention for blocks in (self.lm[0].encoder.block, self.encoder.blocks)]
        backbone, side = (table.compute_bias(length, length) for table in tables)
        return (backbone,), (F.pad(side, (0, images, 0, images)),)

    # the decoder ----------------------------------------------------------------------------------------------------

    def hook(self, model: VisionLanguageModel) -> None:
        """Run the side decoder whenever the stock decoder runs, a block after each of its layers."""
        lm = model.lm
        decoder, layers = _stacks(lm)["decoder"], _layers(lm, "decoder")
        lm.register_forward_pre_hook(self._start, with_kwargs=True)
        if self.family == "bart":
            decoder.layernorm_embedding.register_forward_hook(self._embedded)
        else:
            decoder.register_forward_pre_hook(self._embed, with_kwargs=True)
        layers[0].register_forward_pre_hook(self._begin)
        for i, layer in enumerate(layers):
            layer.register_forward_hook(partial(self._step, i), with_kwargs=True)
        decoder.register_forward_hook(self._finish)

    def _start(self, lm, args, kwargs) -> None:
        self._attend_alike()
        encoded = kwargs.get("encoder_outputs")
        self.run = {"encoded": encoded} if getattr(encoded, "side", None) is not None else {}

    def _embed(self, decoder, args, kwargs) -> None:
        if self.run:
            self.run["words"] = decoder.embed_tokens(kwargs["input_ids"])

    def _embedded(self, norm, args, words: Tensor) -> None:
        if self.run:
            self.run["words"] = words

    def _begin(self, layer, args) -> None:
        if self.run:
            decoder = _stacks(self.lm[0])["decoder"]
            self.run["s"] = self.decoder.first(_dropout(decoder, self.run["words"]))

    def _step(self, i: int, layer, args, kwargs, output) -> None:
        if not self.run:
            return
        run, cache = self.run, kwargs.get("past_key_values")
        if i == 0:
            run["mask"] = create_bidirectional_mask(
                config=_stacks(self.lm[0])["decoder"].config, inputs_embeds=run["s"],
                attention_mask=run["encoded"].side_mask.to(torch.bool), encoder_hidden_states=run["encoded"].side,
            )  # fmt: skip
            run["biases"] = (None, None)
            _grow(cache, 2 * len(self.decoder.blocks))
        s = self.decoder.rung(i, run["s"], _first(output))
        block, side, mask = self.decoder.blocks[i], run["encoded"].side, args[1]
        if self.family == "bart":
            run["s"] = block(s, mask, side, encoder_attention_mask=run["mask"], past_key_values=cache)
        else:
            run["s"], *run["biases"] = block(
                s, mask, run["biases"][0], side, run["mask"], run["biases"][1], past_key_values=cache
            )

    def _finish(self, decoder, args, output):
        if not self.run:
            return None
        s = self.run.pop("s")
        if self.family == "t5":
            s = _dropout(decoder, self.decoder.norm(s))
        output.last_hidden_state = self.up(s)
        self.run = {}
        return output

    # initialisation -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def prune(self, model: VisionLanguageModel, importance: Callable[[Tensor], Tensor]) -> None:
        """Structured pruning of the backbone's layers into the side blocks; see `LST`.

        importance: of every entry of a weight matrix of the backbone, in the shape of that matrix.
        """
        lm = model.lm
        kept = _largest(importance(model.words).abs().sum(0), self.up.in_features)
        for stack, side in (("encoder", self.encoder), ("decoder", self.decoder)):
            columns = kept
            for layer, block in zip(_layers(lm, stack), side.blocks, strict=True):
                for path in WALK[self.family][stack]:
                    columns = _prune(layer, block, path, columns, importance, ALIKE[self.family])
            if side.norm is not None:
                side.norm.weight.copy_(_stacks(lm)[stack].final_layer_norm.weight[columns])
        if self.family == "t5":
            for stack, side in (("encoder", self.encoder), ("decoder", self.decoder)):
                source = _layers(lm, stack)[0].layer[0].SelfAttention.relative_attention_bias
                side.blocks[0].layer[0].SelfAttention.relative_attention_bias.weight.copy_(source.weight)


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


def fisher_importance(model: VisionLanguageModel, batches: Iterable, samples: int) -> dict[Tensor, Tensor]:
    """Squared gradients of the frozen backbone's text-only loss, summed over single examples.

    batches: with `input_ids` (B, L) and `target_ids` (B, T), padded with -100; as many as make up `samples` are read.
    Keys are the weights themselves.
    """
    lm = model.lm
    weights = [parameter for parameter in lm.parameters() if parameter.dim() > 1]
    squared = {weight: torch.zeros_like(weight) for weight in weights}
    trained = {weight: weight.requires_grad for weight in weights}
    was_training, done = lm.training, 0
    lm.eval()
    for weight in weights:
        weight.requires_grad_(True)
    for batch in batches:
        for text, target in zip(batch.input_ids, batch.target_ids, strict=True):
            if done == samples or (target == -100).all():
                continue
            mask = (text != lm.config.pad_token_id).long()
            loss = lm(input_ids=text[None], attention_mask=mask[None], labels=target[None]).loss
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
            for weight, gradient in zip(weights, gradients, strict=True):
                if gradient is not None:
                    squared[weight] += gradient**2
            done += 1
        if done == samples:
            break
    for weight in weights:
        weight.requires_grad_(trained[weight])
    lm.train(was_training)
    return squared


def _stacks(lm) -> dict[str, nn.Module]:
    return {"encoder": lm.get_encoder(), "decoder": lm.get_decoder()}


def _layers(lm, stack: str) -> nn.ModuleList:
    module = _stacks(lm)[stack]
    return module.layers if hasattr(module, "layers") else module.block


def _narrow(config, family: str, reduction: int):
    narrow = copy.deepcopy(config)
    for key in NARROWED[family]:
        if getattr(config, key) % reduction:
            raise UserError(f"lst: {key} = {getattr(config, key)} does not divide by the reduction {reduction}")
        setattr(narrow, key, getattr(config, key) // reduction)
    if family == "bart" and narrow.d_model % narrow.num_attention_heads:  # T5's heads have a width of their own
        raise UserError(
            f"lst: {narrow.num_attention_heads} heads do not divide the width {narrow.d_model} (reduction {reduction})"
        )
    return narrow


def _block(family: str, stack: str, config, i: int, layers: int) -> nn.Module:
    """A stock layer. A decoder's keeps its keys and values behind those of the backbone's layers in the cache."""
    if family == "t5":
        return T5Block(config, has_relative_attention_bias=i == 0, layer_idx=layers + i)
    return BartEncoderLayer(config) if stack == "encoder" else BartDecoderLayer(config, layer_idx=layers + i)


def _grow(cache, layers: int) -> None:
    """Room in a generation cache for the side's layers, which then follow the beams as all others do."""
    if cache is not None:
        for part in (cache.self_attention_cache, cache.cross_attention_cache):
            part.layers += [type(part.layers[0])() for _ in range(layers - len(part.layers))]


def _dropout(stack: nn.Module, x: Tensor) -> Tensor:
    """The stock stack's dropout of embeddings and final states."""
    return F.dropout(x, stack.dropout, stack.training) if isinstance(stack.dropout, float) else stack.dropout(x)


def _first(output) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


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
    learning_rates: ClassVar = {"t5": 3e-3, "mini-bart": 3e-3, "mini-t5": 3e-3}
    recipe: ClassVar = {"weight_decay": 0.03}

    reduction: Size = Field(default=4, gt=1)
    init: Literal["fisher", "magnitude", "random"] = "fisher"
    samples: Size = 1024

    def design(self, shape):
        return Design(doors=(Side(reduction=self.reduction, init=self.init, samples=self.samples),))
