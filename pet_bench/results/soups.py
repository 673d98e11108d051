"""What averages of a method's trials score: a JSON file each, in `report/` beside the trials."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pet_bench.results.evaluations import Id
from pet_bench.results.schema import Count, Provenance, Record

Kind = Literal["uniform", "greedy"]
Scores = Annotated[dict[str, float], Field(min_length=1, description="task → primary metric on the test")]


class Ingredient(Record):
    """A trial that is averaged."""

    trial: Id = Field(description="its id")
    seed: Count = Field(description="its seed")
    validation: float | None = Field(description="mean over tasks of the primary metric on their validation splits")
    scores: Scores
    average: float = Field(description="mean of the scores, as the trial recorded it")


class Outcome(Record):
    """How one way to bring trials together does on the test."""

    members: list[Id] = Field(min_length=1, description="the trials")
    validation: float | None = Field(description="mean over tasks on their validation splits, where that chose")
    scores: Scores
    average: float = Field(description="mean of the scores")
    predictions: dict[str, str] = Field(description="task → per-example predictions, path relative to this file")


class Soup(Record):
    """A method's trials over seeds, averaged: Wortsman et al., "Model soups" (ICML 2022, arXiv:2203.05482)."""

    schema_version: Annotated[Literal[1], Field(description="version of this schema")] = 1
    method: str = Field(description="as tables call it")
    backbone: str = Field(description="its backbone")
    suite: str = Field(description="its suite")
    setup: str = Field(description="what the trials have in common but for the seed, as in a frame of results")
    shared: bool = Field(description="whether what was averaged by parameters started at the same values in all")
    updates: Count = Field(description="modules of which ΔW was averaged")
    tensors: Count = Field(description="trained tensors that were averaged by parameters")
    ingredients: list[Ingredient] = Field(min_length=1, description="the trials, by seed")
    uniform: Outcome | None = Field(description="the mean of all; null: not asked for")
    greedy: Outcome | None = Field(
        description="the mean of those that raised the validation score; null: not asked for"
    )
    ensemble: Outcome = Field(description="all asked: choices by mean log-probability, other answers by vote")
    provenance: Provenance = Field(description="what it was made with")

    @property
    def mean(self) -> dict[str, float]:
        """task → mean of the trials' scores."""
        tasks = self.ingredients[0].scores
        return {task: sum(one.scores[task] for one in self.ingredients) / len(self.ingredients) for task in tasks}
