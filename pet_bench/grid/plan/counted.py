"""Parameter counts, kept in the cache as plans are: whoever asks again needs no method, nor torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from pet_bench.errors import UserError
from pet_bench.grid.plan.ground import Ground
from pet_bench.grid.plan.kept import ground_now, keep, kept, place
from pet_bench.spec import MethodSpec


class Asked(NamedTuple):
    suite: str
    backbone: str
    method: MethodSpec

    @property
    def key(self) -> tuple[str, str, str]:
        """The same for the same model."""
        return self.suite, self.backbone, str(self.method)


def counted(every: Iterable[Asked]) -> Iterator[tuple[Asked, dict[str, Any] | UserError]]:
    """The counts of each (see `trial.count.count_parameters`), or why there are none, as they were kept or are made.

    That a method does not fit is kept too, of backbones of which others were counted; what plug-ins raise is not.
    """
    ground = ground_now()
    made: list[tuple[Asked, Path | None, dict[str, Any]]] = []
    for one in every:
        path = place("counts", [one.suite, one.backbone, asdict(one.method)])
        if ground and (body := kept(path, ground)):
            yield one, UserError(*body["refused"]) if "refused" in body else body["counts"]
            continue
        from pet_bench.trial.count import count_parameters

        try:
            counts = count_parameters(one.backbone, one.method, one.suite)
        except UserError as error:
            made += [(one, path, {"refused": error.faults})] * (type(error) is UserError)
            yield one, error
        else:
            made.append((one, path, {"counts": counts}))
            yield one, counts
    if ground and made and ground == Ground.now():  # nothing was changed meanwhile
        read = {one.backbone: Ground.files_read([one.backbone]) for one, _, body in made if "counts" in body}
        for one, path, body in made:
            keep(path, ground, read.get(one.backbone), body)
