"""The side networks UniPT and SHERL, on the authors' frozen stacks, which are restated here, and on stock BART, T5."""

from __future__ import annotations

import re
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertLayer

from pet_bench.backbone import Backbone, Encoded, EncoderDecoder, build
from pet_bench.methods import sherl, unipt
from pet_bench.pet import Design, attach
from pet_bench.pet.parts import Door
from pet_bench.pet.side import NormedDown, Wide
from pet_bench.spec import Visual
from tests.followups.restate import Fixture, Tensors, below, called


def renamed(weights: Tensors, table: dict[str, str]) -> Tensors:
    """Those whose whole name one of these patterns is, by the names that it is replaced with."""
    ours = {}
    for name, tensor in weights.items():
        for pattern, name_of in table.items():
            if re.fullmatch(pattern, name):
                ours[re.sub(pattern, name_of, name)] = tensor
    return ours


def normed(theirs: str, ours: str) -> dict[str, str]:
    """Names of Linear, LN; both may have a number."""
    last = r"\2" if "(" in theirs else r"\1"
    return {rf"{theirs}\.{i}\.(\w+)": f"{ours}.{name}.{last}" for i, name in enumerate(("linear", "norm"))}


def wide(theirs: str, ours: str) -> dict[str, str]:
    """Names of Linear, relu, Linear, LN."""
    names = {0: "up", 2: "down", 3: "norm"}
    return {rf"{theirs}\.{i}\.(\w+)": rf"{ours}.{name}.\1" for i, name in names.items()}


def features(given: Tensors) -> list[Tensor]:
    return [given[f"h{i}"] for i in range(sum(name[1:].isdigit() for name in given if name.startswith("h")))]


# frozen stacks -------------------------------------------------------------------------------------------------------


def bert(w: Tensors, fixture: Fixture, states: Tensor, mask: Tensor, before: Any = None) -> list[Tensor]:
    """f_0 … f_L of BERT's layers, the stock ones; mask (B, N) is 1 where there is no padding.

    before: what the last layer reads, of the features so far.
    """
    sizes, out = fixture.flags, [states]
    config = BertConfig(
        hidden_size=sizes["d"], num_attention_heads=sizes["heads"], intermediate_size=sizes["ffn"],
        layer_norm_eps=1e-12, hidden_act="gelu",
    )  # fmt: skip
    config._attn_implementation = "eager"
    layer = BertLayer(config).eval()
    for i in range(sizes["layers"]):
        if before and i == sizes["layers"] - 1:
            states = before(out)
        scores = -10000.0 * (1 - mask[:, None, None, :])
        states = called(layer, below(w, f"layer.{i}"), states, scores)
        states = states[0] if isinstance(states, tuple) else states
        out.append(states)
    return out


def joint(fixture: Fixture, w: Tensors, given: Tensors) -> tuple[Tensor, Tensor]:
    """[text; LN(W f + b)] and its mask."""
    d = (fixture.flags["d"],)
    visual = F.linear(given["visual"], w["visn_fc.visn_fc.weight"], w["visn_fc.visn_fc.bias"])
    visual = F.layer_norm(visual, d, w["visn_fc.visn_layer_norm.weight"], w["visn_fc.visn_layer_norm.bias"], 1e-12)
    words = given["lang"]
    if fixture.flags["detach_visual_projection"]:
        visual = visual.detach()
        words = words if "input.lang" in fixture.gradients else words.detach()
    mask = torch.cat([given["lang_mask"], torch.ones(visual.shape[:2])], dim=1)
    return torch.cat([words, visual], dim=1), mask


def attention(w: Tensors, name: str, heads: int, q: Tensor, k: Tensor, v: Tensor, padded: Tensor | None) -> Tensor:
    """Of torch, batch first; padded (B, S)."""
    module = nn.MultiheadAttention(q.shape[-1], heads, batch_first=True).eval()
    return called(module, below(w, name), q, k, v, key_padding_mask=padded, need_weights=False)[0]


def norm(w: Tensors, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])


def feed_forward(w: Tensors, x: Tensor) -> Tensor:
    hidden = torch.relu(F.linear(x, w["linear1.weight"], w["linear1.bias"]))
    return F.linear(hidden, w["linear2.weight"], w["linear2.bias"])


class Detr:
    """MDETR's frozen transformer over [image; text], batch first; layers are DETR's, post-norm.

    places: position embeddings of the encoder's states (B, N, d), none of text; padded (B, N).
    """

    def __init__(self, fixture: Fixture, w: Tensors, given: Tensors):
        self.heads, self.layers, self.w = fixture.flags["heads"], fixture.flags["layers"], w
        assert fixture.flags["pass_pos_and_query"]
        image, text = given["src"].flatten(2).transpose(1, 2), given["text"].transpose(0, 1)
        self.states = torch.cat([image, text], dim=1)
        self.places = torch.cat([given["pos_embed"].flatten(2).transpose(1, 2), torch.zeros_like(text)], dim=1)
        self.padded = torch.cat([given["mask"].flatten(1), given["text_mask"]], dim=1).bool()
        self.asked = given["query_embed"].expand(len(text), -1, -1)

    def encoder(self) -> list[Tensor]:
        """f_0 … f_L."""
        out = [self.states]
        for i in range(self.layers[0]):
            w, x = below(self.w, f"encoder.layers.{i}"), out[-1]
            placed = x + self.places
            x = norm(w, "norm1", x + attention(w, "self_attn", self.heads, placed, placed, x, self.padded))
            out.append(norm(w, "norm2", x + feed_forward(w, x)))
        return out

    def decoder(self, memory: Tensor, before: Any = None) -> list[Tensor]:
        """f_0 … f_L. before: what the last layer reads in the place of x and of the memory, of the features so far."""
        out = [torch.zeros_like(self.asked)]
        for i in range(self.layers[1]):
            w, x = below(self.w, f"decoder.layers.{i}"), out[-1]
            if before and i == self.layers[1] - 1:
                x, memory = before(out)
            asked = x + self.asked
            x = norm(w, "norm1", x + attention(w, "self_attn", self.heads, asked, asked, x, None))
            keys = memory + self.places
            cross = attention(w, "cross_attn_image", self.heads, x + self.asked, keys, memory, self.padded)
            x = norm(w, "norm3", x + cross)
            out.append(norm(w, "norm4", x + feed_forward(w, x)))
        return out


# UniPT ---------------------------------------------------------------------------------------------------------------


class Ended(nn.Module):
    """A side stack and what leads back to the width of the backbone."""

    def __init__(self, side: nn.Module, up: nn.Module):
        super().__init__()
        self.side, self.up = side, up

    def forward(self, features: list[Tensor], mask: Tensor) -> Tensor:
        side = cast(unipt.SideStack, self.side)
        return self.up(side(side.read(features[:-1], features[-1]), mask, mask.shape[1]))


def unipt_vse(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    sizes, layers = fixture.flags, fixture.flags["layers"]
    width = sizes["width"]
    linear = NormedDown(width, width)
    side = unipt.SideStack([NormedDown(sizes["d"], width) for _ in range(layers)], width, linear, eps=sizes["eps_l1"])
    ours = Ended(side, nn.Sequential(nn.ReLU(), nn.Linear(width, sizes["embed"])))
    weights = renamed(w, {
        **normed(r"downsample_layers\.(\d+)", r"side.downs.\1"),
        r"gate_layer\.(\w+)": r"side.interaction.confidence.\1",
        **normed("projection_layer", "side.project"),
        r"upsample_layer\.1\.(\w+)": r"up.1.\1",
    })  # fmt: skip
    mask = torch.arange(sizes["N"]) < given["lengths"][:, None]
    return {"output/y": called(ours, weights, features(given), mask)}


class Pooled(nn.Module):
    """CLIP4Clip's: the anchor is given, a pooled vector, and only looks at the layers."""

    def __init__(self, layers: int, d: int, embed: int, width: int):
        super().__init__()

        def linear(d_in: int) -> nn.Module:
            return nn.Sequential(nn.ReLU(), nn.Linear(d_in, width))

        self.downs, self.down = nn.ModuleList(linear(d) for _ in range(layers)), linear(embed)
        self.interaction = unipt.Interaction(width, own="position", floor=True)
        self.up = nn.Sequential(nn.ReLU(), nn.Linear(width, embed))

    def forward(self, features: list[Tensor], anchor: Tensor, mask: Tensor, position: Tensor | None) -> Tensor:
        targets = torch.stack([down(f) for down, f in zip(self.downs, features, strict=True)], dim=1)
        return anchor + self.up(self.interaction(self.down(anchor), targets, mask, 1, position))


def unipt_clip4clip(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    sizes = fixture.flags
    ours = Pooled(sizes["layers"], sizes["d"], sizes["embed"], sizes["width"])
    weights = renamed(w, {
        r"downsample_layers\.(\d+)\.1\.(\w+)": r"downs.\1.1.\2",
        r"downsample_layer\.1\.(\w+)": r"down.1.\1",
        r"gate_layer\.(\w+)": r"interaction.confidence.\1",
        r"upsample_layer\.1\.(\w+)": r"up.1.\1",
    })  # fmt: skip
    mask = given["mask"] if sizes["mask"] else torch.ones(given["h0"].shape[:2])
    position = given["position"] if sizes["position"] else None
    return {"output/y": called(ours, weights, features(given), given["anchor"], mask, position)[:, 0]}


def unipt_clipvil(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    sizes = fixture.flags
    states, mask = joint(fixture, w, given)
    d, width = sizes["d"], sizes["side"]
    downs = [NormedDown(d, width) for _ in range(sizes["layers"] + 1)]
    ours = Ended(unipt.SideStack(downs, width, Wide(d, width), eps=1e-6), nn.Linear(width, d))
    for i in range(sizes["layers"]):  # the first is f_0's, the last the anchor's
        w = w | {f"side_l.{i + 1}.{name}": it for name, it in below(w, f"side_downsamples_l.{i}").items()}
    w = w | {f"side_l.0.{name}": it for name, it in below(w, "side_first_downsample_l").items()}
    weights = renamed(w, {
        **normed(r"side_l\.(\d+)", r"side.downs.\1"),
        **wide("side_projection_l", "side.project"),
        r"side_gate_layer_l\.(\w+)": r"side.interaction.confidence.\1",
        r"side_final_upsample_l\.0\.(\w+)": r"up.\1",
    })  # fmt: skip
    return {"output/joint": called(ours, weights, bert(w, fixture, states, mask), mask)}


class Detached(nn.Module):
    """MDETR's two side stacks, whose targets are the inputs of some layers."""

    def __init__(self, d: int, width: int, targets: int):
        super().__init__()

        def stack(cross: bool) -> unipt.SideStack:
            downs = [NormedDown(d, width) for _ in range(targets + 1)]
            return unipt.SideStack(downs, width, Wide(d, width), cross=cross, eps=1e-7)

        self.encoder, self.decoder, self.up = stack(False), stack(True), unipt.Up(width, d, nn.LayerNorm)

    def forward(self, encoder: list[Tensor], decoder: list[Tensor], mask: Tensor) -> tuple[Tensor, Tensor]:
        """Features of both stacks, the anchors' last, and the encoder's mask → S and the stack of outputs."""
        memory = self.encoder(self.encoder.read(encoder[:-1], encoder[-1]), mask, mask.shape[1])
        states = self.decoder.read(decoder[:-1], decoder[-1], memory, mask)
        last = states.shape[2]
        s = self.decoder(states, mask.new_ones(len(mask), last), last)
        return memory, torch.stack([self.up(t) for t in (*states[:, :-1].unbind(1), s)])


def unipt_mdetr(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    sizes, detr = fixture.flags, Detr(fixture, w, given)
    chosen = sizes["select_layers"]
    encoded = detr.encoder()
    decoded = detr.decoder(encoded[-1])
    weights = {}
    for stack in ("encoder", "decoder"):
        weights |= renamed(w, {
            **normed(rf"side_downsamples_{stack}\.(\d+)", rf"{stack}.downs.\1"),
            **normed(f"side_downsample0_{stack}", f"{stack}.downs.{len(chosen)}"),
            **wide(f"side_projection_{stack}", f"{stack}.project"),
            rf"side_gate_layer_{stack}\.(\w+)": rf"{stack}.interaction.confidence.\1",
        })  # fmt: skip
    weights |= renamed(w, {
        **normed(r"side_projection_crosser\.(\d+)", r"decoder.crosses.\1"),
        r"side_final_upsample\.1\.(\w+)": r"up.linear.\1",
        r"side_final_upsample\.2\.(\w+)": r"up.norm.\1",
    })  # fmt: skip
    ours = Detached(sizes["d"], sizes["side"], len(chosen))
    anchors = encoded[-1], norm(w, "decoder.norm", decoded[-1])
    memory, out = called(
        ours, weights, [*(encoded[i] for i in chosen), anchors[0]], [*(decoded[i] for i in chosen), anchors[1]],
        ~detr.padded,
    )  # fmt: skip
    return {"output/hs": out, "output/memory": encoded[-1].transpose(0, 1), "output/side_memory": memory}


# whole models --------------------------------------------------------------------------------------------------------


class Whole(nn.Module):
    """A tiny stock encoder-decoder, with a door of ours, that reads text alone; `model.…` are its parameters."""

    def __init__(self, family: str, config: dict[str, Any], door: Door | None = None):
        super().__init__()
        self.model = cast(EncoderDecoder, build(Backbone("tiny", family, "", config), Visual(4, 1, 1)))
        if door:
            attach(self.model, Design(doors=(door,)))
        self.eval()

    def forward(self, words: Tensor, mask: Tensor, labels: Tensor, beams: int = 0, length: int = 0) -> Any:
        """words: ids (B, L), or what is embedded of them (B, L, d) → the encoder's and side states, and logits; with
        beams, the ids that are generated, start token and padding included."""
        model = self.model
        embedded = words if words.is_floating_point() else model.family.embed(model.lm, words)
        model.context.mask = mask = mask.bool()
        states = model.family.encode(model.lm, embedded, embedded[:, :0], mask, model.joint, model.states)
        encoded = Encoded(states, mask=mask, side=model.context.side)
        if beams:
            generated = model.lm.generate(
                encoder_outputs=encoded, attention_mask=mask.long(), num_beams=beams, max_length=length,
                do_sample=False,
            )  # fmt: skip
            return F.pad(generated, (0, length - generated.shape[1]), value=model.pad)
        return encoded, model.decode(encoded, model.shift_right(labels))

    def weights(self, stock: Tensors, ours: Tensors) -> Tensors:
        """Of the stock model, by its names, and of the door, by those below it; nothing is read by the visual
        embedding."""
        own = {f"model.{name}": it for name, it in self.model.named_parameters() if name.startswith("visual.")}
        (kind,) = self.model.pet or ("",)
        return {
            **own,
            **{f"model.lm.{name}": it for name, it in stock.items()},
            **{f"model.pet.{kind}.{name}": it for name, it in ours.items()},
        }


def config_of(fixture: Fixture) -> tuple[str, dict[str, Any]]:
    """Family and configuration of our transfers' fixtures."""
    sizes = fixture.about["sizes"]  # among the flags, `layers` are those that are read
    d, heads, layers, ffn, vocab = (sizes[name] for name in ("d", "heads", "layers", "ffn", "vocab"))
    if fixture.name.endswith("t5"):
        return "t5", {
            "vocab_size": vocab, "d_model": d, "d_kv": sizes["key_width"], "d_ff": ffn, "num_layers": layers,
            "num_decoder_layers": layers, "num_heads": heads, "decoder_start_token_id": 0,
        }  # fmt: skip
    positions = fixture.tensors["param/lm.model.encoder.embed_positions.weight"].shape[0] - 2
    return "bart", {
        "vocab_size": vocab, "d_model": d, "encoder_layers": layers, "decoder_layers": layers,
        "encoder_attention_heads": heads, "decoder_attention_heads": heads, "encoder_ffn_dim": ffn,
        "decoder_ffn_dim": ffn, "max_position_embeddings": positions,
    }  # fmt: skip


def transferred(fixture: Fixture, w: Tensors, given: Tensors, door: Door, ours: Tensors) -> Tensors:
    """The outputs of our transfers' fixtures."""
    family, config = config_of(fixture)
    asked = given["input_ids"], given["attention_mask"], given["labels"]
    bare, whole = Whole(family, config), Whole(family, config, door)
    stock = below(w, "lm")
    with torch.no_grad():
        backbone = called(bare, bare.weights(stock, {}), *asked)[1]
    encoded, logits = called(whole, whole.weights(stock, ours), *asked)
    return {
        "output/logits": logits, "output/logits_backbone": backbone, "output/side_memory": encoded.side,
        "output/loss": F.cross_entropy(logits.transpose(1, 2), given["labels"]),
    }  # fmt: skip


def unipt_whole(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    sizes = fixture.flags
    assert sizes["layers"] == "all" and sizes["causal"]
    door = unipt.Side(reduction=sizes["d"] // sizes["width"], eps=sizes["eps"])
    ours = renamed(w, {
        r"(encoder|decoder)\.down\.(.*)": r"stacks.\1.downs.\2",
        r"(encoder|decoder)\.project\.in\.(.*)": r"stacks.\1.project.up.\2",
        r"(encoder|decoder)\.project\.out\.(.*)": r"stacks.\1.project.down.\2",
        r"(encoder|decoder)\.project\.norm\.(.*)": r"stacks.\1.project.norm.\2",
        r"(encoder|decoder)\.gate\.(.*)": r"stacks.\1.interaction.confidence.\2",
        r"decoder\.cross\.(.*)": r"stacks.decoder.crosses.\1",
        r"(up\..*)": r"\1",
    })  # fmt: skip
    return transferred(fixture, w, given, door, ours)


# SHERL ---------------------------------------------------------------------------------------------------------------


def blocks(theirs: str, ours: str) -> dict[str, str]:
    """Names of a block, in all of its released forms."""
    layer, linear = rf"{theirs}\.hor_block\.(\d+)", rf"{ours}.downs.\1"
    return {
        rf"{theirs}\.gate_params": f"{ours}.gate",
        rf"{theirs}\.guide_block\.fc_attn\.(\w+)": rf"{ours}.guide.\1",
        rf"{layer}\.fc1\.(\w+)": rf"{linear}.down.\2",
        rf"{layer}\.fc2\.(\w+)": rf"{linear}.value.\2",
        rf"{layer}\.fc3\.(\w+)": rf"{linear}.gate.\2",
        **normed(rf"{layer}\.fc", linear),
        rf"{layer}\.fc\.(\w+)": rf"{linear}.linear.\2",
        rf"{layer}\.norm\.(\w+)": rf"{linear}.norm.\2",
        **wide(rf"{theirs}\.guide_block\.mlp", f"{ours}.mix"),
        rf"{theirs}\.fc_out\.(?:1\.)?(\w+)": rf"{ours}.up.\1",
        rf"{theirs}\.fc_out\.2\.(\w+)": rf"{ours}.end.\1",
        rf"{theirs}\.norm_out\.(\w+)": rf"{ours}.end.\1",
    }


def sherl_vse(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    sizes, shown = fixture.flags, features(given)
    d, width = sizes["d"], sizes["width"]
    ours = sherl.Block(
        [NormedDown(d, width) for _ in shown], d, width, end=nn.LayerNorm(d, eps=1e-12), eps=sizes["eps"]
    )
    weights = renamed({f"block.{name}": it for name, it in w.items()}, blocks("block", "block"))
    return {"output/y": called(ours, below(weights, "block"), shown, given["last"])}


def sherl_clipvil(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    sizes = fixture.flags
    states, mask = joint(fixture, w, given)
    ours = sherl.Block.of("gated", sizes["layers"], sizes["d"], sizes["side"])
    weights = below(renamed(w, blocks("side_block", "side_block")), "side_block")
    out = bert(w, fixture, states, mask, before=lambda shown: called(ours, weights, shown, shown[-1]))
    return {"output/joint": out[-1]}


def sherl_mdetr(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    sizes, detr = fixture.flags, Detr(fixture, w, given)
    memory: Tensor

    def block(stack: str, shown: list[Tensor]) -> Tensor:
        chosen = sizes["select_layers"][stack]
        ours = sherl.Block.of("normed", len(chosen), sizes["d"], sizes["side"])
        weights = below(renamed(w, blocks(rf"{stack}\.side_block", "side_block")), "side_block")
        return called(ours, weights, [shown[i + 1] for i in chosen], shown[-1])

    encoded, entered = detr.encoder(), []

    def before(shown: list[Tensor]) -> tuple[Tensor, Tensor]:
        entered.append(block("decoder", shown))
        return entered[0], memory

    memory = block("encoder", encoded)
    decoded = detr.decoder(encoded[-1], before)
    out = torch.stack([entered[0], norm(w, "decoder.norm", decoded[-1])])
    sides = {"output/memory": encoded[-1], "output/side_memory": memory}
    return {"output/hs": out, **{name: it.transpose(0, 1) for name, it in sides.items()}}


def sherl_bart(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    sizes = fixture.flags
    chosen = [[i + 1 for i in sizes[f"{stack}_layers"]] for stack in ("encoder", "decoder")]
    d, width = sizes["d"], fixture.tensors["param/encoder.up.weight"].shape[1]
    assert sizes["block"].startswith("MDETR")
    first = [0] if sizes["embedding_in_encoder_list"] else []
    door = sherl.Side(form="normed", reduction=d // width, encoder=(*first, *chosen[0]), decoder=tuple(chosen[1]))
    ours = renamed(w, {
        r"(encoder|decoder)\.(down\.\d+|up)\.(.*)": r"blocks.\1.\2.\3",
        r"(encoder|decoder)\.attend\.(.*)": r"blocks.\1.guide.\2",
        r"(encoder|decoder)\.mlp\.in\.(.*)": r"blocks.\1.mix.up.\2",
        r"(encoder|decoder)\.mlp\.out\.(.*)": r"blocks.\1.mix.down.\2",
        r"(encoder|decoder)\.mlp\.norm\.(.*)": r"blocks.\1.mix.norm.\2",
        r"(encoder|decoder)\.norm\.(.*)": r"blocks.\1.end.\2",
        r"(encoder|decoder)\.gate": r"blocks.\1.gate",
    })  # fmt: skip
    ours = {name.replace(".down.", ".downs.", 1) if ".mix." not in name else name: it for name, it in ours.items()}
    return transferred(fixture, w, given, door, ours)


def sherl_t5(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    sizes = fixture.flags
    assert sizes["gate_T"] == sherl.TEMPERATURE
    config = {
        "vocab_size": sizes["vocab"], "d_model": sizes["d_model"], "d_kv": sizes["d_kv"], "d_ff": sizes["d_ff"],
        "num_layers": sizes["layers"], "num_decoder_layers": sizes["decoder_layers"], "num_heads": sizes["heads"],
        "decoder_start_token_id": 0,
    }  # fmt: skip
    door = sherl.Side(
        form="gated", reduction=sizes["task_reduction_factor"],
        encoder=(0, *(i + 1 for i in sizes["encoder_side_layers"])),
        decoder=(0, *(i + 1 for i in sizes["decoder_side_layers"] if i < sizes["decoder_layers"] - 1)),
        merge_last=sizes["merge_last"], distill=sizes["lambda_distill"], cut=False,
    )  # fmt: skip
    sided = re.compile("side_|final_side")
    ours = renamed(w, {
        **blocks(r"encoder\.side_mtsa_block", "blocks.encoder"),
        **blocks(r"decoder\.side_mtsa_block", "blocks.decoder"),
        r"(encoder|decoder)\.final_side_layer_norm\.weight": r"norms.\1.weight",
        "side_gate_params_merge_last": "merge",
    })  # fmt: skip
    words = given.get("input_ids", given.get("inputs_embeds"))
    assert words is not None
    whole = Whole("t5", config, door)
    weights = whole.weights({name: it for name, it in w.items() if not sided.search(name)}, ours)
    asked, seen = (words, given["attention_mask"], given["labels"]), []
    network = cast(sherl.SideNetwork, whole.model.pet["sherl"])
    network.norms["decoder"].register_forward_hook(lambda module, args, states: seen.append(states))
    encoded, logits = called(whole, weights, *asked)
    loss = sizes["lambda_label"] * F.cross_entropy(logits.transpose(1, 2), given["labels"])
    out = {
        "output/encoder_last_hidden_state": encoded.last_hidden_state,
        "output/encoder_last_side_hidden_state": encoded.side,
        "output/decoder_last_side_hidden_state": seen[0],
        "output/logits": logits,
        "output/loss": loss + door.penalty(whole.model),
    }
    for key in fixture.tensors:
        if key.startswith("output/generate_beams"):
            out[key] = called(whole, weights, *asked, beams=int(key[-1]), length=fixture.tensors[key].shape[1])
    return out


FIXTURES = {
    r"unipt_vse_module\w*": unipt_vse,
    r"unipt_clip4clip_module\w*": unipt_clip4clip,
    r"unipt_clipvil_encoder\w*": unipt_clipvil,
    r"unipt_mdetr_encdec\w*": unipt_mdetr,
    r"ours_unipt_\w+": unipt_whole,
    r"sherl_vse_block\w*": sherl_vse,
    r"sherl_clipvil_encoder\w*": sherl_clipvil,
    r"sherl_mdetr_encdec\w*": sherl_mdetr,
    r"sherl_t5_\w+": sherl_t5,
    r"ours_sherl_bart\w*": sherl_bart,
}
