"""Every method on every family that is fed with pixels, and on the decoder-only one that is fed with features, at work
on tiny random models; `tests/pet/test_methods.py` says the same of the minis.

A case is a family, a method that it does not skip and a scope. Everywhere: attached, the model starts as the stock one
where the method claims that, and reads at the same positions through the same masks; gradients reach what is declared,
and nothing else; one step lowers the loss; words that were generated from a cache are the likeliest after those before
them; beams, a batch and padding change nothing; what was saved loads; merged is unmerged.

There are some hundreds of cases. `make test-all` (PET_BENCH_ALL=1) runs all of them; else six of each family run, drawn
by a seed that is the family's name, and each method that is not among these in one more case, drawn by its own name.
"""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pet_bench.errors import PluginError, UserError
from pet_bench.pet import (
    Design,
    attach,
    attach_method,
    build_method,
    design_of,
    edit_attention,
    load_trained,
    merge,
    save_trained,
    trained_parameters,
)
from pet_bench.pet.attention import IMPLEMENTATION
from pet_bench.pet.select import select
from pet_bench.pet.visual_memory import Beside
from pet_bench.registry import FAMILIES, METHODS
from pet_bench.spec import MethodSpec, Scope
from tests.conftest import EVERYTHING, ROUNDED
from tests.pet.minis import nudge
from tests.vlms.attached import (
    PIXELS,
    TASKS,
    TINY,
    VISUAL,
    anatomy_of,
    attached,
    bare,
    batch,
    logits,
    reader_of,
    skipped,
)

NAMES = [*METHODS.names(), "peft:lora", "peft:ia3", "peft:ln_tuning"]
SCOPES: tuple[Scope | None, ...] = (None, ("vision",), ("language", "vision"), ("projector",))
DRAWN = 6
families = pytest.mark.parametrize("family", TINY)


def scopes(family: str) -> list[Scope | None]:
    """Those that are tried, of parts that there are."""
    return [scope for scope in SCOPES if scope is None or set(scope) <= {"language", *anatomy_of(family).stacks}]


def cases() -> list[tuple[str, str, Scope | None]]:
    every = [
        (family, name, scope)
        for family in TINY
        for scope in scopes(family)
        for name in NAMES
        if not skipped(family, name, scope)
    ]
    if EVERYTHING:
        return every
    part = [case for family in TINY for case in Random(family).sample([c for c in every if c[0] == family], DRAWN)]
    for name in sorted({name for _, name, _ in every} - {name for _, name, _ in part}):
        part.append(Random(name).choice([case for case in every if case[1] == name]))
    return sorted(part, key=every.index)


CASES = cases()
every = pytest.mark.parametrize(
    ("family", "method", "scope"), CASES, ids=["-".join([f, m, *(s or ())]) for f, m, s in CASES]
)


# families ------------------------------------------------------------------------------------------------------------


def test_every_family_fed_with_pixels_is_here():
    assert set(PIXELS) <= set(TINY)


@families
def test_without_a_method_it_is_the_stock_model(family):
    """Called by itself on what its processor makes of one example, to the bit, and generating on a batch of three."""
    model, kind, lm = bare(family), FAMILIES.get(family), bare(family).lm
    inputs, targets = batch(family, (2,))
    with torch.no_grad():
        if kind.fed == "features":
            begin = torch.full((1, 1), lm.config.bos_token_id)
            words = lm.get_input_embeddings()(torch.cat([begin, inputs["text"], targets[:, :-1]], 1))
            states = torch.cat([words[:, :1], model.visual(inputs["features"], model.words), words[:, 1:]], 1)
            theirs = lm(inputs_embeds=states, logits_to_keep=targets.shape[1]).logits
        else:
            given = model.taken(inputs)
            if lm.config.is_encoder_decoder:
                theirs = lm(**given, decoder_input_ids=model.read_before(targets)).logits
            else:
                given = kind.continued(given, targets.shape[1] - 1)
                given["input_ids"] = torch.cat([given["input_ids"], targets[:, :-1]], 1)
                given["attention_mask"] = torch.ones_like(given["input_ids"])
                theirs = lm(**given, logits_to_keep=targets.shape[1]).logits
    assert torch.equal(logits(model, inputs, targets), theirs)
    if kind.fed == "pixels":
        inputs, _ = batch(family)
        given = model.taken(inputs)
        settings = {"max_new_tokens": 6, "do_sample": False, "suppress_tokens": model.image_tokens or None}
        theirs = lm.generate(**given, **settings)
        said = model.generate(inputs, num_beams=1, max_length=7)
        assert torch.equal(said, theirs[:, -said.shape[1] :])


@families
def test_what_is_seen_matters(family):
    model, (inputs, targets) = bare(family), batch(family)
    (name,) = [name for name in ("features", "pixel_values") if name in inputs]
    seen: Any = inputs[name]
    blank = torch.ones_like(getattr(seen, "flat", seen))
    inputs[name] = blank if isinstance(seen, Tensor) else seen._replace(flat=blank)
    assert not torch.allclose(logits(model, inputs, targets), logits(bare(family), *batch(family)), atol=1e-5)


@families
@pytest.mark.parametrize("stack", ["vision", "encoder", "decoder"])
def test_an_edit_that_changes_nothing_changes_nothing(family, stack):
    """Every attention runs through the registered one, with the stock model's mask, its heads and its caps."""
    inputs, targets = batch(family)
    scoped = bare(family, ("language", "vision") if family in PIXELS else None)
    for site in [site for site in scoped.anatomy.attentions if site.startswith(f"{stack}.")]:
        model = bare(family)
        place, edited = model.anatomy.stacks[stack], set()

        def nothing(call, *, attend, edited=edited):
            edited.add(call.module)
            return attend(call)

        for layer in range(place.layers):
            module = model.at(model.anatomy.sites[site].writer, place.name_of(layer))
            edit_attention(model, module, nothing)
        torch.testing.assert_close(logits(model, inputs, targets), bare_logits(family), atol=1e-5, rtol=1e-5)
        assert len(edited) == place.layers


# methods -------------------------------------------------------------------------------------------------------------


@cache
def bare_logits(family: str, scope: Scope | None = None) -> Tensor:
    """Without a method, the tower seeing pictures as in that scope: a frozen one sees one at a time."""
    return logits(bare(family, scope).requires_grad_(False), *batch(family))


def masks(model, inputs, targets) -> list[Any]:
    """Masks and positions that the first layer of every stack of words is given."""
    seen: list[Any] = []

    def look(module, args, kwargs):
        kept = {str(i): value for i, value in enumerate(args[1:])} | kwargs
        told = {
            name: value for name, value in kept.items()
            if name.startswith("position") or (isinstance(value, Tensor) and value.dim() == 4) or value is None
        }  # fmt: skip
        seen.append(told)

    hooks = [
        model.at(model.anatomy.stacks[stack].blocks, model.anatomy.stacks[stack].name_of(0)).register_forward_pre_hook(
            look, with_kwargs=True
        )
        for stack in model.anatomy.words
    ]
    logits(model, inputs, targets)
    for hook in hooks:
        hook.remove()
    return seen


def allowed(mask: Tensor | None) -> Tensor | None:
    """Where one may look, whatever the mask is made of."""
    return mask if mask is None or mask.dtype == torch.bool else mask == 0


def same(ours: Any, theirs: Any) -> bool:
    """Of tensors, and of tuples of them; no mask is one that hides nothing."""
    if isinstance(theirs, tuple):
        return all(same(a, b) for a, b in zip(ours, theirs, strict=True))
    if isinstance(theirs, Tensor) and theirs.dim() == 4:
        return torch.equal(allowed(ours), allowed(theirs))
    if theirs is None and isinstance(ours, Tensor):
        return bool(allowed(ours).all())
    return torch.equal(ours, theirs) if isinstance(theirs, Tensor) else ours == theirs


@every
def test_it_starts_as_the_stock_model(family, method, scope):
    """Where it claims so; and reads at the same positions and through the same masks, unless it reads more or less."""
    model, one = attached(family, method, scope), batch(family)
    claimed = build_method(MethodSpec(method), model.anatomy).identity_at_start
    assert torch.allclose(logits(model, *one), bare_logits(family, scope), **ROUNDED) == claimed
    if model.text_edits or isinstance(getattr(model, "visual", None), Beside):
        return
    untouched = bare(family)
    if model.lm.config._attn_implementation == IMPLEMENTATION:
        untouched.lm.set_attn_implementation("eager")  # which leaves no mask out either
    ours, theirs = masks(model, *one), masks(untouched, *one)
    assert len(ours) == len(theirs) >= 1
    for here, there in zip(ours, theirs, strict=True):
        assert here.keys() == there.keys()
        assert all(same(here[name], there[name]) for name in there), sorted(there)


@cache
def unread(family: str) -> set[str]:
    """Modules of the backbone that have no part in what it says, as layers of a tower behind those that are read."""
    model = bare(family)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model.logits(*batch(family)).square().sum().backward()
    return {name.rpartition(".")[0] for name, parameter in model.named_parameters() if parameter.grad is None}


@every
def test_gradients_reach_what_is_declared_and_a_step_lowers_the_loss(family, method, scope):
    model, (inputs, targets) = attached(family, method, scope), batch(family)
    design = design_of(build_method(MethodSpec(method), model.anatomy), model.anatomy)
    declared = {name for name, _ in model.named_parameters() if name.startswith("pet.")}
    declared = declared.union(*(select(model, selector) for selector in design.train))
    declared = declared.union(*(door.trained(model) for door in design.doors))
    assert declared == trained_parameters(model).keys()
    assert all(name.startswith("pet.") or model.anatomy.part_of(name) in model.anatomy.scope for name in declared)

    def loss() -> Tensor:
        return F.cross_entropy(model.logits(inputs, targets).transpose(1, 2), targets)

    before = loss()
    before.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    length = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    with torch.no_grad():
        for name, gradient in gradients.items():
            model.get_parameter(name).sub_(0.01 * gradient / length)
        assert loss() < before

    nudge(model).zero_grad()
    if "boxes" not in inputs and family not in PIXELS:  # without them the weights that read them have no part
        inputs["boxes"] = torch.rand(len(targets), 1, VISUAL.tokens, 4)
    loss_again = model.logits(inputs, targets).square().sum()
    (loss_again + sum(door.penalty(model) for door in design.doors)).backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    other = {name for name in declared if set(name.split(".")) & {*TASKS[1:], "noise"}}  # it is of training alone
    idle = {name for name in declared if not name.startswith("pet.") and name.rpartition(".")[0] in unread(family)}
    assert reached == declared - other - idle
    still = {name for name in reached if not model.get_parameter(name).grad.any()}
    still = {name for name in still if not name.endswith(".confidence.bias")}  # a softmax does not see it
    assert not still, sorted(still)


@every
def test_what_it_says(family, method, scope, tmp_path):
    """Moved away from its start: batches and padding, words from a cache, beams, what was saved and loaded, merging."""
    model, (inputs, targets) = nudge(attached(family, method, scope)), batch(family)
    said = logits(model, inputs, targets)
    assert not torch.allclose(said, bare_logits(family), atol=1e-5)

    if build_method(MethodSpec(method), model.anatomy).batch_invariant:
        for row in range(len(targets)):
            alone, answer = batch(family, (row,), longer=row)
            there = answer != -100
            apart = logits(model, alone, answer)[there]
            torch.testing.assert_close(apart, said[row, : len(apart)], atol=2e-5, rtol=1e-4)

    words = model.generate(inputs, num_beams=1, max_length=7)
    going = going_on(family, words)
    again = logits(model, inputs, words.masked_fill(~going, -100))
    again[..., getattr(model, "image_tokens", [])] = -torch.inf
    if model.lm.generation_config.forced_bos_token_id is not None:
        going[:, 0] = False  # that word is not chosen
    best, second = again.topk(2).values[going].unbind(-1)
    assert (best - second).min() > 1e-5  # else the next line were luck
    assert torch.equal(again.argmax(-1)[going], words[going])

    beams = model.generate(inputs, num_beams=3, max_length=7)
    one = model.generate(batch(family, (1,))[0], num_beams=3, max_length=7)[0]
    assert len(beams) == len(targets)
    assert torch.equal(beams[1, : len(one)][going_on(family, one[None])[0]], one[going_on(family, one[None])[0]])

    save_trained(model, tmp_path / "trained")
    other = attached(family, method, scope)
    load_trained(other, tmp_path / "trained")
    assert torch.equal(logits(other, inputs, targets), said)

    try:
        undo = merge(model, TASKS[0])
    except UserError:
        return  # it is not offered
    torch.testing.assert_close(logits(model, inputs, targets), said, atol=2e-5, rtol=1e-4)
    undo()
    assert torch.equal(logits(model, inputs, targets), said)


def going_on(family: str, words: Tensor) -> Tensor:
    """Which of these words (B, T) are not behind the end."""
    end = words == getattr(reader_of(family), "end", reader_of(family).tokenizer.eos_token_id)
    return (end.cumsum(1) - end.long()) == 0


# what is left out ----------------------------------------------------------------------------------------------------


@families
def test_what_is_left_out_says_why(family):
    """In words about the model or the scope; a design that would train nothing is refused too."""
    for scope in scopes(family):
        for name in NAMES:
            if reason := skipped(family, name, scope):
                assert "\n" not in reason and ("the backbone" in reason or "the scope" in reason), (name, reason)


@families
def test_whoever_asks_for_it_anyway_is_told(family):
    model = bare(family, scopes(family)[-1])
    names = ["vl-pet-large"] if family not in PIXELS else ["lora", "prefix-tuning"]
    for name in names:
        method = build_method(MethodSpec(name), model.anatomy)
        with pytest.raises(UserError, match=r"^the backbone has no |scope projector has no") as raised:
            attach_method(model, method, design_of(method, model.anatomy), TASKS)
        assert not isinstance(raised.value, PluginError) and len(raised.value.faults) == 1
    with pytest.raises(UserError, match=r"^nothing would train in the scope [a-z, ]+$"):
        attach(bare(family, ("language",)), Design(train=("visual",)))
