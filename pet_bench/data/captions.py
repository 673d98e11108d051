"""What tasks with captions for answers share."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic.dataclasses import dataclass

from pet_bench.data.task import Task
from pet_bench.metrics.captions import Tokenizer
from pet_bench.spec import STRICT, Distinct


@dataclass(frozen=True, config=STRICT)
class CaptionTask(Task):
    """A task whose answers are captions, scored by CIDEr-D.

    also: metrics beside it. tokenizer: of the metrics, "ptb" or the official "java", which has to be installed.
    """

    metric: ClassVar = "cider"

    also: Annotated[tuple[Literal["bleu", "meteor", "rouge-l"], ...], Distinct] = ()  # pyright: ignore[reportIncompatibleVariableOverride]  an option here, a fact elsewhere
    tokenizer: Tokenizer = "ptb"

    @property
    def metric_options(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer}
