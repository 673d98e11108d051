from __future__ import annotations

from transformers import CLIPImageProcessorPil, Florence2Config, Florence2ForConditionalGeneration, Florence2Processor

from tests.vlms.tiny import FFN, HEADS, LAYERS, VOCABULARY, D, tokenizer


def build():
    words = tokenizer(image_token="<image>")
    pictures = CLIPImageProcessorPil(size={"height": 64, "width": 64}, do_center_crop=False)
    pictures.image_seq_length = 5
    processor = Florence2Processor(pictures, words)
    config = Florence2Config(
        vision_config={
            "depths": (1, 2, 1, 1), "embed_dim": (8, 8, 16, 24), "num_heads": (2, 2, 2, 2), "num_groups": (2, 2, 2, 2),
            "window_size": 3, "projection_dim": D,
        },
        text_config={
            "model_type": "bart", "vocab_size": VOCABULARY, "d_model": D, "encoder_layers": LAYERS,
            "decoder_layers": LAYERS, "encoder_ffn_dim": FFN, "decoder_ffn_dim": FFN, "encoder_attention_heads": HEADS,
            "decoder_attention_heads": HEADS, "max_position_embeddings": 256, "decoder_start_token_id": 1,
            "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0, "forced_eos_token_id": None,
        },
        image_token_id=processor.image_token_id, pad_token_id=0, bos_token_id=2, eos_token_id=1,
    )  # fmt: skip
    model = Florence2ForConditionalGeneration(config)
    model.generation_config.forced_bos_token_id = 2  # as the published checkpoints have it
    return model, processor
