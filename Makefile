# Each target sets up its own environment; a second call finds it ready and starts at once.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
OUT ?= results/demo
BIN := .venv/bin
READY := .venv/.ready
PACKAGES := import site; print(site.getsitepackages()[0])

.PHONY: demo test test-all test-lowest test-features docs lint pyright mypy coverage dist audit clean

demo: $(READY)  ## the demonstration grid, then its table, figures and page
	$(BIN)/pet-bench run demo --out $(OUT)
	$(BIN)/pet-bench report demo --html --out $(OUT)

test: lint  ## one torch thread per process: more are slower, not faster
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadgroup

test-all: lint  ## every method on every family in every scope, of which `test` has a part
	PET_BENCH_ALL=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadgroup

test-lowest: .venv-lowest/.ready  ## with the lowest versions that are allowed, and the tools of the others
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -q -n 2 --dist loadgroup

coverage: $(READY)  ## which lines the tests run, as text and in htmlcov/; under the floor in pyproject.toml it fails
	$(BIN)/pip install --quiet -c constraints.txt pytest-cov
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadgroup --cov --cov-report=term:skip-covered --cov-report=html

dist: $(READY)  ## sdist and wheel, checked, the wheel tried in an environment of its own
	rm -rf dist .venv-dist
	$(BIN)/pip install --quiet -c constraints.txt build twine
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv .venv-dist
	.venv-dist/bin/pip install --quiet -c constraints.txt dist/*.whl
	cd dist && ../.venv-dist/bin/pet-bench --version && ../.venv-dist/bin/pet-bench list methods
	rm -rf .venv-dist

audit: $(READY)  ## known vulnerabilities of what is installed; asks a database on the network
	$(BIN)/pip install --quiet -c constraints.txt pip-audit
	$(BIN)/pip-audit --local --skip-editable

test-features: .venv-features/.ready  ## the networks behind `data features`, which bring a torchvision of their own
	OMP_NUM_THREADS=1 .venv-features/bin/python -m pytest -q tests/data/test_features.py tests/data/test_networks.py

docs: .venv/.docs  ## these pages and the reference as a site, site/index.html; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(MAKE) --jobs=2 pyright mypy

pyright mypy: $(READY)
	$(BIN)/$@

clean:
	rm -rf .venv .venv-* build dist site *.egg-info .pytest_cache .ruff_cache

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e ".[test]"
	$(BIN)/pip install --quiet -c constraints.txt --no-deps lmms-eval  # its loader, which reads what we export, needs none
	touch $@

.venv-lowest/.ready: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install --quiet -c constraints-lowest.txt -e ".[test]"
	.venv-lowest/bin/pip install --quiet -c constraints.txt --no-deps lmms-eval
	touch $@

.venv/.docs: $(READY)
	$(BIN)/pip install --quiet -c constraints.txt -e ".[docs]"
	touch $@

.venv-features/.ready: $(READY)  # sees what .venv has, which need not be there twice
	$(PYTHON) -m venv .venv-features
	$(BIN)/python -c "$(PACKAGES)" > "$$(.venv-features/bin/python -c "$(PACKAGES)")/base.pth"
	.venv-features/bin/pip install --quiet -c constraints.txt -e ".[test,features]"
	touch $@
