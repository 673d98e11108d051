"""The notebooks run from top to bottom on the results in the repository, and are kept without what they put out."""

from __future__ import annotations

import re
import sys

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from tests.conftest import ROOT, part

FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
ALONE = """
import sys


def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        raise RuntimeError(f"a notebook reached for the network: {event} {arguments[1:]}")


sys.addaudithook(watch)
"""


def load(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def run(notebook):
    """Execute with the kernel of this interpreter, without a network, in the notebooks' folder."""
    notebook.cells.insert(0, new_code_cell(ALONE))
    notebook.cells.append(new_code_cell("print(sys.executable)"))
    place = {"metadata": {"path": str(FOLDER)}}
    return NotebookClient(notebook, kernel_name="python3", timeout=120, resources=place).execute()


@pytest.fixture
def nobodys_home(tmp_path, monkeypatch):
    """No kernel, start-up file or setting of the user's."""
    for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("JUPYTER_PATH", "PYTHONWARNINGS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", part(NOTEBOOKS, 2))
def test_it_runs_from_top_to_bottom(name, nobodys_home):
    done = run(load(name))
    outputs = [(cell.id, output) for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [(id, output.text) for id, output in outputs if output.get("name") == "stderr"] == []  # warnings
    assert outputs[-1][1].text.strip() == sys.executable


def test_one_that_reaches_for_the_network_does_not_run(nobodys_home):
    notebook = nbformat.v4.new_notebook(cells=[new_code_cell("import socket; socket.create_connection(('::1', 9))")])
    with pytest.raises(Exception, match="reached for the network"):
        run(notebook)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_is_kept_without_what_it_put_out(name):
    notebook = load(name)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        assert cell.metadata == {} and re.fullmatch("[a-z0-9-]+", cell.id)
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None, cell.id


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_its_code_names_no_place_outside_the_repository(name):
    code = "\n".join(cell.source for cell in load(name).cells if cell.cell_type == "code")
    assert re.findall(r"""(?:["'](?:/|~|[A-Za-z]:\\)|https?:).*""", code) == []


def test_its_links_between_notebooks_lead_somewhere():
    for name in NOTEBOOKS:
        text = "\n".join(cell.source for cell in load(name).cells if cell.cell_type == "markdown")
        assert set(re.findall(r"\]\(([\w-]+)\.ipynb\)", text)) <= set(NOTEBOOKS)


def test_the_readme_names_every_notebook():
    assert sorted(re.findall(r"\[`([\w-]+)\.ipynb`\]", (FOLDER / "README.md").read_text())) == NOTEBOOKS
