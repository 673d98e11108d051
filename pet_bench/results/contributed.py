"""What a folder of results needs, beside being whole, to be kept with those of others."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median

from pydantic import Field
from pydantic.dataclasses import dataclass

from pet_bench.backbone.known import family_of, find_backbone
from pet_bench.errors import UserError
from pet_bench.files import is_file, read_yaml
from pet_bench.results import store
from pet_bench.results.schema import TrialResult
from pet_bench.spec import STRICT, Text, TrialSpec, validate

ABOUT = "about.yaml"
LARGEST = 2_000_000  # bytes of a file
FAR = 5.0  # from the median of its seeds, in robust standard deviations
FEW = 8  # distances that such a deviation needs
KEPT = (".json", ".jsonl.gz", ".yaml", ".csv", ".md", ".png", ".tex")  # what is kept in version control
Data = tuple[str, str, str]  # suite, protocol, what of an image is read
Fingerprints = dict[Data, tuple[str, Path]]


@dataclass(frozen=True, config=STRICT)
class About:
    """`about.yaml`: who ran it, a name or a handle; what else is to be known; and by trial id what is known of a trial
    that lies far from the others of its method."""

    by: Text
    note: str = ""
    seen: dict[str, Text] = Field(default_factory=dict)


def faults(folder: Path, known: Fingerprints) -> Iterator[str]:
    """What keeps the results directly in `folder` from being added, a line each; a folder without results has nothing.

    Who: about.yaml. What: a grid.yaml, and the commit of unchanged code with every result. On which data: one
    fingerprint for a suite, its protocol and what of images is read, in all folders; `known` holds those of the folders
    before and gets this one's. No outlier that about.yaml does not speak of. No file that is large, or of the kinds
    that stay where they were made.
    """
    results, _ = store.scan(folder)
    if not results:
        return
    about = None
    try:
        about = read_about(folder)
    except UserError as error:
        yield from error.faults
    if not is_file(folder / "grid.yaml"):
        yield f"{folder} has no grid.yaml: nobody could run it again"
    for id, result in sorted(results.items()):
        place = folder / f"{id}.json"
        if result.status not in store.FINISHED:
            yield f"{place}: it is {result.status}; only finished trials are kept"
        if not result.provenance.commit or result.provenance.dirty is not False:
            yield f"{place}: its code is not that of a commit (run it from a checkout without changes)"
        yield from _data(result, place, known)
    if about:
        far = outliers(results)
        for id in sorted(far.keys() - about.seen.keys()):
            place, words = folder / f"{id}.json", f'seen: {{"{id}": …}}'  # quoted, since YAML takes 12e3 for a number
            yield f"{place}: {far[id]}: look into it, and say in {ABOUT} what it is ({words})"
        for id in sorted(about.seen.keys() - far.keys()):
            yield f"{folder / ABOUT}: seen names {id}, which is no outlier here"
    yield from _files(folder)


def read_about(folder: Path) -> About:
    """Raises UserError where it is missing or something else."""
    path = folder / ABOUT
    if not is_file(path):
        raise UserError(f'{path} is missing: who ran this? ("by: NAME"; note and seen may follow)')
    return validate(About, read_yaml(path, str(path)), str(path))


def outliers(results: Mapping[str, TrialResult]) -> dict[str, str]:
    """Trials that lie far from the median average of their method's seeds, three at least, and how far.

    The scale is 1.4826 times the median of the distances of all methods on a suite and backbone, those that are zero
    left out: of a normal distribution, its standard deviation (Rousseeuw and Croux 1993). It is pooled, since a
    method's few seeds give none.
    """
    seeds = defaultdict[tuple[str, str, str, tuple[str, str]], dict[str, float]](dict)
    for id, result in results.items():
        if result.average is not None:
            spec = TrialSpec.from_dict(result.spec)
            seeds[spec.suite, spec.backbone, spec.control, spec.but_seed][id] = result.average
    away = defaultdict[tuple[str, str, str], dict[str, float]](dict)
    for (*place, _), averages in seeds.items():
        if len(averages) > 2:
            suite, backbone, control = place
            middle = median(averages.values())
            away[suite, backbone, control] |= {id: average - middle for id, average in averages.items()}
    found = dict[str, str]()
    for distances in away.values():
        apart = [abs(distance) for distance in distances.values() if distance]
        scale = 1.4826 * median(apart) if len(apart) >= FEW else float("inf")
        found |= {
            id: f"its average is {distance:+.1f} from the median of its seeds, {abs(distance) / scale:.0f} times the "
            "spread of this table"
            for id, distance in distances.items()
            if abs(distance) > FAR * scale
        }
    return found


def _data(result: TrialResult, place: Path, known: Fingerprints) -> Iterator[str]:
    fingerprint = result.provenance.data
    if not fingerprint:
        yield f"{place}: it does not say which data it read"
        return
    spec = TrialSpec.from_dict(result.spec)
    fed = family_of(find_backbone(spec.backbone)).fed
    key = spec.suite, json.dumps(spec.protocol, sort_keys=True), fed
    theirs, where = known.setdefault(key, (fingerprint, place))
    if theirs != fingerprint:
        yield f"{place}: it read other data of {spec.suite} than {where} ({fingerprint[:12]}, not {theirs[:12]})"


def _files(folder: Path) -> Iterator[str]:
    """Of trials; what git leaves out is not looked for."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and inside.parts[0] != "report" and path.name.endswith(KEPT):
            if (size := path.stat().st_size) > LARGEST:
                yield f"{path} has {size:,} bytes (possible: {LARGEST:,})"
        elif path.is_symlink():
            yield f"{path} is a link"
