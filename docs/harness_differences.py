"""Differences from papers and published code that are no method's own, as data for `differences.md`.

Those that an option of one method decides are declared by the method (`Method.differences`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """what: what was meant, or what the paper says. published: what the published code does. ours: what happens here
    by default. other: how to get the other, or why it is not offered. grid: keys of a grid file that do. evidence:
    where it is shown."""

    name: str
    what: str
    published: str
    ours: str
    other: str
    evidence: str
    grid: str = ""


DATA = [
    Entry(
        "gqa-prompt",
        'Every task is announced by its name: "vqa: ", "gqa: ", "nlvr: ", "caption: ".',
        'GQA\'s prompt is "gpa: " in every script, so the published models were trained on it.',
        "As published.",
        "Spell it in the protocol.",
        "METHODS.md 6; METHODS.md 10, 9; tests/trial/test_run.py::test_tasks_of_a_protocol",
        'protocol: {gqa: {prompt: "gqa: "}}',
    ),
    Entry(
        "task-prompts",
        "Methods are compared on the same text.",
        "On image-text, the runs of full fine-tuning (VL-PET repository), of HyperFormer and of VL-Adapters of every "
        "task's own have no task prompt in the text; a caption's text is then empty.",
        "As published: `full`, `hyperformer` and `vl-adapter` with `per_task: both` empty the prompts of the suite "
        "`image-text`, and the resolved trial's protocol says so.",
        "Turn the methods' option on; or set one task's prompt in the protocol, which wins.",
        "METHODS.md 6; tests/trial/test_resolve.py::test_a_method_without_task_prompts_empties_them",
        "methods:\n  - {name: full, task_prompts: true}\n  - {name: hyperformer, task_prompts: true}",
    ),
    Entry(
        "boxes",
        "Each image token knows its place: Norm(W_p [box, area] + b_p) is part of its embedding.",
        "The loaders of grid features give boxes of zeros, so that the term is one learned vector for all tokens. It "
        "trains and counts all the same. What tells the tokens apart is the object-order embedding.",
        "As published.",
        "Not offered: grid features are stored without boxes. A model takes `boxes` where there are some.",
        "METHODS.md 1; METHODS.md 10, 6; parity/bart_full (its boxes are random, and are met)",
    ),
    Entry(
        "caption-length",
        "Captions are trained on up to 40 tokens and should be generated as long.",
        "Our two descriptions of the published code disagree: METHODS.md says generation stops at 20, TASKS.md that it "
        "stops at 40 for COCO and at 20 for the video captions.",
        "40 for COCO, start and end counted; beam search over 5.",
        "Say so in the protocol.",
        "METHODS.md 5; METHODS.md 10, 9; TASKS.md 4",
        "protocol: {coco-caption: {max_length: 20}}",
    ),
    Entry(
        "answer-sampling",
        "An example with several right answers learns one of them at a time, drawn by its score.",
        "The draws come from the process's global generator inside the loader's workers; with the libraries of the "
        "time all workers share its state and repeat it every epoch.",
        "Drawn from a generator of the trial's seed and the epoch, a draw for each example.",
        "Not offered: it depended on the number of workers.",
        "TASKS.md 1; tests/data/test_batches.py::test_an_answer_depends_on_seed_epoch_and_index_only",
    ),
    Entry(
        "vqa-scorer",
        "VQA accuracy is the official evaluator's; its authors corrected the order of its text clean-up in 2021.",
        "The evaluator is that of 2016.",
        "As published.",
        "The protocol has the version.",
        "TASKS.md 1; tests/metrics/test_vqa_accuracy.py",
        'protocol: {vqa: {scorer: "2021"}}',
    ),
    Entry(
        "video-truncation",
        "A text about a clip that is too long loses subtitles; question, choices and prompt are always read.",
        "Subtitles come first and texts are cut at 600 tokens on the right, so that it is the question that goes.",
        "As published.",
        "The protocol has both.",
        "TASKS.md 5; tests/tasks/test_video_readers.py::test_or_its_subtitles_are",
        "suites: [video-text]\nprotocol: {tvqa: {truncation: subtitles}, how2qa: {truncation: subtitles}}",
    ),
    Entry(
        "padded-frames",
        "Padding is not attended to.",
        "Clips of fewer than 64 frames are filled up with zeros, which are embedded and attended like frames.",
        "As published.",
        "The protocol has both.",
        "TASKS.md 0.3; tests/tasks/test_video_readers.py::test_masked_frames_are_as_if_they_were_not_there",
        "suites: [video-text]\nprotocol: {tvqa: {padded_frames: masked}, tvc: {padded_frames: masked}}",
    ),
    Entry(
        "video-caption-items",
        "A clip's caption is scored against all of its references at once.",
        "Every reference is an item of its own, with one reference and with a prediction made anew. With TVC's four "
        "references a clip, CIDEr is another number than the official one.",
        "As published.",
        "The protocol has the official one.",
        "TASKS.md 7; tests/tasks/test_clips.py::test_items_of_the_captions",
        "suites: [video-text]\nprotocol: {tvc: {unit: clip}}",
    ),
    Entry(
        "video-caption-length",
        "Descriptions are learned and generated whole.",
        "Both are cut at 20 tokens, as are the answers of the other video tasks.",
        "As published.",
        "The protocol has both lengths.",
        "TASKS.md 7; tests/tasks/test_video_readers.py::test_options_and_their_published_values",
        "suites: [video-text]\nprotocol:\n  tvc: {max_target: 40, max_length: 40}\n"
        "  yc2c: {max_target: 40, max_length: 40}",
    ),
]

TRAINING = [
    Entry(
        "optimiser",
        "AdamW: eps is added after the bias correction, the decay acts on the parameter before the update.",
        "AdamW of transformers 4.2.1: eps = 1e-6 is added to √v before the correction, and the decay acts on the "
        "updated parameter.",
        "As published (`ReferenceAdamW`).",
        "eps is a recipe value; the order is not offered, as all published numbers were made with this one.",
        "METHODS.md 8; tests/parity/test_parity.py::test_three_updates",
        "recipe: {eps: 1e-8}",
    ),
    Entry(
        "norm-decay",
        "Biases and layer norms are exempt from weight decay.",
        'The exemption is by name, "bias" and "LayerNorm.weight"; no norm of BART or T5 is called so. Their weights '
        "decay, as do vectors and matrices that PET adds. T5's table of relative positions does not.",
        "As published.",
        "Not offered on its own; without any decay:",
        "METHODS.md 8; tests/parity/test_parity.py::test_three_updates",
        "recipe: {weight_decay: 0}",
    ),
    Entry(
        "key-biases",
        "A parameter that trains has a gradient.",
        'LoRA and BitFit on BART train everything called "bias", the key projections\' included. Those shift all '
        "scores of a query alike: their gradient is zero in exact arithmetic, and Adam moves them by rounding noise. "
        "They count as trained.",
        "As published.",
        "Name the biases that should train. This is BitFit without those of the keys:",
        "METHODS.md 10, 11; tests/docs/test_differences.py::test_key_biases_do_nothing",
        "backbones: [bart-base]\nmethods:\n  - name: design\n"
        '    train: [visual, "lm.*.[qv]_proj.bias", "lm.*.out_proj.bias", "lm.*.fc?.bias", "lm.*norm*.bias"]',
    ),
    Entry(
        "padding-row",
        "The embedding of BART's padding never changes.",
        "Growing the vocabulary drops the embedding's padding index, so the padding's row gets gradients in full "
        "fine-tuning.",
        "The index stays, as `transformers` now has it.",
        "Not offered: it makes no difference. Nothing that reaches the loss reads a padded position, so the only "
        "gradient of the row comes through the tied output layer, which no index stops. (The small gate reads padded "
        "positions, but there the table is frozen.)",
        "METHODS.md 10, 10; tests/docs/test_differences.py::test_the_padding_index_makes_no_difference",
    ),
    Entry(
        "t5-start",
        "A method starts close to the pre-trained model.",
        "VL-PET's T5 runs set the last layer of module and gate to zero and scale by 0.3. The small, middle X and "
        "large gates start at 0.5, so every encoder sub-layer's output starts at 0.15 of its size, with middle Y at "
        "0.3.",
        "As published.",
        "A scale that undoes the gate's 0.5 starts at the pre-trained model itself (with middle Y: `scale: 1.0`).",
        "METHODS.md 7; METHODS.md 10, 8; tests/docs/test_differences.py::test_how_t5_starts",
        "backbones: [t5-base]\nmethods:\n  - {name: vl-pet-large, scale: 2.0}",
    ),
]

ABLATIONS = [
    Entry(
        "key-parallel",
        "Cross-attention keys with a parallel adapter: K = W_k E + b_k + f(E), split into heads.",
        "The keys are never split into heads: their memory is read in another order, and values are split twice.",
        "As meant.",
        "Not offered: the published function is an accident of memory layout.",
        "METHODS.md 10, 4; parity/bart_ab_dec_key_par__scrambled_by_reference; "
        "tests/parity/test_parity.py::test_keys_in_parallel",
        "methods:\n  - {name: vl-pet-large, decoder: {cross_attn.key: parallel}}",
    ),
    Entry(
        "value-sequential",
        "A sequential adapter on the values: V = V_0 + f(V_0), V_0 = W_v E + b_v.",
        "V = E + f(E): the pre-trained projection W_v is not used at all.",
        "Both, by name: `sequential` is what was meant, `replace` what the code does.",
        "Published behaviour:",
        "METHODS.md 10, 3; tests/docs/test_differences.py::test_replacing_the_values_drops_their_projection",
        "methods:\n  - {name: vl-pet-large, decoder: {cross_attn.value: replace}}",
    ),
    Entry(
        "unused-modules",
        "A module that is asked for takes part.",
        "Several are built, counted and never run: value adapters and IA³ vectors on any self-attention, and "
        "multi-head value adapters.",
        "What a design names runs. (Heads change nothing: see `same-model`.)",
        "Leave it out: the function is then the published one, without the dead parameters in the count. With it:",
        "METHODS.md 10, 5; parity/bart_ab_enc_value_par__ignored_by_reference, "
        "parity/bart_ab_enc_value_ia3__ignored_by_reference, parity/bart_ab_dec_self_value_par__ignored_by_reference, "
        "parity/bart_ab_dec_self_value_ia3__ignored_by_reference, "
        "parity/bart_ab_dec_value_par_multihead__ignored_by_reference, "
        "parity/t5_ab_dec_self_value_par__ignored_by_reference; "
        "tests/parity/test_parity.py::test_what_the_reference_ignores_works_here",
        "methods:\n  - {name: vl-pet-large, decoder: {cross_attn.value: parallel, self_attn.value: parallel}}",
    ),
    Entry(
        "unread-options",
        "An option does on T5 what it does on BART.",
        "T5 reads neither the additive gate (it multiplies) nor the scale of the value adapter; the VL-PET "
        "repository's T5 has no LoRA, whose published T5 numbers are Ladder-Side-Tuning's.",
        "All of them work on both backbones.",
        "Leave the option out. With it:",
        "METHODS.md 10, 5; parity/t5_ab_gate_add__ignored_by_reference; "
        "tests/parity/test_parity.py::test_what_the_reference_ignores_works_here",
        "backbones: [t5-base]\nmethods:\n  - {name: vl-pet-large, gating: add, value_scale: 4.0}",
    ),
    Entry(
        "same-model",
        "VL-PET's multi-head down projection is an architecture of its own, compared in Table 9 with the single-head "
        "adapter that has the same gate and decoder.",
        "Every head reads the whole of H, so that the heads side by side are one linear layer, in function, "
        "parameter count, initial distribution and update: `vl-pet-large` and `vl-adapter+large` are one model up to "
        "the random draw. They are printed 0.71 points apart: 79.18 ± 0.14 (Table 2) and 78.47 ± 0.11 (Table 9). "
        "Captions carry it, 122.03 ± 0.46 against 119.05 ± 0.83; VQA (66.17, 66.31), GQA (55.11, 55.09) and NLVR2 "
        "(73.43, 73.46) agree. The other three pairs of the same models lie 0.40, 0.37 and 0.65 apart, always in the "
        "same direction. That is much for three seeds with these standard deviations, so draws alone hardly explain "
        "it; what else differed between the runs is not said. Either way: two rows of this literature less than a "
        "point apart need not be two methods.",
        "One linear layer for both; the same seed gives the same tensors, hence the same trial.",
        "Both names are kept, since both have published rows. Heads that do differ are independent pairs:",
        "METHODS.md 3.2; METHODS.md 10, 13; published/vlpet_table2_image_text.csv and "
        "published/vlpet_table9_transfer.csv; parity/bart_vlpet_large, parity/bart_vladapter_G_large_LW; "
        "tests/docs/test_differences.py::test_same_model",
        "methods:\n  - {name: vl-pet-large, head_layout: pair}",
    ),
]

SECTIONS = {"Data and decoding": DATA, "Training": TRAINING, "VL-PET's ablations": ABLATIONS}
