"""Beam search of encoder-decoders: beams of an example share what they attend to, and an example that is done leaves.

It finds the same words as `generate` of transformers (5.x, `_beam_search`), which runs all beams on copies of what was
encoded and all examples until the last one is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache, GenerationConfig
from transformers.cache_utils import DynamicLayer

from pet_bench.backbone.interface import Context, Model

NEVER = -1e9  # of scores, as in transformers
Step = Callable[[Tensor], Tensor]


class OfExamples(DynamicCache):
    """Keys and values with a row an example, or with one a beam that are the same: beams stay with their example."""

    def __init__(self, examples: int):
        super().__init__()
        self.examples = examples

    def reorder_cache(self, beam_idx: Tensor) -> None:
        pass

    def leave(self, stay: Tensor) -> None:
        """stay (examples,) bool."""
        for layer in self.layers:
            assert isinstance(layer, DynamicLayer) and layer.keys is not None
            each = len(layer.keys) // self.examples
            layer.batch_select_indices(stay.repeat_interleave(each).nonzero()[:, 0])
        self.examples = int(stay.sum())


def shared_cache(examples: int) -> EncoderDecoderCache:
    """Of self-attention, with a row a beam, and of cross-attention, with a row an example."""
    return EncoderDecoderCache(DynamicCache(), OfExamples(examples))


@contextmanager
def sharing(model: Model, beams: int) -> Iterator[None]:
    """Cross-attention reads the beams of an example, (B · beams, T, d), as so many more positions of it,
    (B, beams · T, d), and so has keys, values, mask and context of B examples. What it gives is the same.

    Inside of it, its own modules and what is inserted there see the shape of examples; around it, nothing changes.
    """
    if beams == 1:
        yield
        return
    anatomy = model.anatomy
    stack, path = anatomy.stacks[anatomy.writing], anatomy.sites[f"{anatomy.writing}.cross_attn"].writer
    with ExitStack() as hooks:
        for i in range(stack.layers):
            fold = Fold(model.context, beams)
            module = model.at(path, stack.name_of(i))
            hooks.callback(module.register_forward_pre_hook(fold.enter, with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(fold.leave, prepend=True).remove)
        yield


class Fold:
    """Of one module: its last hook before it, and its first behind it."""

    def __init__(self, context: Context, beams: int):
        self.context, self.beams, self.kept = context, beams, dict[str, Any]()

    def enter(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        states = args[0] if args else kwargs["hidden_states"]
        rows, self.length = states.shape[:2]
        kwargs = {name: self._of_examples(value, rows) for name, value in kwargs.items()}
        self.kept = dict(vars(self.context))
        self.context.thin(self.beams)
        folded = states.reshape(rows // self.beams, self.beams * self.length, -1)
        return ((folded, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": folded})

    def _of_examples(self, value: Any, rows: int) -> Any:
        """Memory (B · beams, N, d), or a mask (B · beams, 1, T, N) that is the same for all T."""
        if not isinstance(value, Tensor) or len(value) != rows:
            return value
        return value[:: self.beams, :, :1] if value.dim() == 4 else value[:: self.beams]

    def leave(self, module: nn.Module, args: tuple, output: tuple) -> tuple:
        vars(self.context).update(self.kept)
        states = output[0]
        return states.reshape(len(states) * self.beams, self.length, -1), *output[1:]


class Beams:
    """The search over R examples, K beams and V words, those examples first that are in it still.

    ids (R, K, t), scores (R, K): what is being said, and Σ log p of it. done (R, K, T), its lengths and values (R, K),
    best first: what was said to its end, of value Σ log p / length^penalty; `ended` (R, K), where there is any.
    """

    def __init__(self, ids: Tensor, config: GenerationConfig):
        beams, self.begin = config.num_beams or 1, ids.shape[1]
        ends = config.eos_token_id
        ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
        self.keep, self.penalty = max(2, 1 + len(ends)) * beams, config.length_penalty
        self.early, self.most = config.early_stopping, config.max_length
        self.fill = config.pad_token_id or next(iter(ends), -1)
        self.ids = ids.view(-1, beams, self.begin)
        rows = len(self.ids)
        self.scores = torch.full((rows, beams), NEVER, device=ids.device)
        self.scores[:, 0] = 0.0  # else all beams would say the same
        self.done = ids.new_full((rows, beams, self.most), self.fill)
        self.done[..., : self.begin] = self.ids
        self.lengths = ids.new_zeros(rows, beams)
        self.values, self.ended = torch.full_like(self.scores, NEVER), torch.zeros_like(self.scores, dtype=torch.bool)
        self.open = torch.ones_like(self.scores[:, :1], dtype=torch.bool)  # (R, 1): a better end may come

    def step(self, log_p: Tensor, criteria: Callable[[Tensor, Any], Tensor]) -> tuple[Tensor, Tensor]:
        """One more word, of log p (R · K, V) → which beams (R, K) go on, and which examples (R,) are done."""
        rows, beams, length = self.ids.shape
        best, words = top_of(log_p, min(self.keep, log_p.shape[-1]))
        total = best.view(rows, beams, -1) + self.scores[..., None]
        top, at = total.flatten(1).topk(self.keep)
        of, word = at // best.shape[-1], words.view(rows, -1).gather(1, at)
        said = torch.cat([_taken(self.ids, of), word[..., None]], dim=-1)
        ends = criteria(said.flatten(0, 1), None).view(rows, -1)
        going = top + ends.float() * NEVER
        on = going.topk(beams).indices
        self._finish(said, top, ends)
        self.ids, self.scores = _taken(said, on), _taken(going, on)
        reach = self.most if self.early == "never" and self.penalty > 0 else length + 1
        hope = self.scores[:, :1] / (reach - self.begin) ** self.penalty
        worst = torch.where(self.ended, self.values.amin(1, keepdim=True), NEVER)
        self.open = self.open & (hope > worst).any(-1, keepdim=True)
        over = ~self.open[:, 0] | ends.all(1)
        return _taken(of, on), over | self.ended.all(1) if self.early is True else over

    def _finish(self, said: Tensor, top: Tensor, ends: Tensor) -> None:
        """Take up what ends among the first K of what is being said."""
        beams, length = self.ids.shape[1], said.shape[-1]
        ends = ends & (torch.arange(self.keep, device=ends.device) < beams)
        value = top / (length - self.begin) ** self.penalty
        if self.early is True:
            value = value + self.ended.all(1, keepdim=True).float() * NEVER
        value = value + (~self.open).float() * NEVER + (~ends) * NEVER
        whole = said.new_full((len(said), self.keep, self.most), self.fill)
        whole[..., :length] = said
        values = torch.cat([self.values, value], dim=1)
        best = values.topk(beams).indices
        lengths = torch.cat([self.lengths, self.lengths.new_full(ends.shape, length - self.begin)], dim=1)
        self.done, self.lengths = _taken(torch.cat([self.done, whole], dim=1), best), _taken(lengths, best)
        self.values, self.ended = _taken(values, best), _taken(torch.cat([self.ended, ends], dim=1), best)

    def leave(self, stay: Tensor) -> None:
        """stay (R,) bool."""
        for name in ("ids", "scores", "done", "lengths", "values", "ended", "open"):
            setattr(self, name, getattr(self, name)[stay])


def top_of(rows: Tensor, k: int, part: int = 256) -> tuple[Tensor, Tensor]:
    """The largest k of rows (R, V), best first, and where they are, (R, k) each: among the k parts of largest maxima.

    As `topk` finds them, which on the CPU sorts all; where values are equal, any may be among them, as there.
    """
    whole = rows.shape[1] // part * part
    if whole < 4 * k * part:
        values, at = rows.topk(k)
        return values, at
    parts = rows[:, :whole].unflatten(1, (-1, part)).amax(-1).topk(k).indices
    within = (parts[..., None] * part + torch.arange(part, device=rows.device)).flatten(1)
    rest = torch.arange(whole, rows.shape[1], device=rows.device).expand(len(rows), -1)
    candidates = torch.cat([within, rest], dim=1)
    values, at = rows.gather(1, candidates).topk(k)
    return values, candidates.gather(1, at)


def _taken(rows: Tensor, at: Tensor) -> Tensor:
    """rows (R, N, …), at (R, M) → (R, M, …)."""
    return rows.take_along_dim(at.view(*at.shape, *[1] * (rows.dim() - 2)), dim=1)


def search(
    lm: Any,
    input_ids: Tensor,
    logits_processor: Callable[[Tensor, Tensor], Tensor],
    stopping_criteria: Callable[[Tensor, Any], Tensor],
    generation_config: GenerationConfig,
    **given: Any,
) -> Tensor:
    """The best ids (B, T), the first ones included: what `generate` calls in the place of its own search.

    input_ids (B · K, t) and what is given, encoder_outputs, attention_mask and past_key_values (or none), have a row
    for each beam. The model's context follows encoder_outputs.
    """
    beams, ids, cache = generation_config.num_beams or 1, input_ids, given.get("past_key_values")
    encoded, mask = given["encoder_outputs"], given["attention_mask"]
    state, forced = Beams(ids, generation_config), generation_config.forced_eos_token_id is not None
    rows = torch.arange(len(state.ids), device=ids.device)
    words = ids.new_full((len(rows), state.most), state.fill)
    length = 0
    while len(rows):
        if forced and ids.shape[1] == state.most - 1:  # whatever the model were to say
            log_p = torch.zeros(len(ids), lm.config.vocab_size, device=ids.device)
        else:
            logits = lm(
                encoder_outputs=encoded,
                attention_mask=mask,
                decoder_input_ids=ids if cache is None else ids[:, -1:],
                past_key_values=cache,
                use_cache=cache is not None,
            ).logits[:, -1]
            log_p = logits.float().log_softmax(-1)
        on, over = state.step(logits_processor(ids, log_p), stopping_criteria)
        on = on + beams * torch.arange(len(on), device=on.device)[:, None]
        if over.any():
            words[rows[over]] = state.done[over, 0]
            length = max(length, int(state.lengths[over, 0].max()))
            state.leave(stay := ~over)
            rows, on = rows[stay], on[stay]
            mask = mask[each := stay.repeat_interleave(beams)]
            encoded = type(encoded)(**{k: v[each] if isinstance(v, Tensor) else v for k, v in encoded.items()})
            if cache is not None:
                cache.cross_attention_cache.leave(stay)
        if cache is not None:
            cache.reorder_cache(on.flatten())
        ids = state.ids.flatten(0, 1)
    return words[:, : state.begin + length]
