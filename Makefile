# Each target sets up its own environment; a second call finds it ready and starts at once.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
OUT ?= results/demo
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test lint clean

demo: $(READY)  ## the demonstration grid, then its table
	$(BIN)/pet-bench run demo --out $(OUT)
	$(BIN)/pet-bench report demo --out $(OUT)

test: lint  ## one torch thread per process: more are slower, not faster
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadgroup

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e ".[test]"
	touch $@
