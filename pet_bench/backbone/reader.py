"""Between examples and what a model reads: texts as tokens, batches as inputs, ids as text again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any, cast

from torch import Tensor
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from pet_bench.backbone.denoise import denoised

# transformers 4.2.1 decoded so, in this order (TASKS.md section 0.5); later versions no longer do for byte-level BPE
CLEAN_UP = [
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"),
    (" 've", "'ve"), (" 're", "'re"),
]  # fmt: skip


Tokenizer = PreTrainedTokenizerBase | ProcessorMixin


class Reader:
    """Of models fed with stored features: the text and the features of the images are two tensors."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self.pad: int = cast(int, tokenizer.pad_token_id)

    def tokens(self, texts: Sequence[str], limit: int | None) -> list[list[int]]:
        """Each text as ids, special ones included, cut on the right to `limit`."""
        options: dict[str, Any] = {"truncation": limit is not None, "max_length": limit}
        return self.tokenizer(list(texts), return_attention_mask=False, **options)["input_ids"]

    def shortened(self, text: str, limit: int, spare: tuple[int, int]) -> list[int]:
        """The tokens of a text but for as many of text[start:end]'s last ones as are too many.

        Where there are not enough of them, the rest is cut on the right.
        """
        start, end = spare
        encoded = self.tokenizer(text, return_offsets_mapping=True, verbose=False)
        ids, places = encoded["input_ids"], encoded["offset_mapping"]
        inside = [i for i, (low, high) in enumerate(places) if start <= low < high <= end]
        excess = max(0, len(ids) - limit)
        if excess > len(inside):
            return self.tokens([text[:start] + text[end:]], limit)[0]
        dropped = {*inside[len(inside) - excess :]}
        return [token for i, token in enumerate(ids) if i not in dropped]

    def targets(self, texts: Sequence[str], limit: int | None) -> list[list[int]]:
        """Each answer as the ids that are to be said, the end included, cut on the right to `limit`."""
        return self.tokens(texts, limit)

    def recalled(self, lines: Sequence[str], limit: int, rng: Random) -> list[tuple[list[int], list[int]]]:
        """Of each line what is read and what is to be said, as ids, as in pre-training: it is to be denoised."""
        begin, end = self.tokenizer.bos_token_id, cast(int, self.tokenizer.eos_token_id)

        def whole(ids: list[int]) -> list[int]:
            return [*([] if begin is None else [cast(int, begin)]), *ids, end]

        cut = self.tokenizer(list(lines), add_special_tokens=False, truncation=True, max_length=limit)["input_ids"]
        pairs = (denoised(self.tokenizer, ids, rng) for ids in cut)
        return [(whole(source), whole(target)) for source, target in pairs]

    def said(self, ids: list[int]) -> str:
        """What is left of a text that was cut to these ids."""
        return cast(str, self.tokenizer.decode(ids, skip_special_tokens=True))

    def inputs(self, text: Tensor, seen: Any, said: Sequence[str]) -> dict[str, Any]:
        """A batch as the model reads it.

        text (B, L): ids, padded on the right with `pad`; said: the B texts themselves. seen: what the store has of the
        images, features (B, I, N, f), or the pictures of each example.
        """
        return {"text": text, "features": seen}

    def firsts(self, words: Iterable[str]) -> list[int]:
        """The first sub-token of each word."""
        return [self.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]

    def texts(self, ids: Tensor) -> list[str]:
        """What a continuation (B, T) says."""
        said = self.tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [clean_up(text) for text in said]


class ContinuingReader(Reader):
    """Of models that go on: a text is its words alone, an answer its words between what it begins with and the end."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        super().__init__(tokenizer)
        self.begin: list[int] = []
        self.end: int = cast(int, tokenizer.eos_token_id)

    def tokens(self, texts: Sequence[str], limit: int | None) -> list[list[int]]:
        options: dict[str, Any] = {"truncation": limit is not None, "max_length": limit}
        return self.tokenizer(
            list(texts), add_special_tokens=False, return_attention_mask=False, **options
        )["input_ids"]  # fmt: skip

    def targets(self, texts: Sequence[str], limit: int | None) -> list[list[int]]:
        """Cut as an encoder-decoder's with its start and end: the end is always there."""
        words = self.tokens(texts, None if limit is None else limit - 1 - len(self.begin))
        return [[*self.begin, *ids, self.end] for ids in words]

    def recalled(self, lines: Sequence[str], limit: int, rng: Random) -> list[tuple[list[int], list[int]]]:
        """A line is written from nothing."""
        return [([], ids) for ids in self.targets(lines, limit)]


def clean_up(text: str) -> str:
    """`a dog , is n't it ?` → `a dog, isn't it?`"""
    for written, better in CLEAN_UP:
        text = text.replace(written, better)
    return text
