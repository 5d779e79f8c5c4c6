# The course's commands. `make` alone lists them.
PYTHON ?= python3
# for example PIP_FLAGS='--extra-index-url URL' for another build of PyTorch
PIP_FLAGS ?=
PORT ?= 8000

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.installed
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help book test test-all lint gpu colab serve bench quality notebooks table stamp vendor clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1|/' \
	  | awk -F'|' '{printf "  make %-10s %s\n", $$1, $$2}'

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else \
	  f"Python 3.11 to 3.13 is needed, this is {v[0]}.{v[1]}: run make PYTHON=python3.12 (or the like)")'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo 'Installing into .venv (about 2 GB with the CPU build of PyTorch; once, some minutes)'
	@$(PY) -m pip install --quiet $(PIP_FLAGS) -r requirements.txt
	@$(PY) -m pip install --quiet $(PIP_FLAGS) --no-deps -e .
	@touch $(READY)

book: $(READY) ## install, run every notebook, build the book into _build/html
	@$(PY) book/_tools/build.py

test: $(READY) ## everything a change must pass
	@$(PY) tests/run.py

test-all: $(READY) ## the same and the slow tests
	@$(PY) tests/run.py --slow

lint: $(READY) ## ruff, mypy, and the schemas of .github
	@$(PY) tests/run.py lint

gpu: $(READY) ## the CUDA tests and every notebook on a GPU
	@DDPM_LITE_NEEDS_CUDA=1 $(PY) -m pytest -q tests/unit/test_cuda.py
	@$(PY) book/_tools/execute.py --force --device cuda --processes 1

colab: ## run every notebook with the packages of PYTHON, as Colab does (installs ours there)
	@$(PYTHON) -m pip install --quiet $(PIP_FLAGS) papermill .
	@$(PYTHON) book/_tools/execute.py --force --device auto

serve: ## show the built book on http://localhost:8000
	@test -f _build/html/index.html || { echo "no book yet: run make book"; exit 1; }
	@echo "http://localhost:$(PORT)  (Ctrl+C ends it)"
	@$(PYTHON) -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

bench: $(READY) ## run the benchmarks, one after the other
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(PY) $$script || exit 1; done

quality: $(READY) ## axe and Lighthouse on the built book (needs npm and Chromium)
	@$(PY) tests/browser/quality.py

notebooks: $(READY) stamp ## run the notebooks and refresh their committed outputs
	@$(PY) book/_tools/execute.py --in-place

table: $(READY) ## write README's table of checkpoints
	@$(PY) book/_tools/checkpoints.py

stamp: $(READY) ## write course.toml's address into the notebooks' first cells
	@$(PY) book/_tools/stamp.py

vendor: $(READY) ## fetch the book's browser libraries again (needs npm)
	@$(PY) book/_tools/vendor.py

clean: ## remove what was built (keeps .venv)
	rm -rf _build build .pytest_cache .mypy_cache .ruff_cache .hypothesis
