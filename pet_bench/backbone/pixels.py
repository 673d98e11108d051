"""Stock vision-language models fed with pixels: the checkpoint's own processor makes what they read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoProcessor, PreTrainedModel, ProcessorMixin
from transformers.models.auto.auto_mappings import PROCESSOR_MAPPING_NAMES

from pet_bench.backbone.anatomy import Anatomy, Site, Stack, attention_sites, ffn_sites
from pet_bench.backbone.family import Family
from pet_bench.backbone.interface import Inputs, Model, plain_settings
from pet_bench.backbone.reader import ContinuingReader
from pet_bench.backbone.source import lacking_parts, said
from pet_bench.backbone.tower import Call, Tower, apart, layers_of, read_layers
from pet_bench.errors import Faults, UserError
from pet_bench.packed import Packed, Rows

BESIDE = ("task", "pictures")  # what a batch has for the model and the stock model does not take
Pictures = Sequence[Sequence[np.ndarray]]  # of each example, (height, width, 3) uint8


class PixelReader(ContinuingReader):
    """Through a processor: a task's text is the user's turn, behind its pictures, and the answer the turn after it."""

    def __init__(self, processor: ProcessorMixin, family: type[PixelFamily]):
        tokenizer: Any = processor.tokenizer
        super().__init__(tokenizer)
        tokenizer.padding_side = family.padding
        self.processor, self.family = processor, family
        self.begin = [getattr(self.tokenizer, key) for key in family.before_choice]
        self.end = family.end(processor)

    def inputs(self, text: Tensor, seen: Pictures, said: Sequence[str]) -> dict[str, Rows]:
        pictures = [[Image.fromarray(picture) for picture in pictures] for pictures in seen]
        given = dict(self.family.read(self.processor, said, pictures))
        return self.family.rows(given, torch.tensor([len(each) for each in pictures]))


class SeesPixels(Model):
    """A stock vision-language model as it is. The visual tokens are what its language model reads at the places of
    image tokens, and the mask is of all positions of the stack that reads."""

    aligned = True
    family: type[PixelFamily]

    def __init__(self, lm: PreTrainedModel, anatomy: Anatomy, family: type[PixelFamily]):
        super().__init__(lm, anatomy, family)
        self.pet = nn.ModuleDict()
        self.tower = Tower(self)
        self._places: Tensor | None = None  # (B, N), where image tokens are, until they have been read
        self.at(anatomy.stacks[anatomy.reading].blocks, 0).register_forward_pre_hook(self._look, with_kwargs=True)

    @property
    def pad(self) -> int:
        """What stands where nothing is read, or said after the end."""
        ids = self.lm.generation_config.pad_token_id, self.lm.config.get_text_config().pad_token_id
        return next((id for id in ids if id is not None), 0)

    def taken(self, inputs: Inputs) -> dict[str, Tensor]:
        """What the stock model is given of a batch; its task goes to the context, which pictures it is to the tower."""
        self.context.task, self.tower.pictures = inputs.get("task"), inputs.get("pictures")
        given = {k: v.flat if isinstance(v, Packed) else v for k, v in inputs.items() if k not in BESIDE}
        return self.family.prepared(given)

    def read(self, given: dict[str, Tensor], mask: Tensor) -> None:
        """Tell the context what is about to be read, mask (B, N) of the prompt."""
        self.context.mask, self.context.prompt = mask.bool(), mask.shape[1]
        self._places = torch.isin(given["input_ids"], torch.tensor(self.image_tokens, device=mask.device))

    @property
    def image_tokens(self) -> list[int]:
        """The ids that stand for a part of an image."""
        return [id for key in self.family.image_ids if (id := getattr(self.lm.config, key, None)) is not None]

    def _look(self, layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        places = self._places
        if places is None:
            return
        states: Tensor = args[0] if args else kwargs["hidden_states"]
        self._places = None
        places = places.repeat_interleave(len(states) // len(places), 0)
        most = int(places.sum(1).max())
        order = places.byte().sort(dim=1, stable=True, descending=True).indices[:, :most]
        self.context.visual = states.gather(1, order[..., None].expand(-1, -1, states.shape[-1]))
        self.context.seen = places.gather(1, order)
        assert self.context.mask is not None  # `read` has set it
        self.context.mask = self.context.mask.repeat_interleave(len(places) // len(self.context.mask), 0)

    def settings(self, num_beams: int, max_length: int, plain: bool) -> dict[str, Any]:
        """Of `generate`. max_length counts a start token, as of an encoder-decoder."""
        return {
            "num_beams": num_beams,
            "max_new_tokens": max_length - 1,
            "do_sample": False,
            "pad_token_id": self.pad,
            "suppress_tokens": self.image_tokens or None,
            **plain_settings(plain),
        }


class PixelDecoder(SeesPixels):
    """Decoder-only: the answer continues the prompt. Prompts of a batch end together, padded on the left."""

    def logits(self, inputs: Inputs, targets: Tensor) -> Tensor:
        given = self.taken(inputs)
        prompt, mask = given.pop("input_ids"), given.pop("attention_mask")
        answer, there = targets[:, :-1], targets[:, :-1] != -100
        ids = torch.cat([prompt, answer.masked_fill(~there, self.pad)], dim=1)
        joint = torch.cat([mask, there.to(mask.dtype)], dim=1)
        self.read({"input_ids": ids}, joint)
        self.context.prompt = prompt.shape[1]
        return self.lm(
            input_ids=ids,
            attention_mask=joint,
            **self.family.continued(given, answer.shape[1]),
            **self.family.positions(joint),
            use_cache=False,
            logits_to_keep=targets.shape[1],
        ).logits

    @torch.no_grad()
    def generate(self, inputs: Inputs, *, num_beams: int, max_length: int, plain: bool = False) -> Tensor:
        given = self.taken(inputs)
        self.read(given, given["attention_mask"])
        ids = self.lm.generate(**given, **self.settings(num_beams, max_length, plain))
        return ids[:, given["input_ids"].shape[1] :]

    def choose(self, inputs: Inputs, words: list[int]) -> Tensor:
        """After the prompt."""
        rows = len(inputs["input_ids"])
        return self.logits(inputs, torch.full((rows, 1), -100, device=self.device))[:, -1, words]

    def read_before(self, answer: Tensor | None) -> Tensor:
        return torch.empty(1, 0, dtype=torch.long, device=self.device) if answer is None else answer[:, :-1]


class PixelEncoderDecoder(SeesPixels):
    """The encoder reads prompt and pictures, padded on the right; the decoder writes the answer."""

    def __init__(self, lm: PreTrainedModel, anatomy: Anatomy, family: type[PixelFamily]):
        super().__init__(lm, anatomy, family)
        self.at(anatomy.stacks[anatomy.writing].blocks, 0).register_forward_pre_hook(self._expand, with_kwargs=True)

    def _expand(self, layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """What was encoded once counts for each beam."""
        states: Tensor = args[0] if args else kwargs["hidden_states"]
        if self.context.mask is not None and len(states) > len(self.context.mask):
            self.context.repeat(len(states) // len(self.context.mask))

    @property
    def text(self) -> Any:
        """The decoder's configuration."""
        return self.lm.config.get_text_config(decoder=True)

    @property
    def start(self) -> int:
        """What the decoder reads first."""
        ids = self.lm.generation_config.decoder_start_token_id, getattr(self.text, "decoder_start_token_id", None)
        return next(id for id in (*ids, self.text.bos_token_id) if id is not None)

    def logits(self, inputs: Inputs, targets: Tensor) -> Tensor:
        given = self.taken(inputs)
        self.read(given, given["attention_mask"])
        return self.lm(**given, decoder_input_ids=self.read_before(targets), use_cache=False).logits

    @torch.no_grad()
    def generate(self, inputs: Inputs, *, num_beams: int, max_length: int, plain: bool = False) -> Tensor:
        given = self.taken(inputs)
        self.read(given, given["attention_mask"])
        settings = self.settings(num_beams, max_length, plain) | {"decoder_start_token_id": self.start}
        return self.lm.generate(**given, **settings)[:, 1:]

    def choose(self, inputs: Inputs, words: list[int]) -> Tensor:
        """After what `read_before(None)` has."""
        given = self.taken(inputs)
        self.read(given, given["attention_mask"])
        ids = self.read_before(None).expand(len(given["input_ids"]), -1)
        return self.lm(**given, decoder_input_ids=ids, use_cache=False).logits[:, -1, words]

    def read_before(self, answer: Tensor | None) -> Tensor:
        if answer is None:
            begin = [getattr(self.text, key) for key in self.family.before_choice]
            return torch.tensor([[self.start, *begin]], device=self.device)
        shifted = torch.cat([answer.new_full((len(answer), 1), self.start), answer[:, :-1]], dim=1)
        return shifted.masked_fill(shifted == -100, self.pad)


class PixelFamily(Family):
    """Families of stock vision-language models.

    padding: the side of prompts. image_ids: keys of the configuration that name image tokens, which are never said.
    turns: whether the checkpoint must have a chat template. before_choice: keys of the special tokens that an answer of
    an encoder-decoder begins with, as it was trained. tower: path of the module that sees one image after the other
    while it is frozen, so that what it gives may be kept (see `backbone.tower`). source: of the published PET recipe
    that the defaults follow.
    """

    fed = "pixels"
    sizes: ClassVar = ()
    visual_eps = 0.0  # there is no visual embedding
    word_std = 0.0  # and no vocabulary grows
    ids_alike = ()
    padding: ClassVar[str] = "left"
    image_ids: ClassVar[tuple[str, ...]] = ("image_token_id", "image_token_index")
    turns: ClassVar[bool] = True
    before_choice: ClassVar[tuple[str, ...]] = ()
    tower: ClassVar[str]

    @classmethod
    def model(cls, lm, anatomy, visual) -> SeesPixels:
        return PixelDecoder(lm, anatomy, cls)

    @classmethod
    def read_layers(cls, config: Any, layers: int) -> tuple[int, ...]:
        """The layers of the tower whose output is read behind it: all that is kept of a frozen one."""
        return read_layers(config, layers)

    @classmethod
    def apart(cls, args: Sequence[Any], kwargs: dict[str, Any]) -> Iterator[Call]:
        """A call of the tower as one for each picture, or tile of one."""
        return apart(args, kwargs)

    # texts and pictures ----------------------------------------------------------------------------------------------

    @classmethod
    def reader(cls, tokenizer):
        assert isinstance(tokenizer, ProcessorMixin)
        return PixelReader(tokenizer, cls)

    @classmethod
    def read(cls, processor: Any, texts: Sequence[str], pictures: Sequence[Sequence[Image.Image]]) -> Any:
        """What the processor makes of a batch: each text as the user's turn behind its pictures."""
        turns = [[_turn(text, pictures)] for text, pictures in zip(texts, pictures, strict=True)]
        return processor.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
            processor_kwargs={"padding": True},
        )  # fmt: skip

    @classmethod
    def rows(cls, given: dict[str, Tensor], images: Tensor) -> dict[str, Rows]:
        """The same by examples; images (B,): how many each has. By default what is not of ids is a row an image."""
        words = {name: given[name] for name in given if len(given[name]) == len(images) and given[name].dim() == 2}
        return words | {name: Packed(given[name], images) for name in given if name not in words}

    @classmethod
    def prepared(cls, given: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the stock model takes of what the processor gave."""
        return given

    @classmethod
    def continued(cls, given: dict[str, Tensor], length: int) -> dict[str, Tensor]:
        """The same for a prompt that `length` positions of the answer follow."""
        return {
            name: nn.functional.pad(it, (0, length), value=cls.answers[name]) if name in cls.answers else it
            for name, it in given.items()
        }

    answers: ClassVar[dict[str, int]] = {}  # what stands at the answer in tensors with a column a position

    @classmethod
    def positions(cls, mask: Tensor) -> dict[str, Tensor]:
        """Positions of a joint sequence, mask (B, N), as `generate` counts them: padding takes none."""
        return {"position_ids": (mask.long().cumsum(1) - 1).clamp(min=0)}

    @classmethod
    def end(cls, processor: Any) -> int:
        """What ends an answer: the special token that the template puts behind one, or the tokenizer's end."""
        eos = processor.tokenizer.eos_token_id
        if not processor.chat_template:
            return eos
        turns = [_turn("a", ()), {"role": "assistant", "content": [{"type": "text", "text": "b"}]}]
        with suppress(Exception):  # a template that takes no such talk has no such end
            behind = processor.apply_chat_template(turns, tokenize=False).rpartition("b")[2]
            first = processor.tokenizer(behind, add_special_tokens=False)["input_ids"][:1]
            return first[0] if first and first[0] in processor.tokenizer.all_special_ids else eos
        return eos

    @classmethod
    def settle(cls, lm, tokenizer):
        """What ends an answer ends generation too, where the checkpoint knows only other ends."""
        end, ends = cls.end(tokenizer), lm.generation_config.eos_token_id
        known = [] if ends is None else ends if isinstance(ends, list) else [ends]
        if end not in known:
            lm.generation_config.eos_token_id = [*known, end]

    # checkpoints -----------------------------------------------------------------------------------------------------

    @classmethod
    def processor(cls, source: str) -> Any:
        """The checkpoint's processor."""
        return AutoProcessor.from_pretrained(source)

    @classmethod
    def read_tokenizer(cls, backbone, config):
        """The processor; raises UserError, with all faults together, where there is none or it is another model's."""
        what = f'backbone "{backbone.name}"'
        if lacking := lacking_parts(backbone.source):
            raise UserError(f"{what} cannot be loaded from {backbone.source}: it has {' and '.join(lacking)}")
        try:
            processor = cls.processor(backbone.source)
        except Exception as error:
            raise UserError(f"{what} cannot be loaded from {backbone.source}: its processor: {said(error)}") from error
        for kind in (cls.processor_faults(processor, config), cls.reading_faults(processor)):
            faults = Faults()
            for fault in kind:
                faults.add(f"{what}: its processor {fault}")
            faults.check()
        return processor

    @classmethod
    def processor_faults(cls, processor: Any, config: Any) -> Iterator[str]:
        """What keeps a processor from being this model's, a line each."""
        if not isinstance(processor, ProcessorMixin) or getattr(processor, "image_processor", None) is None:
            yield f"makes no pixels, it is a {type(processor).__name__} (is preprocessor_config.json missing?)"
            return
        usual = PROCESSOR_MAPPING_NAMES.get(config.model_type)
        if usual and usual not in (kind.__name__ for kind in type(processor).__mro__):
            yield f"is a {type(processor).__name__}, and this model's is a {usual}"
            return
        if cls.turns and not processor.chat_template:
            yield "has no chat template (chat_template.jinja): how a question is put to the model is not known"
        theirs = processor.image_token_ids[0]  # `image_token_id` may be that of the mark in a text
        ours = next((id for key in cls.image_ids if (id := getattr(config, key, None)) is not None), None)
        if theirs is not None and theirs != ours:
            yield f"puts {theirs} where an image is, and the model looks for {ours}"

    @classmethod
    def reading_faults(cls, processor: Any) -> Iterator[str]:
        """What is seen to be wrong with a processor when it reads a text behind a picture."""
        picture = np.zeros((64, 64, 3), np.uint8)
        try:
            reader = cls.reader(processor)
            short, long = (
                reader.inputs(torch.empty(0), [[picture]], [text])["input_ids"][0] for text in ("a", "is this a ?")
            )
        except Exception as error:
            yield f"cannot read a text behind a picture: {said(error)}"
            return
        if processor.image_token_ids[0] not in short.tolist():
            yield "puts nothing where an image is: its chat template has no place for one"
        if short.tolist() == long.tolist():
            yield "leaves out the text: its chat template has no place for it"

    @staticmethod
    def tie_all(config):
        """Its names in a checkpoint are not the model's, so the configuration says what is tied."""

    @classmethod
    def has_own_head(cls, raw, config):
        return False  # that the configuration, which is left as it is, does not give


@lru_cache
def without_videos(kind: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """That processor without its third part, for videos, which needs torchvision and which nothing here asks for."""

    class Pictures(kind):  # type: ignore[valid-type, misc]  # a class all the same
        apply_chat_template = ProcessorMixin.apply_chat_template  # some have one that asks the part for videos

        @classmethod
        def get_attributes(cls):
            return [name for name in super().get_attributes() if name != "video_processor"]

        @classmethod
        def _get_arguments_from_pretrained(cls, *args: Any, **kwargs: Any):
            return [*super()._get_arguments_from_pretrained(*args, **kwargs), None]

    Pictures.__name__ = kind.__name__  # it is saved under that name
    return Pictures


def _turn(text: str, pictures: Sequence[Image.Image]) -> dict[str, Any]:
    images = [{"type": "image", "image": picture} for picture in pictures]
    return {"role": "user", "content": [*images, {"type": "text", "text": text}]}


TOWER_PROJECTIONS = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}


def tower_stack(path: str, config: Any, blocks: str = "encoder.layers.{i}", read: int | Sequence[int] = -1) -> Stack:
    """The stack of a vision tower whose configuration calls its sizes as CLIP does.

    read: which hidden states the language model reads, the first being those before any layer. The layers behind the
    last of these run for nothing, and are not counted.
    """
    layers, heads = max(layers_of(read, config.num_hidden_layers)) + 1, config.num_attention_heads
    return Stack(layers, config.hidden_size, heads, path, f"{path}.{blocks}")


def tower_sites(layer: str) -> dict[str, Site]:
    """The sites of a CLIP or SigLIP tower, of which that is a layer's path."""
    attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
    sites = attention_sites("vision.self_attn", f"{layer}.layer_norm1", attention, TOWER_PROJECTIONS)
    feed = {"in": f"{mlp}.fc1", "out": f"{mlp}.fc2"}
    sites |= ffn_sites("vision.ffn", f"{layer}.layer_norm2", mlp, feed, feed["out"], before=True)
    return sites | {"vision.layer": Site(layer, layer)}
