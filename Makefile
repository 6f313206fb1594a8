# Two commands: `make course` runs the lessons, `make test` checks everything. `make help` lists the rest.
PYTHON ?= python3
PROFILE ?= laptop
VENV := .venv
BIN := $(VENV)/bin

# What `course` needs, what `teach` adds, and everything, for `test`.
COURSE := course,site
TEACH := $(COURSE),classroom
EVERYTHING := course,classroom,train,volumes,site,test
LAB_SETTINGS := $(VENV)/share/jupyter/lab/settings/overrides.d
SHELL := /bin/bash

.PHONY: help install teach develop course site test lab assignments grade clean distclean
.DEFAULT_GOAL := help

help:
	@echo "make course              run all lessons on the embedded scans and make the site of them (PROFILE=$(PROFILE); or ci, gpu)"
	@echo "make course DATASET=x    the same on other data: phantom, kaggle or a folder; SEED=1 for another seed"
	@echo "make course AGAIN=1      run again what is up to date, too; without it, a course that was stopped goes on"
	@echo "make site                only make the site, build/site/index.html, of lessons that were run before"
	@echo "make test                lint, notebook rules, unit tests, lessons with PROFILE=ci run twice and compared"
	@echo "make lab                 open the lessons in JupyterLab"
	@echo "make assignments         student versions of the assignments, as zips in build/assignments"
	@echo "make grade SUBMISSIONS=x grade the folder x of submissions: a table and pages of feedback in build/grades"
	@echo "  ROSTER=x FORMAT=canvas with the class list x, and marks to import into canvas or moodle"
	@echo "make install             only install what the lessons need, which the others do by themselves"
	@echo "make teach, make develop the same with what grading needs, and with all that tests need"
	@echo "make clean               remove build/ and caches; make distclean removes the virtual environment too"
	@echo "CPU=1                    (the first time) install torch without CUDA, 5 GB less: for Linux without an NVIDIA GPU"
	@echo "PYTHON=python3.12        (with any of them) the Python to build the virtual environment with, 3.11 or newer"

$(BIN)/python:
	@command -v $(PYTHON) > /dev/null || { echo "$(PYTHON) was not found: install Python 3.11 or newer, or name one with 'make PYTHON=python3.12'."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is $$($(PYTHON) -V), but Python 3.11 or newer is needed: name one with 'make PYTHON=python3.12'."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2> /dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments: install its venv module (Debian, Ubuntu: apt install python3-venv)."; exit 1; }
	@echo "Making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# One environment that grows. A stamp in it says what is installed; a change in the two files that define the
# environment brings it up to date. JupyterLab's settings come by a copy: an editable installation leaves them out.
# `$(call install,EXTRAS,FOR,STAMPS)`
define install
@echo "Installing into $(VENV) what $(2)"
@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(CPU),--extra-index-url https://download.pytorch.org/whl/cpu) -c constraints.txt -e '.[$(1)]'
@mkdir -p $(LAB_SETTINGS) && cp ctmri_utils/viewers/ctmri-utils.json $(LAB_SETTINGS)
@touch $(addprefix $(VENV)/,$(3))
endef

$(VENV)/for-course: pyproject.toml constraints.txt | $(BIN)/python
	$(call install,$(COURSE),the lessons need: some minutes the first time,for-course)

$(VENV)/for-teaching: pyproject.toml constraints.txt | $(BIN)/python
	$(call install,$(TEACH),grading needs,for-course for-teaching)

$(VENV)/for-tests: pyproject.toml constraints.txt | $(BIN)/python
	$(call install,$(EVERYTHING),the tests need,for-course for-teaching for-tests)

install: $(VENV)/for-course

teach: $(VENV)/for-teaching

develop: $(VENV)/for-tests

course: $(VENV)/for-course
	@$(BIN)/python -m ctmri_utils course --profile "$(PROFILE)" $(if $(DATASET),-p DATASET "$(DATASET)") $(if $(SEED),-p SEED "$(SEED)") $(if $(AGAIN),--again)

site: $(VENV)/for-course
	@$(BIN)/python -m ctmri_utils site

# Two single-threaded workers for two cores, a file each at a time: the lessons, in order, on one; the unit tests on the other.
test: export OMP_NUM_THREADS = 1
test: export CTMRI_THREADS = 1
test: $(VENV)/for-tests
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check --quiet .
	$(BIN)/python -m codespell_lib
	$(BIN)/python -m nbstripout --verify notebooks/*.ipynb notebooks/assignments/source/*/*.ipynb
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lab: $(VENV)/for-course
	$(BIN)/python -m jupyter lab notebooks

assignments: $(VENV)/for-teaching
	@$(BIN)/python -m ctmri_utils assignments

grade: $(VENV)/for-teaching
	@test -n "$(SUBMISSIONS)" || { echo "Say what to grade: make grade SUBMISSIONS=folder (one folder a student)"; exit 1; }
	@$(BIN)/python -m ctmri_utils grade "$(SUBMISSIONS)" $(if $(ROSTER),--roster "$(ROSTER)") $(if $(FORMAT),--format "$(FORMAT)")

clean:
	rm -rf build .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
	find . -name .ipynb_checkpoints -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
