"""Denoising of text, as encoder-decoders are pre-trained."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

MOST_SPANS = 99  # as many as there are sentinels, but for one


def denoised(tokenizer: Any, ids: Sequence[int], rng: Random) -> tuple[list[int], list[int]]:
    """A line's ids with spans of about three tokens hidden, and what is to be said; without special tokens around them.

    Where the tokenizer has a mask token, as BART's (Lewis et al., ACL 2020), 30 % of the tokens are hidden and the
    whole line is to be said; else 15 % are, behind sentinels, and the spans are (T5; Raffel et al., JMLR 2020).
    Different from both: spans of 1 to 5 tokens, uniformly, and none of no token.
    """
    masks = tokenizer.mask_token_id is not None
    source: list[int] = []
    spans: list[list[int]] = []
    i = 0
    while i < len(ids):
        length = rng.randint(1, 5)
        if rng.random() < (0.14 if masks else 0.06) and len(spans) < MOST_SPANS:
            mark = tokenizer.convert_tokens_to_ids(tokenizer.mask_token if masks else f"<extra_id_{len(spans)}>")
            source.append(mark)
            spans.append([mark, *ids[i : i + length]])
            i += length
        else:
            source.append(ids[i])
            i += 1
    return source, [*ids] if masks else [id for span in spans for id in span]
