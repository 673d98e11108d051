from __future__ import annotations

import pytest

from tests.conftest import SHARED


def reference(folder: str):
    path = SHARED / folder
    if not path.is_dir():
        pytest.skip(f"no {folder}/ (set PET_BENCH_SHARED to the folder that holds it)")
    return path


@pytest.fixture
def expectations():
    """Outputs of the official scorers."""
    return reference("expectations")


@pytest.fixture
def samples():
    """Extracts of the real data sets."""
    return reference("samples")
