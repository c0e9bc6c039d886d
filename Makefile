# Both commands set up .venv by themselves. PYTHON=python3.12 picks another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
RESULTS := demo-results
# Twice as many as there are cores: tests wait for servers, browsers and other processes.
WORKERS := $(shell $(PYTHON) -c "import os; print(2 * os.cpu_count())")

.PHONY: demo test check types tests test-quick test-all test-oldest test-newest audit docs package figures notebooks clean

## The main job on the demo dictionaries: tables, summaries and figures in demo-results/.
demo: $(VENV)/.run
	$(BIN)/sae-geometry compare demo:local-seed0 demo:local-seed1 -o $(RESULTS)/compare --overwrite
	$(BIN)/sae-geometry umap demo:local-seed0 demo:local-seed1 -o $(RESULTS)/umap --overwrite
	@echo "Done: open $(RESULTS)/compare/figures/similarity.png and $(RESULTS)/umap/figures/umap.png"

## Lint, types and tests, all but the slow ones: what CI runs.
test: check
check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory -j 2 types tests
types:
	$(BIN)/mypy
tests:
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

## The inner loop: kernels, matchings, nulls and one pair, without processes, servers, pages and figures.
test-quick: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow" tests/matching tests/nulls tests/pairwise \
		tests/test_architecture.py tests/test_light_imports.py tests/test_sizes.py tests/test_dictionary.py \
		tests/kernels/test_decide.py tests/kernels/test_sweep.py

## Every test, the slow ones too.
test-all: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

## Every test with the oldest version of everything that pyproject.toml allows, and with the newest there is; an
## environment each, in build/. TORCH=2.13.0 keeps that torch, whose newest release is gigabytes.
TORCH ?=
test-oldest: constraints-oldest.txt
	$(PYTHON) -m venv --clear build/oldest
	build/oldest/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt -e ".[dev]"
	PATH="$(CURDIR)/build/oldest/bin:$$PATH" build/oldest/bin/python -m pytest -n $(WORKERS) --dist worksteal
test-newest:
	$(PYTHON) -m venv --clear build/newest
	build/newest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager \
		$(if $(TORCH),"torch==$(TORCH)") -e ".[dev]"
	PATH="$(CURDIR)/build/newest/bin:$$PATH" build/newest/bin/python -m pytest -n $(WORKERS) --dist worksteal

## Known holes in what CI installs and in the oldest versions allowed. It asks an advisory service: it needs the internet.
## OF_TORCH: in torch.jit.script (mended in 2.13) and in the loading of .pt2 files (mended in 2.11). Neither is called here,
## which tests/test_architecture.py holds us to; a floor of 2.13 would cost users a new torch.
OF_TORCH := --ignore-vuln PYSEC-2025-194 --ignore-vuln PYSEC-2026-139
audit: $(VENV)/.dev
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	build/audit/bin/pip-audit --strict --disable-pip --no-deps -r constraints.txt
	$(BIN)/uv pip compile --quiet --extra dev -c constraints-oldest.txt pyproject.toml -o build/oldest.txt
	build/audit/bin/pip-audit --strict --disable-pip --no-deps $(OF_TORCH) -r build/oldest.txt

## Every figure in figures/: the README's, and those of the reproductions from the demo dictionaries.
figures: $(VENV)/.dev
	$(BIN)/python -m analyses.demo.make_figures
	$(BIN)/python -m analyses.demo.make_explorer_shots
	$(BIN)/python -m analyses.e2e_paper --runs demo
	$(BIN)/python -m analyses.seed_dependence --runs demo
	$(BIN)/python -m analyses.feature_consistency --runs demo

## Run the notebooks again and store their outputs.
notebooks: $(VENV)/.dev
	$(BIN)/jupyter-execute --inplace notebooks/*.ipynb

## The pages, in build/site/. The variable silences an announcement of mkdocs-material's, not a warning about the pages.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Done: open build/site/index.html"

## The wheel and the sdist, in dist/.
package: $(VENV)/.dev
	$(BIN)/python -m build --no-isolation --outdir dist
	$(BIN)/twine check --strict dist/*

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e .
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) $(RESULTS) build dist
