"""The columns of a table with what its tests need: each method's scores by seed, and by example where it has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pet_bench.report.statistics.examples import Folders, Untested, example_scores

Method = tuple[str, str]  # its name and its setup


@dataclass(frozen=True)
class Column:
    """seeds: each method's scores by seed. examples: by task the scores of each method's trials (seeds, examples), of
    which the column is the mean over tasks; empty where they are not to be had."""

    name: str
    seeds: dict[Method, pd.Series]
    examples: dict[str, dict[Method, np.ndarray]]


def columns(section: pd.DataFrame, folders: Folders) -> tuple[list[Column], list[str]]:
    """The columns of one suite on one backbone (its primary scores), the average last, and why of some of them examples
    cannot be tested."""
    methods = {
        (str(name), str(setup)): rows for (name, setup), rows in section.groupby(["method", "setup"], sort=False)
    }
    found: list[Column] = []
    lacking: list[str] = []
    examples: dict[str, dict[Method, np.ndarray]] = {}
    for task in map(str, dict.fromkeys(section.task)):
        of = {method: rows[rows.task == task] for method, rows in methods.items()}
        of = {method: rows for method, rows in of.items() if len(rows)}
        try:
            scores = example_scores(section[section.task == task], folders)
            examples[task] = {method: scores[rows.id].to_numpy().T for method, rows in of.items()}
        except Untested as error:
            lacking += error.faults
        own = {task: examples[task]} if task in examples else {}
        found.append(Column(task, {method: rows.set_index("seed").value for method, rows in of.items()}, own))
    averages = {key: rows.drop_duplicates("id").set_index("seed").average.dropna() for key, rows in methods.items()}
    if averages := {key: values for key, values in averages.items() if len(values)}:
        whole = len(examples) == len(found) and all(method in of for of in examples.values() for method in averages)
        found.append(Column("average", averages, examples if whole else {}))
    return found, lacking


def comparisons(found: list[Column]) -> int:
    """How many the table makes: in each column every method with the best one."""
    return sum(len(column.seeds) - 1 for column in found)
