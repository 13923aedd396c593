# Everything a newcomer types. `make` alone lists it.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# A stamp is written last, so an install that was interrupted is simply done again; it is older than
# its lock when the lock has changed. The full environment (dev) serves where the small one (cpu) would.
CPU := $(VENV)/.cpu-installed
DEV := $(VENV)/.dev-installed
RUNTIME = $(if $(wildcard $(DEV)),$(DEV),$(CPU))

# A venv whose interpreter is gone (moved, or Python upgraded) is rebuilt, whatever its stamps say.
ifneq ($(shell test ! -e $(VENV) || $(PY) -c "" 2>/dev/null || echo broken),)
$(CPU) $(DEV): broken-venv
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-docker gates lint format reference lock clean broken-venv

help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -ts '|' 2>/dev/null \
	  || grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST)
	@echo "  PYTHON=python3.12 make ...   picks the interpreter (3.10 to 3.12) the environment is made with"

setup: $(RUNTIME) ## make the virtual environment .venv from the hash-pinned lock

demo: $(RUNTIME) ## set up, then run the whole job on synthetic CT patients, in 2-D and 3-D (about 6 minutes)
	$(VENV)/bin/medseg demo

test: $(DEV) ## set up for development, then run all tests but those in containers, two at a time
	$(PY) -m pytest -n 2

test-docker: $(DEV) ## build the images, then train, stop, resume, export and predict in containers
	$(PY) -m pytest -m docker tests/docker

gates: $(DEV) ## lint, types, import layers
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-cache

lint: gates

format: $(DEV) ## lay the code out as the gates want it
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

reference: $(DEV) ## regenerate docs/reference from the command line and the recipe schema
	$(PY) tools/reference.py

lock: ## resolve pyproject.toml again into requirements/*.lock (needs uv and a network)
	$(call compile,cpu.lock,)
	$(call compile,dev.lock,--extra dev)
	$(call compile,gpu.lock,--no-emit-package paddlepaddle)
	$(call compile,notebook.lock,--no-emit-package paddlepaddle --extra notebook)

clean: ## remove the environment and everything built (outputs/ and data/ stay)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

define compile
UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile --quiet --universal --python-version 3.10 \
  --generate-hashes --no-annotate --override requirements/overrides.txt $(2) \
  pyproject.toml requirements/paddleseg.txt -o requirements/$(1)
endef

SUPPORTED := sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 13))

# --no-deps: the lock is complete, and PaddleSeg's own wish for an old OpenCV stays unheard.
define install
@$(PY) -c 'import pip, $(SUPPORTED)' 2>/dev/null || { \
  $(PYTHON) -c 'import $(SUPPORTED)' 2>/dev/null || { \
    echo "error: Python 3.10, 3.11 or 3.12 is needed; '$(PYTHON)' is $$($(PYTHON) -V 2>&1 | head -n 1)" >&2; \
    echo "hint:  name another one, for example: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }; \
  echo "making $(VENV) with $$($(PYTHON) -V)"; $(PYTHON) -m venv --clear $(VENV); }
@echo "installing from requirements/$(1) (the first time this downloads about 500 MB)"
@$(PY) -m pip install --no-deps --require-hashes -r requirements/$(1)
@$(PY) -m pip install --no-deps --no-build-isolation --quiet -e .
@touch $@
endef

$(CPU): requirements/cpu.lock pyproject.toml
	$(call install,cpu.lock)

$(DEV): requirements/dev.lock pyproject.toml
	$(call install,dev.lock)
