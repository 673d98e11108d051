"""Pools of prompts with keys."""

from __future__ import annotations

import torch

from pet_bench.methods.prompt_pool import Pool, as_prefix, before
from tests.followups.restate import Fixture, Tensors, called


class Chosen(torch.nn.Module):
    def __init__(self, pool: Pool):
        super().__init__()
        self.pool = pool

    def forward(self, query, *how):
        return self.pool(self.pool.choose(query, *how))


def pool(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    flags = fixture.flags
    fine = flags.get("use_prefix_tune_for_e_prompt", False)
    entries = Pool(*w["prompt"].shape, d=flags["embed_dim"], axis=2 if fine else 0)
    labels = flags.get("prompt_mask")
    how = flags["top_k"], flags["batchwise_prompt"], None if labels is None else torch.tensor(labels)
    weights = {"pool.entries": w["prompt"], "pool.keys": w["prompt_key"]}
    chosen = called(Chosen(entries), weights, given["query"], *how)
    return {
        "output/y": as_prefix(chosen) if fine else before(given["x"], chosen),
        "output/similarity": entries.similarity,
        "output/chosen": entries.chosen,
        "aux/pull": entries.pull.reshape(1),
    }


FIXTURES = {r"fedmgp_\w+": pool}
