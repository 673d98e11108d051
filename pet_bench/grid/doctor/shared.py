"""The results folder, tried by all machines together: who sees what others write, and whom a lock holds back."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from pet_bench.grid.doctor.asked import Asked
from pet_bench.grid.doctor.facts import Seen, Watched
from pet_bench.grid.doctor.machine import room
from pet_bench.grid.doctor.nodes import Nodes, locally

RESULTS, HERE = "results", "this machine"


class Probing:
    """A folder in the results folder, which is made where it is not there, and gone afterwards as it came."""

    def __init__(self, out: str):
        self.out, self.made = Path(out), list[Path]()
        self.probe: Path | None = None

    def open(self) -> dict[str, Any]:
        """The fields of `Seen`; with a fault where there is no such folder."""
        seen: dict[str, Any] = {"there": False}
        try:
            missing = [path for path in (self.out, *self.out.parents) if not path.exists()]
            for path in reversed(missing):
                path.mkdir()
                self.made.append(path)
            seen["there"] = True
            self.probe = Path(tempfile.mkdtemp(prefix=".doctor-", dir=self.out))
            self.probe.chmod(0o777)  # nodes may have other users
            seen |= {"room": room(str(self.out))}
            (self.probe / "token").write_text(token := secrets.token_hex(16))
        except OSError as error:
            return seen | {"fault": error.strerror or str(error)}
        return seen | {"token": token}

    def close(self) -> None:
        if self.probe:
            shutil.rmtree(self.probe, ignore_errors=True)
        for path in reversed(self.made):
            with suppress(OSError):  # somebody has begun to use it
                path.rmdir()


def share(nodes: Nodes, asked: Asked, found: dict[str, dict[str, Any]]) -> tuple[Seen | None, str]:
    """Put what nodes see and do in the results folder into `found`, by field of `Node`.

    Gives what is seen of it from here, or None and why that was not answered.
    """
    with _probed(asked) as (seen, silence, probe):
        if seen and not seen.fault:
            _look(nodes, asked, probe, found)
            able = [name for name in nodes.able(RESULTS) if _writes(found[name].get("seen"), seen.token)]
            _replace(nodes, able, probe, found)
            _lock(nodes, able, probe, found)
    return seen, silence


@contextmanager
def _probed(asked: Asked) -> Iterator[tuple[Seen | None, str, str]]:
    probing = Probing(asked.out)
    own = Nodes({HERE: locally(probing)}, asked.seconds)
    answer = own.ask(RESULTS, "open").get(HERE)
    try:
        seen = answer and TypeAdapter(Seen).validate_python(answer)
        yield seen, own.silent[HERE].get(RESULTS, ""), str(probing.probe)
    finally:
        own.ask(RESULTS, "close")


def _writes(seen: Seen | None, token: str) -> bool:
    return seen is not None and seen.token == token and not seen.fault


def _look(nodes: Nodes, asked: Asked, probe: str, found: dict[str, dict[str, Any]]) -> None:
    """Each reads the token and writes a file, then each reads all of them."""
    each = {name: (asked.out, probe, name) for name in nodes.calls}
    for name, answer in nodes.ask(RESULTS, "see", of=each).items():
        found[name]["seen"] = TypeAdapter(Seen).validate_python(answer)
    able = {name: (probe,) for name in nodes.able(RESULTS) if found[name]["seen"].token}
    for name, answer in nodes.ask(RESULTS, "read", of=able).items():
        found[name]["read"] = answer


def _replace(nodes: Nodes, able: list[str], probe: str, found: dict[str, dict[str, Any]]) -> None:
    """Each replaces a file of its own while the next one reads it."""
    seconds = nodes.seconds / 2
    watched = dict(zip(able, able[1:] + able[:1], strict=True))
    watching = nodes.begin(RESULTS, "watch", of={name: (probe, other, seconds) for name, other in watched.items()})
    replacing = nodes.begin(RESULTS, "replace_often", of={name: (probe, name, seconds) for name in able})
    for name, fault in nodes.end(RESULTS, replacing).items():
        found[name]["replaced"] = fault
    for name, answer in nodes.end(RESULTS, watching).items():
        found[name]["watched"] = {watched[name]: TypeAdapter(Watched).validate_python(answer)}


def _lock(nodes: Nodes, able: list[str], probe: str, found: dict[str, dict[str, Any]]) -> None:
    """Each in turn holds a lock that all, itself too, then try to get."""
    for holder in able:
        held = nodes.ask(RESULTS, "hold", probe, of={holder: (probe,)}).get(holder)
        if held == "held":
            tried = nodes.ask(RESULTS, "try_lock", of=dict.fromkeys(able, (probe,)))
            nodes.ask(RESULTS, "give_back", of={holder: ()})
        else:
            tried = {} if held is None else {holder: held}
        for name, got in tried.items():
            found[name].setdefault("locks", {})[holder] = got
