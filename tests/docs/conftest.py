from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="session")
def generator():
    """docs/build.py as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs"))
        spec = spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
