from __future__ import annotations

from transformers import LlamaConfig, LlamaForCausalLM

from tests.vlms.tiny import text_config, tokenizer


def build():
    """The second is a tokenizer: there are no pixels."""
    config = {key: value for key, value in text_config().items() if key != "model_type"}
    return LlamaForCausalLM(LlamaConfig(**config)), tokenizer()
