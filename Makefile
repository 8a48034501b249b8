# `make help` lists the targets. Everything lives in .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORE := $(VENV)/.core
ALL := $(VENV)/.all

.DEFAULT_GOAL := help
.PHONY: help install train test lint format docs clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(ALL) ## Set up .venv with everything (about 6 GB, most of it CUDA)

# uv where it is installed, else venv and pip; constraints.txt holds the versions tested together.
# $(1) is what to install. TORCH=cpu (uv only) leaves CUDA out, which is most of it.
define set_up
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11. Use make PYTHON=python3.12 ..." >&2; exit 2; }
	@if command -v uv >/dev/null 2>&1; then \
	  set -ex; uv venv --quiet --clear --python $(PYTHON) $(VENV); \
	  uv pip install --quiet --python $(BIN)/python --compile-bytecode -c constraints.txt \
	    $(if $(TORCH),--torch-backend $(TORCH)) -e '$(1)'; \
	else \
	  set -ex; $(PYTHON) -m venv --clear $(VENV); \
	  $(BIN)/python -m pip install --quiet -c constraints.txt -e '$(1)'; \
	fi
endef

$(CORE): pyproject.toml constraints.txt
	$(call set_up,.)
	@touch $@

$(ALL): pyproject.toml constraints.txt
	$(call set_up,.[dev])
	@touch $@ $(CORE)

train: $(CORE) ## Train SMM on real images with a frozen ImageNet classifier (2 to 4 minutes with all it needs)
	$(BIN)/python train.py

test: $(ALL) ## Run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile

lint: $(ALL) ## Check format, lint, types and YAML
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/yamllint --strict conf .github .pre-commit-config.yaml

format: $(ALL) ## Format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(ALL) ## Write the page of the Python interface from the docstrings into site/
	$(BIN)/python docs/api.py site

clean: ## Remove .venv and caches; runs/ stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis site build ./*.egg-info
