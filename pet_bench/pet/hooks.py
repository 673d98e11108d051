"""What a door may do while a trial trains, besides being part of the model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from pet_bench.backbone.interface import Model


class TrainingHooks:
    """Called by the training of a trial, for each door of its design; by default nothing happens."""

    def before_training(self, model: Model, batches: Iterable[Any]) -> None:
        """Called once before the first update, with the training batches of an epoch to read as many of as need be."""

    def penalty(self, model: Model) -> Tensor | float:
        """What the opened door adds to the loss of every training batch, asked for right after its forward pass.

        Of a batch that is split into parts, each part's counts as the part has examples.
        """
        return 0.0

    @property
    def counts_padding(self) -> bool:
        """Whether the penalty depends on how far a batch is padded."""
        return False

    def after_step(self, model: Model, step: int, total: int) -> None:
        """Called after the optimiser's update number `step`, from 1, of `total`, while the gradients are there."""

    def state(self, model: Model) -> dict[str, Any]:
        """What the opened door has gathered since training began, its trained tensors aside, for a checkpoint.

        Plain data and tensors, in lists and in dicts with string keys.
        """
        return {}

    def restore(self, model: Model, state: dict[str, Any]) -> None:
        """Take up what `state` gave, in the place of `before_training`, on a model that was built anew."""
