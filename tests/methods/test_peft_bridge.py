"""peft's tuners as methods: options, training, counting, and peft's own files."""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import replace
from operator import itemgetter

import peft
import pytest
import torch

from pet_bench.backbone import build, find_backbone, load
from pet_bench.errors import UserError
from pet_bench.methods.peft_bridge import PROMPTS, REFUSED, TYPES, load_exported, wrapped
from pet_bench.pet import attach, build_method, count, load_trained, merge, save_trained
from pet_bench.pet import trained_parameters as trained
from pet_bench.registry import METHODS
from pet_bench.spec import MethodSpec, Runtime, TrialSpec
from pet_bench.trial.resolve import resolve
from pet_bench.trial.run import run_trial
from tests.conftest import ROOT, one_each
from tests.tiny import BART, TASKS, TINY, VISUAL, tiny_batch, tiny_model

# Types whose default sizes do not fit into a width of 32, or that train nothing by default.
SIZES = {
    "c3a": {"block_size": 16},
    "fourierft": {"n_frequency": 50, "scaling": 5.0},
    "miss": {"r": 8},
    "road": {"group_size": 8},
    "shira": {"r": 4},
    "trainable_tokens": {"token_indices": [*range(5, 50)]},
    "vblora": {"vector_length": 16},
    "waveft": {"n_frequency": 50},
}
USABLE = sorted(TYPES.keys() - REFUSED.keys() - ({"adamss"} if importlib.util.find_spec("sklearn") is None else set()))
CASES = [(family, kind) for family in TINY for kind in USABLE]
LM = ("lm.", "pet.peft.")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def every(test):
    """Every type, on one of the families, which the test's name draws; `make test-all`: on each."""
    return pytest.mark.parametrize(("family", "kind"), one_each(CASES, itemgetter(1), test.__name__))(test)


def tiny(family, kind, seed=0, nudged=True, **options):
    """A tiny model with a type of peft, away from where it changes nothing."""
    model = tiny_model(family, f"peft:{kind}", seed=seed, **SIZES.get(kind, {}) | options)
    torch.manual_seed(seed + 7)
    with torch.no_grad():
        for name, parameter in trained(model).items():
            if nudged and name.startswith(LM):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def logits_of(model):
    with torch.no_grad():
        return model(**tiny_batch())


def design_of(kind, family, **options):
    shape = TINY[family].anatomy
    return build_method(MethodSpec(f"peft:{kind}", SIZES.get(kind, {}) | options), shape).design(shape)


# Names and options


def test_a_type_is_one_class_whatever_its_case():
    assert METHODS.get("peft:lora") is METHODS.get("peft:LORA")
    assert METHODS.get("peft:lora").name == "peft:lora"
    assert "peft:lora" in METHODS
    assert not {"peft", "peft:"} & {*METHODS.names()}
    assert "peft:" not in METHODS and "peft" not in METHODS
    assert METHODS.families() == ["peft:"]


@pytest.mark.parametrize(
    "name, message",
    [
        ("peft:loar", r'unknown peft type "loar": did you mean "lora"\? \(possible: .*, vera, '),
        ("peft:prefix_tuning", "peft:prefix_tuning cannot be used here: .*; use prefix-tuning"),
        ("peft:", r"unknown method"),
        ("peft", r"unknown method .*peft:<type>"),
        ("petf:lora", r"unknown method .*peft:<type>"),
    ],
)
def test_a_type_that_cannot_be_had(name, message):
    with pytest.raises(UserError, match=message) as error:
        METHODS.get(name)
    assert len(error.value.faults) == 1


@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_every_refusal_is_of_a_type_of_peft(kind):
    assert kind in TYPES
    with pytest.raises(UserError, match=f"peft:{kind} cannot be used here"):
        METHODS.get(f"peft:{kind}")


def test_all_faults_of_the_options_at_once():
    with pytest.raises(UserError) as error:
        build_method(MethodSpec("peft:lora", {"lora_alhpa": 4, "r": "many", "bias": "some"}), BART.anatomy)
    unknown, number, bias = sorted(error.value.faults, reverse=True)
    assert unknown.startswith('unknown method "peft:lora" key "lora_alhpa": did you mean "lora_alpha"?')
    assert "r: Input should be a valid integer" in number
    assert "bias: Input should be 'none', 'all' or 'lora_only', found 'some'" in bias


@pytest.mark.parametrize(
    "kind, options, message",
    [
        ("c3a", {"block_size": 7}, "peft:c3a on tiny-bart: The block size should be a factor"),
        ("lora", {"target_modules": ["qqq"]}, "peft:lora on tiny-bart: Target modules .* not found"),
        ("lora", {"init_lora_weights": "eva"}, 'peft:lora: init_lora_weights "eva" reads data before training'),
        ("loha", {"layers_pattern": "x"}, "peft:loha: When `layers_pattern` is specified"),
        ("poly", {"n_tasks": 3}, "peft:poly: n_tasks must be 1 or the number of tasks, 2; found 3"),
        ("trainable_tokens", {"token_indices": []}, "peft:trainable_tokens: token_indices is missing"),
    ],
)
def test_what_peft_refuses_is_said_in_one_line(kind, options, message):
    with pytest.raises(UserError, match=message) as error:
        tiny_model("bart", f"peft:{kind}", **options)
    assert len(error.value.faults) == 1


@pytest.mark.parametrize("kind", sorted(TYPES.keys() - REFUSED.keys()))
@pytest.mark.parametrize("backbone", ["bart-base", "t5-base"])
def test_a_resolved_trial_gives_every_option_and_stays_itself(kind, backbone):
    trial = resolve(backbone, MethodSpec(f"peft:{kind}"), "image-text", 0, recipe={"lr": 1e-3})
    again = TrialSpec.from_dict(json.loads(json.dumps(trial.to_dict())))
    assert again == trial and again.id == trial.id
    assert resolve(backbone, trial.method, "image-text", 0, recipe={"lr": 1e-3}).id == trial.id
    assert not {"peft_version", "base_model_name_or_path", "task_type"} & trial.method.options.keys()
    assert trial.label == f"peft:{kind}"


def test_the_label_shows_what_was_changed():
    trial = resolve("mini-bart", MethodSpec("peft:lora", {"r": 4, "lora_alpha": 8}), "mini-image-text", 0)
    assert trial.label == "peft:lora(r=4)"
    assert trial.method.options["target_modules"] == ["q_proj", "v_proj"]


# In the model


@every
def test_gradients_reach_what_peft_trains_and_nothing_else(family, kind):
    model = tiny(family, kind)
    before = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    declared = trained(model)
    assert any(name.startswith(LM) for name in declared)
    model.train()(**tiny_batch()).logsumexp(-1).square().sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    assert {name for name in declared if name.startswith(LM)} <= reached <= declared.keys()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters() if name in before)


@every
def test_it_starts_as_the_backbone_where_it_claims_so(family, kind):
    """To the bit; and of what it does not claim, nothing comes to that."""
    method = build_method(MethodSpec(f"peft:{kind}", SIZES.get(kind, {})), TINY[family].anatomy)
    start = logits_of(tiny(family, kind, nudged=False))
    assert torch.equal(start, logits_of(tiny_model(family))) == method.identity_at_start


def test_of_another_start_nothing_is_claimed():
    for changed in ({"init_lora_weights": "pissa"}, {"use_dora": True}):
        assert not build_method(MethodSpec("peft:lora", changed), BART.anatomy).identity_at_start
    assert build_method(MethodSpec("peft:lora", {"r": 4, "bias": "all"}), BART.anatomy).identity_at_start


@every
def test_cached_generation_is_teacher_forcing_and_padding_does_not_matter(family, kind):
    model, batch = tiny(family, kind), tiny_batch()
    batch.pop("targets")
    model.lm.generation_config.suppress_tokens = [0]  # all that the random T5 would say
    ids = model.generate(batch, num_beams=1, max_length=6)
    with torch.no_grad():
        logits = model.logits(batch, ids)
    logits[..., 0] = -torch.inf
    end = model.lm.config.eos_token_id
    alive = (ids[:, :-1] == end).cumsum(1) == 0
    alive = torch.cat([alive.new_ones(len(ids), 1), alive], dim=1)
    assert torch.equal(logits.argmax(-1)[alive], ids[alive])
    pad = model.lm.config.pad_token_id
    padded = batch | {"text": torch.nn.functional.pad(batch["text"], (0, 5), value=pad)}
    with torch.no_grad():
        torch.testing.assert_close(model.logits(padded, ids), model.logits(batch, ids), atol=1e-3, rtol=1e-3)


@every
def test_save_and_load(family, kind, tmp_path):
    model = tiny(family, kind)
    save_trained(model, tmp_path / "a.safetensors")
    other = tiny_model(family)
    torch.manual_seed(99)  # adapters of another draw on the same backbone
    attach(other, design_of(kind, family), TASKS)
    assert not torch.equal(logits_of(other.eval()), logits_of(model))
    load_trained(other, tmp_path / "a.safetensors")
    torch.testing.assert_close(logits_of(other), logits_of(model), atol=1e-5, rtol=1e-5)


@every
def test_counts_need_no_weights(family, kind):
    real = count(tiny(family, kind, nudged=False))
    meta = attach(build(TINY[family], VISUAL, device="meta"), design_of(kind, family), TASKS)
    assert all(p.is_meta for p in meta.parameters())
    assert count(meta) == real
    parts = {name for name in real["groups"] if "peft" in name}
    assert parts == ({"peft"} if kind in PROMPTS else parts & {"encoder.peft", "decoder.peft"})
    assert real["groups"].keys() == {"visual"} | (parts or {"embeddings"})
    assert parts or kind == "trainable_tokens"


@every
def test_bfloat16_agrees(family, kind):
    model = tiny(family, kind, nudged=False)
    full = logits_of(model)
    with torch.autocast("cpu", torch.bfloat16):
        half = logits_of(model)
    assert (half.float() - full).norm() < 0.05 * full.norm()


def test_a_tuner_on_the_word_table():
    """LoRA on both stacks' embeddings; the table itself stays tied to the output layer and to the visual side."""
    model = tiny("t5", "lora", target_modules=["embed_tokens"])
    assert count(model)["groups"].keys() == {"visual", "encoder.peft", "decoder.peft"}
    table = model.lm.get_input_embeddings().weight
    assert all(m.weight is table for m in (model.lm.lm_head, model.lm.encoder.embed_tokens.base_layer))
    assert not torch.equal(logits_of(model), logits_of(tiny_model("t5")))
    with pytest.raises(UserError, match="no word is read through the module shared; target embed_tokens"):
        tiny("t5", "lora", target_modules=["shared"])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("lora", {"modules_to_save": ["lm_head"]}),
        ("lora", {"modules_to_save": ["lm_head"], "ensure_weight_tying": True}),
        ("lora", {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}),
        ("loha", {"modules_to_save": ["shared"]}),
        ("vera", {"modules_to_save": ["decoder"]}),
        ("ln_tuning", {"target_modules": ["lm_head"]}),
        ("lora", {"target_modules": ["embed_tokens"], "ensure_weight_tying": True}),
        ("lora", {"target_modules": ["shared", "embed_tokens"]}),
    ],
)
@pytest.mark.parametrize("family", TINY)
def test_what_would_train_a_copy_of_the_word_table_or_one_never_read_is_refused(family, kind, options):
    for device in ("meta", "cpu"):
        model = build(TINY[family], VISUAL, device=device)
        design = build_method(MethodSpec(f"peft:{kind}", options), model.anatomy).design(model.anatomy)
        with pytest.raises(UserError, match=r"its weights are tied|no word is read through") as error:
            attach(model, design, TASKS)
        assert len(error.value.faults) == 1


def test_an_output_layer_of_its_own_can_be_trained_whole():
    """T5 1.1's is no word table; where it is one, the same options are refused."""
    config = TINY["t5"].config | {"tie_word_embeddings": False}
    model = build(replace(TINY["t5"], config=config), VISUAL)
    options = {"modules_to_save": ["lm_head"]}
    attach(model, build_method(MethodSpec("peft:lora", options), model.anatomy).design(model.anatomy), TASKS)
    assert count(model)["groups"]["head"] == 60 * 32
    model(**tiny_batch()).logsumexp(-1).sum().backward()
    assert all(p.grad is not None for p in trained(model).values())


def test_biases_of_the_backbone_train_where_the_option_says_so():
    groups = count(tiny_model("bart", "peft:lora", bias="all"))["groups"]
    assert groups.keys() == {
        "visual",
        *(f"{s}.{k}" for s in ("encoder", "decoder") for k in ("peft", "biases", "norms")),
    }


def test_it_cannot_be_merged():
    with pytest.raises(UserError, match='"peft" is no insert: it cannot be merged'):
        merge(tiny("bart", "lora"))


# Training


def test_poly_tells_tasks_apart():
    model, batch = tiny("bart", "poly", n_tasks=2), tiny_batch()
    with torch.no_grad():
        assert not torch.equal(model(**batch), model(**batch | {"task": "gqa"}))
    with pytest.raises(UserError, match='task "other"'):
        model(**batch | {"task": "other"})


def test_adalora_shares_its_ranks_out_and_keeps_its_factors_orthogonal():
    """From init_r 12 in every adapted layer to target_r 4 on average, after tinit and before tfinal."""
    torch.manual_seed(0)
    model = tiny("bart", "adalora", target_modules=["q_proj", "v_proj"], target_r=4, tinit=1, tfinal=2, nudged=False)
    (door,) = design_of("adalora", "bart").doors
    config = wrapped(model).active_peft_config
    factors = {n: p for n, p in trained(model).items() if "lora_A" in n or "lora_B" in n}
    by_hand = [
        ((p.mT @ p if "lora_B" in n else p @ p.mT) - torch.eye(12)).square().sum().sqrt() for n, p in factors.items()
    ]
    torch.testing.assert_close(door.penalty(model), config.orth_reg_weight * sum(by_hand) / len(by_hand))
    optimizer = torch.optim.SGD(trained(model).values(), lr=1e-3)
    ranks = []
    for step in range(1, 9):
        (model(**tiny_batch()).logsumexp(-1).square().sum() + door.penalty(model)).backward()
        optimizer.step()
        door.after_step(model, step, 8)
        optimizer.zero_grad()
        ranks.append(sum(int((p != 0).sum()) for n, p in trained(model).items() if "lora_E" in n))
    layers = len(factors) // 2
    assert ranks[-1] == 4 * layers == sum(map(sum, config.rank_pattern.values()))
    assert ranks[0] <= 12 * layers and ranks[1] > ranks[-1]
    with pytest.raises(UserError, match="peft:adalora: tinit 1 and tfinal 2 leave no update of 3 between"):
        door.after_step(model, 1, 3)


def test_a_trial_calls_the_tuner_and_leaves_its_files(tmp_path):
    options = {"target_modules": ["q_proj", "v_proj"], "target_r": 2, "init_r": 4, "tfinal": 1}
    spec = resolve(
        "mini-bart", MethodSpec("peft:adalora", options), "mini-image-text/nlvr2", 0,
        recipe={"max_steps": 4, "valid_every": 0},
    )  # fmt: skip
    result = run_trial(spec, Runtime(out=tmp_path, device="cpu"))
    assert result.status in ("done", "suspect")  # few updates teach little
    folder = tmp_path / spec.id
    assert {path.name for path in folder.iterdir()} >= {"adapter.safetensors", "peft"}
    saved = json.loads((folder / "peft/adapter_config.json").read_text())
    layers = len(saved["rank_pattern"])
    assert sum(map(sum, saved["rank_pattern"].values())) == 2 * layers > 0
    assert saved["total_step"] == 4
    assert saved["base_model_name_or_path"] == "mini-bart"
    theirs = peft.PeftModel.from_pretrained(load(find_backbone("mini-bart"), spec.visual)[0].lm, folder / "peft")
    assert sum(p.numel() for n, p in theirs.named_parameters() if "lora_E" in n) == 2 * layers


# peft's own files


def stock(family):
    """The backbone alone, with the weights of every tiny model."""
    return tiny_model(family).lm


@every
def test_stock_peft_reads_what_is_exported(family, kind, tmp_path):
    model = tiny(family, kind)
    design_of(kind, family).doors[0].export(model, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"peft"}
    files = {path.name for path in (tmp_path / "peft").iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors"}
    assert json.loads((tmp_path / "peft/adapter_config.json").read_text())["peft_type"] == TYPES[kind].value
    theirs = peft.PeftModel.from_pretrained(stock(family), tmp_path / "peft").eval()
    text, ids = tiny_batch()["text"], torch.randint(5, 50, (3, 4), generator=torch.Generator().manual_seed(1))
    mask = text != theirs.config.pad_token_id
    extra = {"task_ids": torch.zeros(3, dtype=torch.long)} if kind == "poly" else {}
    with torch.no_grad():
        theirs = theirs(input_ids=text, attention_mask=mask.long(), decoder_input_ids=ids, **extra).logits
        if kind in PROMPTS:  # no tokens of an image
            words, mask = model.text_edits[0](model.family.embed(model.lm, text), mask)
            visual = words.new_zeros(3, 0, words.shape[-1])
            states = model.family.encode(model.lm, words, visual, mask)
            ours = model.lm(encoder_outputs=(states,), attention_mask=mask, decoder_input_ids=ids).logits
        else:
            ours = model.lm(input_ids=text, attention_mask=mask, decoder_input_ids=ids).logits
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)


@every
def test_what_is_exported_can_be_loaded_back(family, kind, tmp_path):
    model = tiny(family, kind)
    design_of(kind, family).doors[0].export(model, tmp_path)
    other = tiny_model(family)
    torch.manual_seed(99)
    attach(other, design_of(kind, family), TASKS).eval()
    if kind == "p_tuning":
        with pytest.raises(UserError, match="without the network"):
            load_exported(other, tmp_path / "peft")
        return
    other.visual.load_state_dict(model.visual.state_dict())
    load_exported(other, tmp_path / "peft")
    torch.testing.assert_close(logits_of(other), logits_of(model), atol=1e-5, rtol=1e-5)


def test_a_folder_that_does_not_fit(tmp_path):
    (door,) = design_of("lora", "bart").doors
    door.export(tiny("bart", "lora"), tmp_path)
    for other, message in ((tiny("bart", "loha"), "holds LORA, expected LOHA"), (tiny("bart", "lora", r=4), "size")):
        with pytest.raises(UserError, match=message) as error:
            load_exported(other, tmp_path / "peft")
        assert len(error.value.faults) == 1
    with pytest.raises(UserError, match="nowhere"):
        load_exported(tiny("bart", "lora"), tmp_path / "nowhere")


# The page


def test_the_page_is_what_the_installed_peft_does(monkeypatch):
    page = (ROOT / "docs/peft.md").read_text()
    (version,) = re.findall(r"types of peft (\S+),", page)
    if version != peft.__version__:
        pytest.skip(f"unchecked: docs/peft.md is what peft {version} does (installed is {peft.__version__})")
    monkeypatch.syspath_prepend(ROOT / "docs")
    table = importlib.import_module("peft_table")
    kinds, families = page.split("## In every family")
    committed = [line.split("|")[1:4] for line in kinds.splitlines() if line.startswith("| `")]
    fresh = [str(row).split("|")[1:4] for row in table.rows(shares=False)]
    assert len(fresh) == len(TYPES)
    known = [row for row in zip(committed, fresh, strict=True) if "adamss" not in row[0][0]]  # needs scikit-learn
    assert [old for old, _ in known] == [new for _, new in known]
    assert [line for line in families.splitlines() if line.startswith("| `")] == table.of_families()
