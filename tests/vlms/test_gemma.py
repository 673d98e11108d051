"""PaliGemma 1 and 2, Gemma 3 and T5Gemma 2: beside what every family is tested for, what is theirs alone.

The stock model, called by itself with what its processor makes of prompt and answer together, says which logits, masks
and positions are right.
"""

from __future__ import annotations

import json
import pickle
import shutil
from contextlib import contextmanager
from copy import deepcopy
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from pet_bench.backbone import find_backbone, load
from pet_bench.backbone.loading import read_stock
from pet_bench.errors import UserError
from pet_bench.packed import Packed
from pet_bench.pet import Bottleneck, Design, Insert, attach, edit_attention
from pet_bench.pet.select import select
from pet_bench.registry import FAMILIES
from pet_bench.spec import SCOPE, Visual
from tests.conftest import ROUNDED
from tests.vlms import tiny
from tests.vlms.tiny import paligemma2

KINDS = ("paligemma", "paligemma2", "gemma3", "t5gemma2")  # the first is PaliGemma 1, of the same family as 2
DECODERS = KINDS[:3]
kinds = pytest.mark.parametrize("kind", KINDS)
decoders = pytest.mark.parametrize("kind", DECODERS)

TEXTS = ("what color is this circle ?", "is the square red ?", "how many ?")
ANSWERS = ("red", "yes", "two green")
EVERY = tuple(SCOPE)
VISUAL = Visual(width=12, tokens=9, pooled=4)  # of features, which these models are not fed with


def family(kind):
    return FAMILIES.get("paligemma2" if kind == "paligemma" else kind)


@cache
def stock(kind):
    if kind != "paligemma":
        return tiny.build(kind)
    torch.manual_seed(0)
    lm, processor = paligemma2.build("gemma")
    for parameter in lm.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.1)
    return lm.eval(), processor


@cache
def reader(kind):
    return family(kind).reader(deepcopy(stock(kind)[1]))


def model(kind, design=None, scope=EVERY):
    lm = deepcopy(stock(kind)[0])
    family(kind).settle(lm, stock(kind)[1])
    anatomy = family(kind).anatomy(f"tiny-{kind}", lm.config).scoped(scope)
    made = family(kind).model(lm, anatomy, VISUAL).eval()
    torch.manual_seed(1)
    return attach(made, design, ("vqa",)).eval() if design else made


def pictures(rows, each=1):
    return [
        [np.random.default_rng([row, k]).integers(0, 256, (40, 36, 3), np.uint8) for k in range(each)] for row in rows
    ]


def batch(kind, rows=(0, 1, 2), each=1):
    """Inputs and targets of these of three examples, `each` pictures an example."""
    targets = [torch.tensor(reader(kind).targets([ANSWERS[row]], None)[0]) for row in rows]
    inputs = reader(kind).inputs(torch.empty(0), pictures(rows, each), [TEXTS[row] for row in rows])
    return inputs | {"task": "vqa"}, nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=-100)


def logits(model, *given):
    with torch.no_grad():
        return model.logits(*given)


def by_itself(kind, row, each=1):
    """What stock transformers read of a prompt with its answer: the processor's inputs, labels where it has them."""
    seen = [Image.fromarray(picture) for picture in pictures([row], each)[0]]
    processor, text, said = deepcopy(stock(kind)[1]), TEXTS[row], ANSWERS[row]
    if kind.startswith("paligemma"):
        prompt = "<image>" * each + text
        return dict(processor(images=[seen], text=[prompt], suffix=[said], return_tensors="pt"))
    if kind == "t5gemma2":
        prompt = " ".join([*["<boi>"] * each, text])
        given = dict(processor(images=[seen], text=[prompt], return_tensors="pt"))
        return given | {"labels": torch.tensor(reader(kind).targets([said], None))}
    turns = [
        {
            "role": "user",
            "content": [*({"type": "image", "image": one} for one in seen), {"type": "text", "text": text}],
        },
        {"role": "assistant", "content": [{"type": "text", "text": said}]},
    ]
    return dict(processor.apply_chat_template(turns, tokenize=True, return_dict=True, return_tensors="pt"))


@contextmanager
def layers_of(lm):
    """What attention modules of text are told meanwhile: (name, mask as bool, positions, cosines and sines)."""
    told, handles = [], []

    def tell(name):
        def look(module, args, kwargs):
            mask = kwargs.get("attention_mask", kwargs.get("merged_attention_mask"))
            if mask is not None and mask.dtype != torch.bool:
                mask = mask == 0
            told.append((name, mask, kwargs.get("position_ids"), torch.cat(kwargs["position_embeddings"])))

        return look

    for name, module in lm.named_modules():
        if name.endswith("self_attn") and "vision" not in name:
            handles.append(module.register_forward_pre_hook(tell(name), with_kwargs=True))
    yield told
    for handle in handles:
        handle.remove()


# what is read ---------------------------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("each", [1, 2])
@pytest.mark.parametrize("row", range(3))
def test_the_stock_model_reads_the_same_by_itself(kind, row, each):
    """Ids, masks and positions in every layer, and logits to the bit; it also reads the end of the answer."""
    ours, lm, given = model(kind), stock(kind)[0], by_itself(kind, row, each)
    inputs, targets = batch(kind, [row], each)
    with layers_of(lm) as theirs, torch.no_grad():
        expected = lm(**given).logits
    with layers_of(ours.lm) as told:
        got = logits(ours, inputs, targets)
    length, t = targets.shape[1], given["input_ids"].shape[1]
    if kind == "t5gemma2":
        assert torch.equal(got, expected)
        assert torch.equal(inputs["input_ids"], given["input_ids"])
    else:
        joint = torch.cat([inputs["input_ids"], targets], dim=1)
        assert torch.equal(joint, given["input_ids"][:, : joint.shape[1]])
        torch.testing.assert_close(got, expected[:, t - length - 1 : t - 1], atol=1e-6, rtol=1e-6)
    assert len(told) == len(theirs) == 2 * len(ours.anatomy.words)
    for (name, mask, positions, rotary), (same, their_mask, their_positions, their_rotary) in zip(
        told, theirs, strict=True
    ):
        assert name == same
        if mask is not None or their_mask is not None:
            assert torch.equal(mask, their_mask[..., : mask.shape[-2], : mask.shape[-1]])
        if positions is not None:
            assert torch.equal(positions, their_positions[:, : positions.shape[1]])
        assert torch.equal(rotary, their_rotary[:, : rotary.shape[1]])


@pytest.mark.parametrize("kind", ["paligemma", "paligemma2"])
def test_the_labels_are_those_of_the_processor(kind):
    for row in range(3):
        labels = by_itself(kind, row)["labels"]
        assert labels[labels != -100].tolist() == reader(kind).targets([ANSWERS[row]], None)[0]


@pytest.mark.parametrize(("kind", "each"), [(kind, each) for kind in DECODERS for each in (1, 2)])
def test_how_many_pairs_look_ahead(kind, each):
    """PaliGemma: all of the prompt; Gemma 3: image tokens of one picture. None of the answer's."""
    ours, (inputs, targets) = model(kind), batch(kind, [0], each)
    with layers_of(ours.lm) as told:
        logits(ours, inputs, targets)
    prompt = inputs["input_ids"].shape[1]
    pairs = each * 4 * 3 // 2 if kind == "gemma3" else prompt * (prompt - 1) // 2
    for _, mask, *_ in told:
        ahead = mask[0, 0].triu(1)
        assert int(ahead.sum()) == pairs
        assert not ahead[:, prompt:].any()


def test_gemma_3_has_a_layer_of_each_kind():
    ours, (inputs, targets) = model("gemma3"), batch("gemma3", [0])
    with layers_of(ours.lm) as told:
        logits(ours, inputs, targets)
    (_, window, *_), (_, whole, *_) = told
    assert whole[0, 0, -1].all()
    assert window[0, 0, -1].sum() == 8


@decoders
def test_positions_are_those_of_generate_in_a_padded_batch(kind):
    """Of both the prompt and the answer, which is given after the words that generate itself said."""
    ours, (inputs, _) = model(kind), batch(kind)
    with layers_of(ours.lm) as stepwise:
        said = ours.generate(inputs, num_beams=1, max_length=5)
    steps = [positions for name, _, positions, _ in stepwise if "layers.0." in name]
    with layers_of(ours.lm) as told:
        logits(ours, inputs, said)
    mask = inputs["attention_mask"].bool()
    assert not mask.all()
    together, alone = told[0][2], torch.cat(steps, dim=1)
    length = min(together.shape[1], alone.shape[1])
    there = F.pad(mask, (0, length - mask.shape[1]), value=True)
    assert torch.equal(together[:, :length][there], alone[:, :length][there])
    assert torch.equal(together[:, 0], torch.full((3,), int(kind.startswith("paligemma"))))


@kinds
def test_a_text_begins_once(kind):
    inputs, _ = batch(kind)
    ids, words = inputs["input_ids"], reader(kind).tokenizer
    assert ((ids == words.bos_token_id).sum(1) == 1).all()
    places = torch.isin(ids, torch.tensor(model(kind).image_tokens))
    assert (places.sum(1) == (16 if kind.startswith("paligemma") else 4)).all()
    if kind.startswith("paligemma"):
        assert (ids[:, -1] == words.convert_tokens_to_ids("\n")).all()
    assert "labels" not in inputs


def test_the_chat_template_of_a_paligemma_is_its():
    processor = deepcopy(stock("paligemma2")[1])
    processor.chat_template = tiny.turn("<image>")
    inputs = family("paligemma2").reader(processor).inputs(torch.empty(0), pictures([0]), [TEXTS[0]])
    said = processor.tokenizer.decode(inputs["input_ids"][0]).replace("<image>", "")
    assert said.split() == ["user", ":", "<bos>", *TEXTS[0].split(), "assistant", ":"]  # the processor begins there


# what is said ---------------------------------------------------------------------------------------------------------


@kinds
def test_an_answer_ends_as_the_template_ends_it_and_so_does_generation(kind):
    end = reader(kind).tokenizer.convert_tokens_to_ids("<end>" if kind == "gemma3" else "<eos>")
    assert reader(kind).targets(["red"], None)[0][-1] == end
    ours, (inputs, _) = model(kind), batch(kind)
    with torch.no_grad():
        ours.at(ours.anatomy.head).weight[end] = 0
        ours.at(ours.anatomy.head).register_forward_hook(
            lambda layer, args, out: F.one_hot(torch.tensor(end), out.shape[-1]).expand_as(out).to(out)
        )
        said = ours.generate(inputs, num_beams=1, max_length=9)
    assert torch.equal(said, torch.full((3, 1), end))


@kinds
def test_what_is_generated_from_a_cache_is_what_is_likeliest(kind):
    ours, (inputs, _), steps = model(kind), batch(kind), []
    hook = ours.lm.register_forward_hook(lambda *given: steps.append(given[2].logits[:, -1]))
    said = ours.generate(inputs, num_beams=1, max_length=8)
    hook.remove()
    ends = said == reader(kind).end
    live = ends.cumsum(1) - ends.long() == 0
    got = logits(ours, inputs, said.masked_fill(~live, -100))
    torch.testing.assert_close(got[live], torch.stack(steps, dim=1)[live], atol=1e-5, rtol=1e-5)


@kinds
def test_beams_are_those_of_the_stock_model_and_see_their_own_picture(kind):
    ours, lm, (inputs, targets), seen = model(kind), stock(kind)[0], batch(kind), []
    layer = ours.at(ours.anatomy.stacks["decoder"].blocks, 1)
    layer.register_forward_pre_hook(lambda *_: seen.append((ours.context.visual, ours.context.mask)))
    said = ours.generate(inputs, num_beams=3, max_length=6)
    given = {name: it.flat if isinstance(it, Packed) else it for name, it in inputs.items() if name != "task"}
    expected = lm.generate(
        **given, num_beams=3, max_new_tokens=5, do_sample=False, eos_token_id=ours.lm.generation_config.eos_token_id,
        suppress_tokens=ours.image_tokens,
    )  # fmt: skip
    prompt = 1 if kind == "t5gemma2" else inputs["input_ids"].shape[1]
    assert torch.equal(said, expected[:, prompt:])
    logits(ours, inputs, targets)
    *_, (once, mask) = seen
    for visual, beams in seen[1:-1]:
        assert visual.shape[1:] == (16 if kind.startswith("paligemma") else 4, 32)
        torch.testing.assert_close(visual, once.repeat_interleave(3, 0))
        assert torch.equal(beams, mask[:, : beams.shape[1]].repeat_interleave(3, 0))


@kinds
def test_a_batch_and_its_padding_do_not_matter(kind):
    ours, (inputs, targets) = model(kind), batch(kind)
    together, said = logits(ours, inputs, targets), ours.generate(inputs, num_beams=2, max_length=5)
    for row in range(3):
        alone, its = batch(kind, [row])
        torch.testing.assert_close(together[row, : its.shape[1]], logits(ours, alone, its)[0], atol=1e-5, rtol=1e-5)
        one = ours.generate(alone, num_beams=2, max_length=5)[0]
        assert torch.equal(one, said[row, : len(one)])


# places ---------------------------------------------------------------------------------------------------------------

SITES = [(kind, site) for kind in KINDS for site in family(kind).anatomy(kind, stock(kind)[0].config).sites]


@pytest.mark.parametrize(("kind", "site"), SITES)
def test_an_insert_at_a_site(kind, site):
    ours, (inputs, targets) = model(kind, Design((Insert((site,), Bottleneck(2, zero_init=True)),))), batch(kind)
    bare = logits(model(kind), inputs, targets)
    torch.testing.assert_close(logits(ours, inputs, targets), bare, **ROUNDED)
    with torch.no_grad():
        for parameter in ours.pet.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    there = targets != -100
    F.cross_entropy(ours.logits(inputs, targets)[there], targets[there]).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in ours.pet.parameters())
    assert not torch.allclose(logits(ours, inputs, targets), bare)


@kinds
def test_an_edited_attention_is_the_stock_one_until_it_changes(kind):
    """PaliGemma 2 caps its scores, which the stock model does eagerly only."""
    ours, (inputs, targets) = model(kind), batch(kind)
    bare = logits(ours, inputs, targets)
    for name in ours.anatomy.attentions:
        edit_attention(ours, ours.at(ours.anatomy.sites[name].writer), lambda call, *, attend: attend(call))
    torch.testing.assert_close(logits(ours, inputs, targets), bare, atol=1e-6, rtol=1e-6)


@kinds
def test_every_parameter_belongs_to_a_part(kind):
    ours = model(kind)
    sizes = dict.fromkeys(SCOPE, 0)
    for name, parameter in ours.named_parameters():
        sizes[ours.anatomy.part_of(name)] += parameter.numel()
    parts = {name: ours.get_submodule(ours.anatomy.stacks[name].path) for name in ("vision", "projector")}
    for name, module in parts.items():
        assert sizes[name] == sum(parameter.numel() for parameter in module.parameters())
    assert sum(sizes.values()) == sum(parameter.numel() for parameter in ours.parameters())
    path = ours.anatomy.stacks["projector"].path
    own = {f"{path}.{name}" for name, _ in parts["projector"].named_parameters()}
    assert select(ours, "visual") == own
    bare = {f"{path}.{name}" for name in ("mm_input_projection_weight", "mm_soft_emb_norm.weight")}
    assert own == bare or kind.startswith("paligemma")
    assert ("projector.in" in ours.anatomy.sites) == kind.startswith("paligemma")
    assert not any("cross_attn" in site for site in ours.anatomy.sites)


def test_the_text_says_which_norms_a_paligemma_reads_through():
    reads = {kind: model(kind).anatomy.sites["decoder.ffn"].reader.rpartition(".")[2] for kind in KINDS[:2]}
    assert reads == {"paligemma": "post_attention_layernorm", "paligemma2": "pre_feedforward_layernorm"}
    config = deepcopy(stock("paligemma2")[0].config)
    config.text_config.model_type = "llama"
    with pytest.raises(UserError, match=r"its text_config is a llama \(possible: gemma, gemma2\)"):
        family("paligemma2").anatomy("odd", config)


def test_keys_of_t5gemmas_decoder_are_of_the_words_and_of_what_was_encoded():
    """X of `decoder.self_attn.key` is the one and the other; what is put there is in the cache as without one."""
    ours, (inputs, targets), widths = model("t5gemma2"), batch("t5gemma2"), []
    key = ours.at(ours.anatomy.sites["decoder.self_attn.key"].reader, 0)
    key.register_forward_pre_hook(lambda layer, args: widths.append(args[0].shape[1]))
    logits(ours, inputs, targets)
    assert widths == [targets.shape[1], inputs["input_ids"].shape[1]]


# folders --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: tiny.folder(name, root / name) for name in KINDS[1:]}


@pytest.mark.parametrize("name", KINDS[1:])
def test_a_folder_of_stock_transformers_is_the_model(folders, name):
    lm, processor = load(find_backbone(str(folders[name])), VISUAL)
    own = stock(name)[0].state_dict()
    for key, tensor in lm.lm.state_dict().items():
        assert torch.equal(tensor, own[key])
    ends = lm.lm.generation_config.eos_token_id
    assert family(name).reader(processor).end in (ends if isinstance(ends, list) else [ends])


def copied(folder, to):
    """A copy of a folder."""
    shutil.copytree(folder, to)
    return find_backbone(str(to))


@pytest.mark.parametrize("name", KINDS[1:])
def test_a_folder_whose_pictures_are_not_the_towers(folders, tmp_path, name):
    backbone = copied(folders[name], tmp_path / "bad")
    path = tmp_path / "bad" / "processor_config.json"
    raw = json.loads(path.read_text())
    raw["image_processor"]["size"] = {"height": 48, "width": 40}
    counts = raw["image_processor"] if name == "paligemma2" else raw
    counts["image_seq_length"] = 9
    path.write_text(json.dumps(raw))
    places = family(name).places(stock(name)[0].config)
    refused(
        backbone,
        "its processor makes pictures of 48 × 40, and the tower looks at 32 × 32",
        f"its processor has 9 image tokens for a picture, and the model {places}",
    )


@pytest.mark.parametrize("name", ["gemma3", "t5gemma2"])
def test_a_processor_that_cuts_pictures_into_several(folders, tmp_path, name):
    backbone = copied(folders[name], tmp_path / "bad")
    path = tmp_path / "bad" / "processor_config.json"
    raw = json.loads(path.read_text())
    raw["image_processor"]["do_pan_and_scan"] = True
    path.write_text(json.dumps(raw))
    refused(backbone, "its processor cuts pictures into several (do_pan_and_scan)")


def refused(backbone, *says):
    """Each fault is one line."""
    with pytest.raises(UserError) as error:
        read_stock(backbone)
    for said in says:
        assert any(said in fault and "\n" not in fault for fault in error.value.faults)


@pytest.mark.parametrize("name", KINDS[1:])
def test_a_copy_for_another_process_is_the_model(folders, name):
    """What ends its answers included, and what is one tensor."""
    stock = read_stock(find_backbone(str(folders[name])))
    copy = pickle.loads(pickle.dumps(stock))
    own, theirs = stock.lm.state_dict(), copy.lm.state_dict()
    assert own.keys() == theirs.keys() and all(torch.equal(own[key], theirs[key]) for key in own)
    assert copy.lm.generation_config.eos_token_id == stock.lm.generation_config.eos_token_id
    count = [sum(parameter.numel() for parameter in one.parameters()) for one in (stock.lm, copy.lm)]
    assert count[0] == count[1]


OLD = {
    "model.language_model.": "language_model.model.",
    "model.multi_modal_": "multi_modal_",
    "model.vision_": "vision_",
}


@pytest.mark.parametrize("name", ["paligemma2", "gemma3"])
def test_a_folder_with_the_names_of_published_checkpoints(folders, tmp_path, name):
    backbone, own = copied(folders[name], tmp_path / "old"), stock(name)[0].state_dict()
    tensors = {}
    for key, tensor in own.items():
        for new, old in OLD.items():
            key = old + key.removeprefix(new) if key.startswith(new) else key
        if key != "lm_head.weight":
            tensors[key.replace("vision_tower.", "vision_tower.vision_model.")] = tensor.clone()
    save_file(tensors, tmp_path / "old" / "model.safetensors", metadata={"format": "pt"})
    read = read_stock(backbone).lm.state_dict()
    assert all(torch.equal(read[key], own[key]) for key in own)
