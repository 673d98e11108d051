"""The one attention that methods edit: stock attention, with the edits of each module in order.

An edit changes what one attention module does with its queries, keys and values: learned keys and values before them, a
second softmax added to the output, a bias on the scores. No method sets an attention of its own for the whole model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers import __version__ as version
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward

from pet_bench.backbone.interface import Model
from pet_bench.errors import UserError

IMPLEMENTATION = "pet-bench"


@dataclass(frozen=True)
class Call:
    """One pass through an attention module, after the cache was read and written.

    query (B, heads, T, width), key and value (B, heads, S, width), of which there may be fewer heads. mask (B, 1, T, S)
    is true where a query may look; None, as of a vision tower: everywhere. bias (1, heads, T, S) is what is added to
    the scores, T5's relative positions, or None. settings: scaling, dropout, softcap …
    """

    module: nn.Module
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    bias: Tensor | None
    settings: dict[str, Any] = field(default_factory=dict)

    def before(self, key: Tensor, value: Tensor) -> Call:
        """The call with more keys and values (B, heads, M, width) before its own: never masked, without a bias."""
        length = key.shape[2]
        return replace(
            self,
            key=torch.cat([key, self.key], dim=2),
            value=torch.cat([value, self.value], dim=2),
            mask=None if self.mask is None else F.pad(self.mask, (length, 0), value=True),
            bias=None if self.bias is None else F.pad(self.bias, (length, 0)),
        )


Attend = Callable[[Call], Tensor]  # the output (B, T, heads, width)


class Edit(Protocol):
    """Calls `attend` with the call or another one, and may change its output."""

    def __call__(self, call: Call, *, attend: Attend) -> Tensor: ...


def edit_attention(model: Model, module: nn.Module, edit: Edit) -> None:
    """Have an attention module of the model edited. Of several edits, the first gets what the stock model asks for, and
    its `attend` is the next; the last one's is the stock attention.

    Raises UserError where the stock module would not ask for what was edited.
    """
    vars(module).setdefault("edits", []).append(edit)  # no parameters of the module: those are in `pet`
    if model.lm.config._attn_implementation != IMPLEMENTATION:
        model.lm.set_attn_implementation(IMPLEMENTATION)
    config: Any = module.config
    if config._attn_implementation != IMPLEMENTATION:
        raise UserError(f"transformers {version} does not let {type(module).__name__} be edited: take another version")


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    position_bias: Tensor | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """`transformers`' own attention, edited where the module has edits."""
    chain: Attend = _stock
    for edit in reversed(vars(module).get("edits", [])):
        chain = partial(edit, attend=chain)
    return chain(Call(module, query, key, value, attention_mask, position_bias, settings)), None


def _stock(call: Call) -> Tensor:
    """Scaled dot-product attention; where scores are capped, as Gemma 2's are, the stock one that can."""
    if call.settings.get("softcap") is not None:
        hidden = call.mask
        if hidden is not None:
            least = torch.finfo(call.query.dtype).min
            hidden = torch.zeros_like(hidden, dtype=call.query.dtype).masked_fill(~hidden, least)
        return eager_attention_forward(call.module, call.query, call.key, call.value, hidden, **call.settings)[0]
    return sdpa_attention_forward(
        call.module, call.query, call.key, call.value, call.mask, position_bias=call.bias, **call.settings
    )[0]


def mask(*arguments: Any, **settings: Any) -> Any:
    """The stock mask, never left out: without one, causality would be counted from the first key put before."""
    return sdpa_mask(*arguments, **settings | {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})


AttentionInterface.register(IMPLEMENTATION, attend)
AttentionMaskInterface.register(IMPLEMENTATION, mask)
