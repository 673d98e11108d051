"""Tokenizers of the mini backbones, trained on the world's text."""

from __future__ import annotations

import math
import re
from collections import Counter
from random import Random

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from pet_bench.backbone.known import EXTRA_WORDS
from pet_bench.mini.language import PROMPTS, Exercise, written

PRINTABLE = [chr(c) for c in range(33, 127)]


def corpus(seed: int, count: int = 4000) -> list[str]:
    """World text: prompted inputs, targets, written scenes; without the extra words, which are no text."""
    rng = Random(seed)
    lines = []
    for i in range(count):
        exercise = Exercise.sample(tuple(PROMPTS)[i % len(PROMPTS)], rng)
        lines += [exercise.text, exercise.target, written(exercise.scenes, rng, words_only=True)]
    return lines


def bart_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE, ``<s> … </s>``; <s> 0, <pad> 1, </s> 2, <unk> 3, <mask> 4. Represents any text."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(seed), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return _wrap(
        tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        cls_token="<s>",
        sep_token="</s>",
    )


def t5_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Unigram model of the world's words, ``… </s>``; <pad> 0, </s> 1, <unk> 2."""
    tokenizer = _words(seed, ["<pad>", "</s>", "<unk>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return _wrap(tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def llama_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Unigram model of the world's words, ``<s> …``; <pad> 0, </s> 1, <unk> 2, <s> 3."""
    tokenizer = _words(seed, ["<pad>", "</s>", "<unk>", "<s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 3)]
    )
    return _wrap(tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", bos_token="<s>")


def _words(seed: int, special: list[str]) -> Tokenizer:
    """The special tokens, of which <unk> is the third, then the world's words.

    A piece is a word with log p = log of its relative frequency; unseen words fall apart into printable ASCII
    characters, which cost more than any word.
    """
    counts = Counter(word for line in corpus(seed) for word in re.findall(r" ?\w+|[^\w\s]", f" {line}"))
    total = sum(counts.values())
    words = [(word.replace(" ", "▁"), math.log(n / total)) for word, n in sorted(counts.items())]
    known = {word for word, _ in words}
    rare = math.log(1 / total) - 5
    characters = [(c, rare) for c in ["▁", *PRINTABLE] if c not in known]
    vocabulary = [*((token, 0.0) for token in special), *characters, *words]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    return tokenizer


def _wrap(tokenizer: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=256,
        padding_side="right",
        truncation_side="right",
        clean_up_tokenization_spaces=False,
        **special,
    )
    wrapped.add_tokens(list(EXTRA_WORDS), special_tokens=True)
    return wrapped
