"""What all else may ask of a backbone, whatever its family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pet_bench.backbone.anatomy import Anatomy
from pet_bench.errors import UserError
from pet_bench.spec import Frozen

if TYPE_CHECKING:
    from pet_bench.backbone.family import Family

Inputs = dict[str, Any]  # tensors of B examples by name, and `task`, the name of theirs
TextEdit = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
SMALL = 2**12  # words of a vocabulary, of which all logits are made and summed as they always were: to the same bits


@dataclass
class Context:
    """What the model is running on, for modules that need more than X and H.

    task: the batch's task. mask: (B, N) bool, true where the positions of the stack that reads are no padding; prompt:
    how many of these, from the first on, are the prompt's, where that stack writes the answer behind it. visual:
    (B, P, d), the visual tokens as they enter that stack, and `seen` (B, P) bool, false for those of images that are
    not there. encoded: (B, N, d), the encoder's last states, once the decoder runs. side: (B, N, width), what a side
    network has made of that stack's positions, for the one that writes. beside: (B, M, …), what a method keeps of the
    images beside that sequence. example: (B,) which of those that were encoded a row is of, once the decoder runs.
    by_task: whether a module has asked for its part of the batch's task.
    While a model generates, B counts every beam, but of what stands in cross-attention (`backbone.beams`).
    """

    task: str | None = None
    mask: Tensor | None = None
    prompt: int | None = None
    visual: Tensor | None = None
    seen: Tensor | None = None
    encoded: Tensor | None = None
    side: Tensor | None = None
    beside: Tensor | None = None
    example: Tensor | None = None
    by_task: bool = False

    def task_among(self, tasks: Iterable[str]) -> str:
        """The batch's task; raises UserError where it is not one of those that a module was built for."""
        self.by_task = True
        if self.task is None or self.task not in tasks:
            raise UserError(f'task "{self.task}": the method was built for {", ".join(tasks)}')
        return self.task

    def repeat(self, beams: int) -> None:
        """A row for each beam of what there was one of an example."""
        self._each(lambda rows: rows.repeat_interleave(beams, 0))

    def thin(self, beams: int) -> None:
        """A row an example of what there was one of for each beam."""
        self._each(lambda rows: rows[::beams])

    def forget(self) -> None:
        """Nothing of the last pass is kept, but its task and prompt."""
        self._each(lambda rows: None)

    def _each(self, change: Callable[[Tensor], Tensor | None]) -> None:
        for name in ("mask", "visual", "seen", "encoded", "side", "beside", "example"):
            if (rows := getattr(self, name)) is not None:
                setattr(self, name, change(rows))

    @property
    def summary(self) -> Tensor:
        """(B, d): the mean of the visual tokens that are there, 0 where none is."""
        if self.visual is None or self.seen is None:
            raise UserError("there is no image to summarise: the model has not read any")
        seen = self.seen[..., None].to(self.visual.dtype)
        return (self.visual * seen).sum(dim=1) / seen.sum(dim=1).clamp(min=1)


def plain_settings(plain: bool) -> dict[str, Any]:
    """What `generate` is told where the checkpoint's own settings are off."""
    return {"no_repeat_ngram_size": 0, "early_stopping": False, "repetition_penalty": 1.0} if plain else {}


class Model(nn.Module, ABC):
    """A backbone that reads text and images, with what a method adds.

    `lm` is the stock `transformers` model, whose parameters keep their names under `lm.`; `pet` holds what a design has
    added. `masks_empty` names the tasks in which all-zero features are no image. `text_edits` are a method's edits of
    the embedded text: functions of it (B, L, d) and its mask (B, L) that return both. `frozen` says how what does not
    train is kept. `aligned`: the output layer reads (B, T, d) of targets (B, T).
    """

    aligned: ClassVar[bool] = False

    def __init__(self, lm: PreTrainedModel, anatomy: Anatomy, family: type[Family]):
        super().__init__()
        self.lm: Any = lm  # each class of transformers has attributes of its own
        self.anatomy, self.family = anatomy, family
        self.context = Context()
        self.masks_empty: frozenset[str] = frozenset()
        self.text_edits: list[TextEdit] = []
        self.frozen: Frozen = "float32"
        self.labels: Tensor | None = None  # the positions that alone are asked of the output layer
        if self.aligned:
            self.at(anatomy.head).register_forward_pre_hook(self._at_labels)

    pet: nn.ModuleDict  # set by a model once its own modules are: what is added comes last, in files and in counts

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def at(self, path: str, layer: int | str = 0) -> nn.Module:
        """The module of a path in the anatomy, of the layer that is called so there."""
        return self.get_submodule(path.format(i=layer))

    @property
    def words(self) -> Tensor:
        """The word table (V, d) of the stack that reads."""
        return cast(nn.Embedding, self.at(self.anatomy.embeddings[0])).weight

    @property
    def pad(self) -> int:
        return self.lm.config.pad_token_id

    @abstractmethod
    def logits(self, inputs: Inputs, targets: Tensor) -> Tensor:
        """Teacher-forced logits (B, T, V) aligned with targets (B, T), which are padded with -100."""

    def logits_at(self, labels: Tensor, inputs: Inputs, targets: Tensor) -> Tensor:
        """The logits (n, V) at positions (n,) of the flat targets (B · T): the output layer has no other rows.

        All are computed where something stands at the output layer, which may have need of the others, where that does
        not read the positions of the targets alone, and where it is so small that picking gains nothing.
        """
        head = self.at(self.anatomy.head)
        if len(self.words) < SMALL or head._forward_hooks or [*head._forward_pre_hooks.values()] != [self._at_labels]:
            return self.logits(inputs, targets).flatten(0, 1)[labels]
        self.labels = labels
        try:
            return self.logits(inputs, targets)[0]
        finally:
            self.labels = None

    def _at_labels(self, head: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        return None if self.labels is None else (args[0].flatten(0, 1)[self.labels][None], *args[1:])

    @abstractmethod
    def generate(self, inputs: Inputs, *, num_beams: int, max_length: int, plain: bool = False) -> Tensor:
        """The ids (B, ≤ max_length) of the continuation alone; the checkpoint's other settings of generation hold.

        plain: without the checkpoint's `no_repeat_ngram_size` and `early_stopping`.
        """

    @abstractmethod
    def choose(self, inputs: Inputs, words: list[int]) -> Tensor:
        """Logits (B, C) of these words, any of which may be the answer's first."""

    @abstractmethod
    def read_before(self, answer: Tensor | None) -> Tensor:
        """The ids (B, T) that the stack which writes reads where it says `answer` (B, T); None: where it chooses."""
