"""Data sets fetched from the Hugging Face hub, file by file, at one revision that is written down.

Needs `huggingface_hub` (extra `hub`), which resumes what was interrupted. Nothing here is called by anything else: only
who asks for a data set reaches for the network, at the address that the library's `HF_ENDPOINT` names.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from hashlib import file_digest
from pathlib import Path, PurePosixPath

from pydantic import TypeAdapter, ValidationError

from pet_bench.data.known import KNOWN
from pet_bench.data.rows import fault_line
from pet_bench.errors import UserError, unknown
from pet_bench.files import read_bytes, write_text

RECORD = "fetched.json"


@dataclass(frozen=True)
class File:
    """sha256: "" as long as it has not been fetched, or where the hub does not know it."""

    path: str
    size: int
    sha256: str = ""


@dataclass
class Fetched:
    """What `fetched.json` holds: the commit, and every file once it is there and whole."""

    repository: str
    revision: str
    files: list[File] = field(default_factory=list)


@dataclass
class Plan:
    """What is to be fetched, from where. endpoint: of the hub; there: what was recorded before."""

    endpoint: str
    repository: str
    revision: str
    files: list[File]
    folder: Path
    there: list[File]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def plan(name: str, folder: Path, *, revision: str | None = None, patterns: Sequence[str] = ()) -> Plan:
    """Asks the hub which files there are. name: of `data.known`, or owner/name, which needs patterns.

    revision: a branch, tag or commit; by default the one that the folder was begun with, or else the newest. Raises
    UserError where the hub cannot be reached, does not have it, or the folder holds something else.
    """
    known = KNOWN.get(name)
    if known is None and name.count("/") != 1:
        raise unknown("data set of the hub", name, [*KNOWN, "OWNER/NAME"])
    if known is None and not patterns:
        raise UserError(
            f"which files of {name}? say with --files, such as --files 'data/train-*.parquet', or '*' for all"
        )
    repository = known.repository if known else name
    before = _before(folder, repository)
    if before and revision and revision != before.revision:
        raise UserError(f"{folder} holds {repository} at {before.revision}, not at {revision}: give another folder")
    revision = before.revision if before else revision
    try:
        from huggingface_hub import HfApi, RepoFile
    except ImportError:
        raise UserError("fetching needs huggingface_hub: pip install 'pet-bench[hub]'") from None
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    try:
        commit = api.repo_info(repository, repo_type="dataset", revision=revision).sha
        tree = api.list_repo_tree(repository, recursive=True, revision=commit, repo_type="dataset")
        files = [
            File(file.path, file.size, (file.lfs.sha256 or "") if file.lfs else "")
            for file in tree
            if isinstance(file, RepoFile)
        ]
    except Exception as error:
        raise _unreachable(repository, api.endpoint, error) from None
    wanted = [
        file
        for file in files
        if any(fnmatchcase(file.path, p) for p in patterns or (known.files if known else ()))
        and (not known or any(fnmatchcase(file.path, pattern) for pattern in known.files))
    ]
    outside = [file.path for file in wanted if PurePosixPath(file.path).is_absolute() or ".." in file.path.split("/")]
    if outside:
        raise UserError(f"{repository} has a file that would lie outside of {folder}: {outside[0]}")
    if not wanted:
        there = ", ".join(file.path for file in files[:5])
        raise UserError(f"{repository} at {commit} has no such files ({len(files)} others: {there}, …)")
    return Plan(api.endpoint, repository, str(commit), wanted, folder, before.files if before else [])


def fetch(plan: Plan, progress: Callable[[int, int], None] | None = None) -> Fetched:
    """Fetch what is not there yet, and write down what is, with its digests.

    A file that was recorded before and has its size is not read again. Raises UserError where something cannot be
    fetched or is not what the hub says it is; what was fetched until then stays.
    """
    from huggingface_hub import snapshot_download

    folder, whole = plan.folder, {file.path: file for file in plan.there if _sized(plan.folder, file)}
    lacking = [file for file in plan.files if file.path not in whole]
    record = Fetched(plan.repository, plan.revision, [*whole.values()])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        room = shutil.disk_usage(folder).free
        if (needed := sum(file.size for file in lacking if not _sized(folder, file))) > room:
            raise UserError(f"{folder} has room for {room / 1e9:.1f} GB, and {needed / 1e9:.1f} are to be fetched")
        _write(folder, record)
        if lacking:
            names = [file.path for file in lacking]
            snapshot_download(
                plan.repository, repo_type="dataset", revision=plan.revision, local_dir=folder, allow_patterns=names,
                endpoint=plan.endpoint,
            )  # fmt: skip
    except UserError:
        raise
    except OSError as error:
        if error.filename is None:
            raise _unreachable(plan.repository, plan.endpoint, error) from None
        raise UserError(f"{folder} cannot be written to: {error.strerror or error}") from None
    except Exception as error:
        raise _unreachable(plan.repository, plan.endpoint, error) from None
    faults, done = [], 0
    for file in lacking:
        path = folder / file.path
        found = _digest(path) if _sized(folder, file) else ""
        if not found or (file.sha256 and found != file.sha256):
            path.unlink(missing_ok=True)
            faults.append(f"{path} is not what {plan.repository} has: fetch it again")
        else:
            record.files.append(File(file.path, file.size, found))
        done += file.size
        if progress:
            progress(done >> 20, sum(file.size for file in lacking) >> 20)
    record.files.sort(key=lambda file: file.path)
    _write(folder, record)
    if faults:
        raise UserError(*faults)
    return record


def _before(folder: Path, repository: str) -> Fetched | None:
    """What was fetched into a folder before. Raises UserError where that is something else."""
    path = folder / RECORD
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is no folder")
    if not path.exists():
        if folder.is_dir() and any(entry.name != ".cache" for entry in folder.iterdir()):
            raise UserError(f"{folder} holds something that was not fetched (no {RECORD}): give another folder")
        return None
    try:
        before = TypeAdapter(Fetched).validate_json(read_bytes(path, f"record {path}"), strict=True)
    except ValidationError as error:
        raise UserError(*(fault_line(f"record {path}", fault) for fault in error.errors())) from None
    if before.repository != repository:
        raise UserError(f"{folder} holds {before.repository}, not {repository}: give another folder")
    return before


def _write(folder: Path, record: Fetched) -> None:
    write_text(folder / RECORD, json.dumps(asdict(record), indent=2) + "\n")


def _sized(folder: Path, file: File) -> bool:
    path = folder / file.path
    return path.is_file() and path.stat().st_size == file.size


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _unreachable(repository: str, endpoint: str, error: Exception) -> UserError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    known = {401: "it does not exist, or not without an account", 404: "it does not exist, or not at this revision"}
    why = known.get(int(status or 0)) or next(iter(str(error).splitlines()), "") or type(error).__name__
    return UserError(f"data set {repository} cannot be fetched from {endpoint}: {why}")
