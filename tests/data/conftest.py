"""What all tests of data have in common."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def operators():
    """Names for the operators of torchvision, which open_clip imports, where its compiled part does not load.

    The registries have torchvision for CUDA alone. Beside a CPU build of torch its import ends at operators that torch
    does not know; nothing here calls them, so that they have names is enough.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")
    while find_spec("torchvision"):
        try:
            import_module("torchvision")
            break
        except RuntimeError as error:
            unknown = re.fullmatch(r"operator torchvision::(\w+) does not exist", str(error))
            if not unknown:
                raise
            library.define(f"{unknown[1]}() -> ()")
    yield
