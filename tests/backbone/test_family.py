"""A family that nobody knows, in one file: what attaches to it works, the rest is left out with a reason."""

from __future__ import annotations

import ast
from typing import ClassVar

import pytest
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from pet_bench.backbone import Anatomy, Family, Model, Site, Stack, find_backbone, load
from pet_bench.backbone.anatomy import ffn_sites
from pet_bench.backbone.visual import VisualEmbedding
from pet_bench.data.suite import suite_by_name
from pet_bench.grid.plan.spec import parse
from pet_bench.pet import (
    attach,
    build_method,
    count,
    design_of,
    load_trained,
    save_trained,
    trained_parameters,
    why_skipped,
)
from pet_bench.registry import FAMILIES, METHODS
from pet_bench.spec import MethodSpec, Runtime
from pet_bench.trial.resolve import resolve
from pet_bench.trial.run import run_trial
from tests.conftest import ROOT

SUITE = suite_by_name("mini-image-text")
WORKS = ("full", "bitfit", "lora", "adapter", "design", "projector-only")
WHERE = ("decoder.input", "decoder.layer", "decoder.output", "projector.in", "decoder.ffn.hidden", "decoder.head")


class GRUConfig(PreTrainedConfig):
    model_type = "toy-gru"

    def __init__(self, vocab_size=60, d_model=32, num_layers=2, **rest):
        self.vocab_size, self.d_model, self.num_layers = vocab_size, d_model, num_layers
        self.hidden_size = d_model
        super().__init__(**rest)


class GRULayer(nn.Module):
    """x + W_o GRU(LayerNorm(x)), the state kept where a position is padding."""

    def __init__(self, d: int):
        super().__init__()
        self.norm, self.out_proj = nn.LayerNorm(d), nn.Linear(d, d)
        self.in_proj, self.state = nn.Linear(d, 3 * d), nn.Linear(d, 3 * d)

    def forward(self, x, mask):
        read, h, states = self.in_proj(self.norm(x)), x.new_zeros(len(x), x.shape[-1]), []
        for t in range(x.shape[1]):
            (r, z, n), (r_h, z_h, n_h) = read[:, t].chunk(3, -1), self.state(h).chunk(3, -1)
            z = torch.sigmoid(z + z_h)
            new = (1 - z) * torch.tanh(n + torch.sigmoid(r + r_h) * n_h) + z * h
            h = torch.where(mask[:, t, None], new, h)
            states.append(h)
        return x + self.out_proj(torch.stack(states, 1))


class GRU(PreTrainedModel):
    config_class = GRUConfig
    _tied_weights_keys: ClassVar = {"lm_head.weight": "embed_tokens.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(GRULayer(config.d_model) for _ in range(config.num_layers))
        self.norm, self.lm_head = nn.LayerNorm(config.d_model), nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.embed_tokens

    def set_input_embeddings(self, value):
        self.embed_tokens = value

    def get_output_embeddings(self):
        return self.lm_head

    def set_output_embeddings(self, value):
        self.lm_head = value

    def forward(self, inputs_embeds, mask):
        for layer in self.layers:
            inputs_embeds = layer(inputs_embeds, mask)
        return self.lm_head(self.norm(inputs_embeds))


class Fed(Model):
    """[visual; text; start; answer] in one stack."""

    def __init__(self, lm, anatomy, family, visual):
        super().__init__(lm, anatomy, family)
        self.visual = VisualEmbedding(visual, anatomy.d, family.norm, family.visual_eps)
        self.pet = nn.ModuleDict()

    def logits(self, inputs, targets):
        text = inputs["text"]
        visual = self.visual(inputs["features"], self.words)
        answer = self.read_before(targets)
        seen = torch.cat([visual.new_ones(visual.shape[:2]).bool(), text != self.pad, answer != self.pad], 1)
        self.context.task, self.context.mask = inputs["task"], seen
        self.context.visual, self.context.seen = visual, seen[:, : visual.shape[1]]
        words = torch.cat([visual, *(self.lm.embed_tokens(ids) for ids in (text, answer))], 1)
        return self.lm(words, seen)[:, -answer.shape[1] :]

    @torch.no_grad()
    def generate(self, inputs, *, num_beams, max_length, plain=False):
        """Greedily: a toy has no beams."""
        ids = inputs["text"][:, :0]
        while ids.shape[1] < max_length - 1:
            padded = torch.cat([ids, ids.new_full((len(ids), 1), -100)], 1)
            ids = torch.cat([ids, self.logits(inputs, padded)[:, -1].argmax(-1, keepdim=True)], 1)
        return ids

    def choose(self, inputs, words):
        return self.logits(inputs, inputs["text"].new_full((len(inputs["text"]), 1), -100))[:, -1, words]

    def read_before(self, answer):
        if answer is None:
            return torch.tensor([[self.lm.config.bos_token_id]])
        start = answer.new_full((len(answer), 1), self.lm.config.bos_token_id)
        return torch.cat([start, answer[:, :-1]], 1).masked_fill_(
            torch.cat([start, answer[:, :-1]], 1) == -100, self.pad
        )


class ToyGRU(Family):
    name, stock, config = "toy-gru", GRU, GRUConfig
    sizes = ("vocab_size", "d_model", "num_layers")
    batch_size, norm, visual_eps, word_std = 500, nn.LayerNorm, 1e-5, 0.02

    @classmethod
    def anatomy(cls, backbone, config, rates_of=""):
        layer = "lm.layers.{i}"
        feed = {"in": f"{layer}.in_proj", "out": f"{layer}.out_proj"}
        sites = ffn_sites("decoder.ffn", f"{layer}.norm", feed["out"], feed, feed["out"], before=True)
        sites |= {"decoder.layer": Site(layer, layer), "decoder.head": Site("lm.lm_head", "lm.lm_head")}
        sites |= {"decoder.input": Site(None, "lm.embed_tokens"), "decoder.output": Site(None, "lm.norm")}
        sites |= {"projector.in": Site("visual.feature", "visual.feature"), "projector.output": Site(None, "visual")}
        d = config.d_model
        stacks = {"projector": Stack(1, d, 0, "visual"), "decoder": Stack(config.num_layers, d, 1, "lm", layer)}
        tables, head = ("lm.embed_tokens",), "lm.lm_head"
        return Anatomy(backbone, cls.name, stacks, sites, "decoder", "decoder", tables, head, True, backbone)

    @classmethod
    def model(cls, lm, anatomy, visual):
        return Fed(lm, anatomy, cls, visual)

    @staticmethod
    def init_linear(linear):
        nn.init.normal_(linear.weight, std=0.02)

    @staticmethod
    def init_embedding(weight):
        nn.init.normal_(weight, std=0.02)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The toy as anybody's folder: stock weights and a tokenizer."""
    folder = tmp_path_factory.mktemp("gru")
    FAMILIES.register(ToyGRU)
    _, tokenizer = load(find_backbone("mini-bart"), SUITE.visual)
    torch.manual_seed(0)
    config = GRUConfig(len(tokenizer), pad_token_id=1, bos_token_id=0, eos_token_id=2, tie_word_embeddings=True)
    GRU(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    yield folder
    del FAMILIES.entries[ToyGRU.name]


@pytest.fixture
def backbone(folder):
    return find_backbone(str(folder))


def batch(vocabulary: int):
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(5, vocabulary - 200, (3, 6), generator=generator)
    text[1, 4:] = 1
    targets = torch.randint(5, vocabulary - 200, (3, 3), generator=generator)
    targets[2, 2:] = -100
    features = torch.randn(3, 1, SUITE.visual.tokens, SUITE.visual.width, generator=generator)
    return {"text": text, "features": features, "task": "vqa"}, targets


def test_what_needs_more_says_so(backbone):
    reasons = {
        name: why_skipped(build_method(MethodSpec(name), backbone.anatomy), backbone.anatomy)
        for name in METHODS.names()
    }
    assert all(reasons[name] is None for name in WORKS)
    assert reasons["vl-pet-large"] == "the backbone has no encoder and no decoder.cross_attn"
    assert reasons["prefix-tuning"] == "the backbone has no attention"
    assert {name for name, reason in reasons.items() if reason} >= {"lst", "prompt-tuning", "compacter+small"}


def attachable(backbone):
    return [
        name for name in METHODS.names()
        if not why_skipped(build_method(MethodSpec(name), backbone.anatomy), backbone.anatomy)
    ]  # fmt: skip


def test_what_attaches_trains_generates_is_saved_and_counted(backbone, tmp_path):
    for name in attachable(backbone):
        model, _ = made(backbone, name)
        inputs, targets = batch(model.lm.config.vocab_size)
        model.train()
        before = {key: value.detach().clone() for key, value in model.named_parameters()}
        optimizer = torch.optim.SGD(trained_parameters(model).values(), lr=0.1)
        for _ in range(2):  # what starts at 0 keeps what reads it from a gradient
            optimizer.zero_grad()
            logits = model.logits(inputs, targets)
            nn.functional.cross_entropy(logits.transpose(1, 2), targets).backward()
            optimizer.step()
        changed = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
        assert changed and changed <= trained_parameters(model).keys(), name
        model.eval()
        assert model.generate(inputs, num_beams=1, max_length=5).shape == (3, 4)
        save_trained(model, tmp_path / name)
        other, _ = made(backbone, name)
        load_trained(other.eval(), tmp_path / name)
        assert torch.equal(other.logits(inputs, targets), model.logits(inputs, targets)), name
        counts = count(model)
        assert (
            sum(counts["groups"].values())
            == counts["trainable"]
            == sum(parameter.numel() for parameter in trained_parameters(model).values())
        )


def made(backbone, name, **options):
    torch.manual_seed(0)
    model, _ = load(backbone, SUITE.visual)
    torch.manual_seed(1)
    design = design_of(build_method(MethodSpec(name, options), model.anatomy), model.anatomy)
    return attach(model, design, SUITE.tasks), design


def test_every_site_can_be_written_to(backbone):
    """A bottleneck that starts at 0 changes nothing, and everything once it is not 0."""
    for site in WHERE:
        insert = {"sites": [site], "delta": {"kind": "bottleneck", "width": 2, "zero_init": True}}
        model, _ = made(backbone, "design", inserts=[insert])
        bare, _ = made(backbone, "design")
        inputs, targets = batch(model.lm.config.vocab_size)
        assert torch.equal(model.eval().logits(inputs, targets), bare.eval().logits(inputs, targets)), site
        with torch.no_grad():
            for parameter in model.pet.parameters():
                parameter.add_(0.1)
        assert not torch.allclose(model.logits(inputs, targets), bare.logits(inputs, targets)), site


def test_a_whole_trial(folder, tmp_path):
    spec = resolve(
        str(folder), MethodSpec("lora"), "mini-image-text/vqa", 0, recipe={"lr": 1e-2, "max_steps": 2, "valid_every": 0}
    )
    result = run_trial(spec, Runtime(tmp_path))
    assert result.status in ("done", "suspect") and result.parameters.trainable > 0
    assert {score.n for score in result.metrics["vqa"].values()} == {500}


def test_a_grid_leaves_out_what_cannot_be_had(folder):
    grid = parse({
        "name": "toy", "suites": ["mini-image-text"], "backbones": [str(folder)], "recipe": {"lr": 1e-3},
        "methods": ["lora", "vl-pet-large", "prefix-tuning"],
    })  # fmt: skip
    assert [trial.method.name for trial in grid.trials()] == ["lora"]
    assert {(skipped.method, skipped.reason) for skipped in grid.skipped()} == {
        ("vl-pet-large", "the backbone has no encoder and no decoder.cross_attn"),
        ("prefix-tuning", "the backbone has no attention"),
    }


# nobody but a family knows what it is -----------------------------------------------------------------------------

TABLES = ("learning_rates", "differences", "PUBLISHED")  # of published values, by family
OURS = [name for name in FAMILIES.names() if FAMILIES.origin(name).startswith("pet_bench.")]
HOMES = {f"{FAMILIES.origin(name).partition(':')[0].replace('.', '/')}.py" for name in OURS}
SOURCES = [
    path
    for root in ("pet_bench", "methods", "tasks")
    for path in sorted((ROOT / root).rglob("*.py"))
    if path.relative_to(ROOT).as_posix() not in HOMES
]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_only_tables_of_published_values_name_a_family(path):
    """A family's name stands in a class's table of published values, or as a key of one that `among` looks into."""
    tree, allowed = ast.parse(path.read_text(encoding="utf-8")), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign | ast.Assign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if {target.id for target in targets if isinstance(target, ast.Name)} & set(TABLES):
                allowed.update(id(inner) for inner in ast.walk(node))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "among":
            allowed.update(id(key) for argument in node.args if isinstance(argument, ast.Dict) for key in argument.keys)
    named = [
        node.lineno for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in OURS and id(node) not in allowed
    ]  # fmt: skip
    assert not named, f"{path}: lines {named}"
