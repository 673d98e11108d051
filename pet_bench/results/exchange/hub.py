"""A trial, or a folder that was exported, in a repository of the Hugging Face hub.

Needs `huggingface_hub` (extra `hub`). Nothing here is called but by `pet-bench push`; the address is what the library's
`HF_ENDPOINT` names, the token the one that `hf auth login` has kept or `HF_TOKEN`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pet_bench.errors import Faults, UserError, shortened
from pet_bench.results import store
from pet_bench.results.card import CARD, card

RepositoryType = Literal["model", "dataset", "space"]
Files = dict[str, Path | bytes]  # path in the repository → a file, or what is in it


def check_name(repository: str) -> None:
    """Raises UserError for what the hub would not take as a repository's name."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    with suppress(HFValidationError):
        if "/" in repository:
            return validate_repo_id(repository)
    raise UserError(
        f'a repository is OWNER/NAME, at most 96 letters, digits, "-", "_" and ".", found "{shortened(repository)}"'
    )


def trial_files(result: Path) -> Files:
    """A finished trial's result, its tensors beside it as here, and its card for the front page; nothing else of it."""
    folder = result.with_suffix("")
    inside = {
        f"{folder.name}/{name}": one
        for name, one in folder_files(folder).items()
        if name.startswith("peft/") or (name.endswith(".safetensors") and name != store.CHECKPOINT)
    }
    return {CARD: card(store.load(result), beside="").encode(), result.name: result, **inside}


def folder_files(folder: Path) -> Files:
    """All files of a folder but hidden ones. Raises UserError for links, which may lead anywhere, and where none is."""
    found: Files = {}
    faults = Faults()
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if any(part.startswith(".") for part in inside.parts):
            continue
        if path.is_symlink():
            faults.add(f'"{path}" is a link: copy what it leads to')
        elif path.is_file():
            found[inside.as_posix()] = path
    faults.check()
    if not found:
        raise UserError(f'"{folder}" holds no files')
    return found


def push(files: Files, repository: str, kind: RepositoryType, *, public: bool, message: str) -> str:
    """Add files to a repository in one commit, and make it where it is not there; gives the commit's address.

    What is there and not among the files stays. Raises UserError, in one line, for whatever the hub or the library
    refuses.
    """
    try:
        from huggingface_hub import CommitOperationAdd, HfApi
    except ImportError:
        raise UserError("pushing needs huggingface_hub: pip install 'pet-bench[hub]'") from None
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    adds = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=one) for name, one in files.items()]
    sdk = "static" if kind == "space" else None
    try:
        api.create_repo(repository, repo_type=kind, private=not public, exist_ok=True, space_sdk=sdk)
        return api.create_commit(repository, adds, commit_message=message, repo_type=kind).commit_url
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{repository} on {api.endpoint} was not pushed to: {shortened(said, 300)}") from None
