"""BitFit (Ben Zaken et al., ACL 2022): only biases train; models that have none, such as T5, get some."""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from pet_bench.pet import Design, Difference, Door, Method
from pet_bench.spec import STRICT


@dataclass(frozen=True, config=STRICT)
class AddedBiases(Door):
    """A bias for every linear layer, every norm and the output layer in the scope that has none, visual norms included.

    Those of q, k, v, o and the output layer start at U(-1/√d_in, 1/√d_in), as the published runs' do (rows of words
    added to the vocabulary at 0), with `zero_init` at 0 like all others.
    """

    kind: ClassVar = "biases"
    zero_init: bool = False

    @property
    def formula(self) -> str:
        return f"y = W x + b, y = norm(x) + b wherever there was no b ({'b = 0' if self.zero_init else 'random b'})"

    def open(self, build):
        projections = build.anatomy.projections(("query", "key", "value", "out"))
        random, anatomy = build.anatomy.leaves((*projections, "decoder.head")), build.anatomy
        for path, module in build.model.named_modules():
            if path.startswith("pet.") or anatomy.part_of(f"{path}.bias") not in anatomy.scope:
                continue
            if isinstance(module, nn.Linear) and module.bias is None:
                module.bias = nn.Parameter(torch.zeros(module.out_features))
                if not self.zero_init and path.rpartition(".")[2] in random:
                    nn.init.uniform_(module.bias, -(module.in_features**-0.5), module.in_features**-0.5)
            elif type(module).__name__.endswith("Norm") and not hasattr(module, "bias") and hasattr(module, "weight"):
                module.bias = nn.Parameter(torch.zeros_like(cast(Tensor, module.weight)))
                module.register_forward_hook(lambda norm, args, output: output + norm.bias)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BitFit(Method):
    """Every bias of the backbone trains: y = W x + b, y = norm(x) + b.

    added: biases are added where there are none (T5: to q, k, v, o, wi, wo, every RMS norm and the output layer; the
    Ladder-Side-Tuning repository). zero_init: the added ones start at 0, so that the model starts as the pre-trained
    one; in the published runs, of T5, those of attentions and output layer start at random. BART's have always been
    there; among them are those of the key projections, whose gradient is zero in exact arithmetic (METHODS.md section
    10, 11).
    """

    name: ClassVar = "bitfit"
    source: ClassVar = "BitFit (Ben Zaken et al., ACL 2022); settings of VL-PET Table 2 and Ladder-Side-Tuning"
    year: ClassVar = 2022
    learning_rates: ClassVar = {"bart": 1e-3, "t5": 3e-3, "mini-bart": 1e-2, "mini-t5": 1e-2}
    differences: ClassVar = (
        Difference(
            "t5-bias-start", "zero_init", False, True, {"family": "t5"},
            "The biases added to T5's attentions and output layer start at random, so that the model does not start "
            "as the pre-trained one; biases that start at 0 would.",
            "METHODS.md 7",
        ),
    )  # fmt: skip

    added: bool
    zero_init: bool

    @classmethod
    def defaults(cls, anatomy):
        return {"added": not anatomy.biases, "zero_init": anatomy.among({"bart": False, "t5": False, "*": True})}

    @property
    def identity_at_start(self):  # pyright: ignore[reportIncompatibleVariableOverride]  options decide
        return not self.added or self.zero_init

    def skip(self, anatomy):
        return (
            None if anatomy.adapted else f"the scope {', '.join(anatomy.scope)} has no layers whose biases would train"
        )

    def design(self, anatomy):
        return Design(train=("visual", "biases"), doors=(AddedBiases(self.zero_init),) if self.added else ())
