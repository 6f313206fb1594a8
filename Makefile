# Two commands: `make course` runs the lessons, `make test` checks everything. `make help` lists the rest.
PYTHON ?= python3
PROFILE ?= laptop
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
SHELL := /bin/bash

.PHONY: help install course site test lab assignments grade clean distclean
.DEFAULT_GOAL := help

help:
	@echo "make install             only make the virtual environment in .venv, which the others do by themselves"
	@echo "make course              run all lessons on the embedded scans and make the site of them (PROFILE=$(PROFILE); or ci, gpu)"
	@echo "make course DATASET=x    the same on other data: phantom, kaggle or a folder; SEED=1 for another seed"
	@echo "make site                only make the site, build/site/index.html, of lessons that were run before"
	@echo "make test                lint, notebook rules, unit tests, lessons with PROFILE=ci run twice and compared"
	@echo "make lab                 open the lessons in JupyterLab"
	@echo "make assignments         student versions of the assignments, as zips in build/assignments"
	@echo "make grade SUBMISSIONS=x grade the folder x of submissions: a table and pages of feedback in build/grades"
	@echo "make clean               remove build/ and caches; make distclean removes the virtual environment too"
	@echo "PYTHON=python3.12        (with any of them) the Python to build the virtual environment with, 3.11 or newer"

# One environment, made once; a change in the two files that define it brings it up to date.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) > /dev/null || { echo "$(PYTHON) was not found: install Python 3.11 or newer, or name one with 'make PYTHON=python3.12'."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is $$($(PYTHON) -V), but Python 3.11 or newer is needed: name one with 'make PYTHON=python3.12'."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2> /dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments: install its venv module (Debian, Ubuntu: apt install python3-venv)."; exit 1; }
	@test -x $(BIN)/python || { echo "Making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing into $(VENV): some minutes the first time, 6 GB of disk"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[course,classroom,train,volumes,export,site,test]'
	@touch $@

install: $(STAMP)

course: $(STAMP)
	@$(BIN)/python -m ctmri_utils course --profile "$(PROFILE)" $(if $(DATASET),-p DATASET "$(DATASET)") $(if $(SEED),-p SEED "$(SEED)")

site: $(STAMP)
	@$(BIN)/python -m ctmri_utils site

# Two single-threaded workers for two cores, a file each at a time: the lessons, in order, on one; the unit tests on the other.
test: export OMP_NUM_THREADS = 1
test: export CTMRI_THREADS = 1
test: $(STAMP)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check --quiet .
	$(BIN)/python -m codespell_lib
	$(BIN)/python -m nbstripout --verify notebooks/*.ipynb notebooks/assignments/source/*/*.ipynb
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lab: $(STAMP)
	$(BIN)/python -m jupyter lab notebooks

assignments: $(STAMP)
	@$(BIN)/python -m ctmri_utils assignments

grade: $(STAMP)
	@test -n "$(SUBMISSIONS)" || { echo "Say what to grade: make grade SUBMISSIONS=folder (one folder a student)"; exit 1; }
	@$(BIN)/python -m ctmri_utils grade "$(SUBMISSIONS)"

clean:
	rm -rf build .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
	find . -name .ipynb_checkpoints -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
