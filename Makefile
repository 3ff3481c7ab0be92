# Every task of the collection. `make` alone prints the help.
#
#   PROFILE  smoke | default | full: the budget of every notebook
#   SHEET    all | nice | inn | diary | ae: the notebooks of one exercise sheet
#   HANDIN   the zip's name without its ending
#   ONE      a name: the hand-in is one notebook and one page of this name, made of all the sheet's
#   JOBS     notebooks that run at once; two hold up to 7 GB of memory
#   TIMEOUT  seconds that one cell may take
#   PYTHON   the Python (3.11–3.13) that the environment is made from
#   LAB      more options for JupyterLab
#   HANDINS  a folder of students' hand-ins to grade
#   COLAB    1: the kit as one file for each notebook
#   COLAB_PYTHON  the Python that colab-check makes its environment from, Colab's 3.13 where there is one

SHELL := /bin/bash
# GNU make 3.81, as macOS has it, knows no .SHELLFLAGS: steps of one recipe are joined by &&, and no exit status goes
# into a pipe.
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SECONDARY:

PROFILE ?= default
SHEET   ?= all
HANDIN  ?= handin-$(SHEET)
TIMEOUT ?= 3600
PYTHON  ?= python3
JOBS    ?= 2
LAB     ?=
ONE     ?=
COLAB   ?=
HANDINS ?=
COLAB_PYTHON ?= $(or $(shell python3.13 -c 'import sys; print(sys.executable)' 2>/dev/null),$(PYTHON))

MODULES := $(sort $(wildcard nice_*.py))
# As export/sheets.toml has them; a test compares.
SHEET_nice  := 01 02 07 08
SHEET_inn   := 03 04 05 06
SHEET_diary := 09
SHEET_ae    := 10
# A name with a space, as a browser gives it to a second download, is no name to make.
SPACED := $(shell ls notebooks 2>/dev/null | grep '[[:space:]].*[.]ipynb$$')
ifneq ($(SPACED),)
  $(warning left out, rename what has a space in its name: $(SPACED))
endif
NOTEBOOKS := $(sort $(foreach name,$(wildcard notebooks/*.ipynb),$(wildcard $(name))))
ifeq ($(filter $(PROFILE),smoke default full),)
  $(error PROFILE must be smoke, default or full, got '$(PROFILE)')
endif
ifneq ($(words $(HANDIN))$(words $(ONE)),1$(if $(ONE),1,0))
  $(error HANDIN and ONE must be names without spaces, got '$(HANDIN)' and '$(ONE)')
endif
ifneq ($(SHEET),all)
  ifndef SHEET_$(SHEET)
    $(error SHEET must be all, nice, inn, diary or ae, got '$(SHEET)')
  endif
  NOTEBOOKS := $(foreach number,$(SHEET_$(SHEET)),$(filter notebooks/$(number)_%,$(NOTEBOOKS)))
endif
ifeq ($(strip $(NOTEBOOKS)),)
  $(error there is no notebook of the sheet '$(SHEET)' in notebooks/)
endif
OWN_MODULES := $(sort $(wildcard notebooks/*.py))
NAMES := $(NOTEBOOKS:notebooks/%.ipynb=%)

RUN   := build/$(PROFILE)
PAGES := $(NAMES:%=$(RUN)/%.html)
# The longest begin first, so that none runs alone at the end.
QUEUE := $(filter 02_% 09_% 10_%,$(NAMES)) $(filter-out 02_% 09_% 10_%,$(NAMES))
ZIP   := build/$(HANDIN).zip
ENV   := .venv/installed
DEV   := .venv/installed-dev
# What in a user's environment could lead a run astray.
ASTRAY := PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONOPTIMIZE MPLBACKEND MATPLOTLIBRC KERAS_BACKEND TF_USE_LEGACY_KERAS
PY    := env $(ASTRAY:%=-u %) .venv/bin/python
# After a system upgrade the environment's Python may be gone: then it is made anew.
ifneq ($(wildcard .venv/installed),)
  ifneq ($(shell .venv/bin/python -c 'print(1)' 2>/dev/null),1)
    $(shell rm -f .venv/installed .venv/installed-dev)
    BROKEN := --clear
  endif
endif
COLAB_ENV := .venv-colab/installed
BENCH := .venv-bench/installed
LOWEST := .venv-lowest/installed
NBGRADER := .venv-nbgrader/installed

# Notebooks run with the environment's own kernel and leave the user's home alone, whatever kernels it holds.
ISOLATED = JUPYTER_PREFER_ENV_PATH=1 JUPYTER_PATH= JUPYTER_DATA_DIR="$(CURDIR)/build/home/jupyter" \
  JUPYTER_CONFIG_DIR="$(CURDIR)/build/home/jupyter" JUPYTER_RUNTIME_DIR="$(CURDIR)/build/home/runtime" \
  IPYTHONDIR="$(CURDIR)/build/home/ipython" KERAS_HOME="$(CURDIR)/build/home/keras" \
  MPLCONFIGDIR="$(CURDIR)/build/home/matplotlib" PYTHONDONTWRITEBYTECODE=1 PYDEVD_DISABLE_FILE_VALIDATION=1
# What runs at once shares the cores. With as many threads as cores in each of two notebooks, training took 8 % (MNIST) to
# 20 % (moons) longer, covariances three times and k-means twenty times as long: NumPy's and scikit-learn's threads wait
# for each other by spinning.
SHARE   = $$(($$(getconf _NPROCESSORS_ONLN) > $(JOBS) ? $$(getconf _NPROCESSORS_ONLN) / $(JOBS) : 1))
THREADS = TF_NUM_INTRAOP_THREADS=$(SHARE) OMP_NUM_THREADS=$(SHARE)

.PHONY: help setup lab smoke export-html submission colab colab-check template solution grade nbgrader \
  test test-browser test-nbgrader test-slow test-lowest lint bench results clean FORCE

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22
	@echo "  with PROFILE=smoke|default|full, SHEET=all|nice|inn|diary|ae, HANDIN=name of the zip, ONE=name of one page for all, JOBS=notebooks at once"

setup: $(ENV) ## create the environment in .venv

lab: $(ENV) ## open JupyterLab with this environment's kernel
	JUPYTER_PREFER_ENV_PATH=1 JUPYTER_PATH= $(PY) -m jupyterlab notebooks $(LAB)

# With a name of its own for the zip, which it does not make, it leaves the hand-in alone.
smoke: ## run every notebook in its smallest profile
	@$(MAKE) --no-print-directory -j$(JOBS) PROFILE=smoke HANDIN=smoke executed

export-html: ## run the notebooks, export them as HTML, zip the hand-in
	@$(MAKE) --no-print-directory -j$(JOBS) $(ZIP)
	@$(PY) export/sheets.py $(RUN) $(NAMES)
	@echo "$(words $(PAGES)) pages in $(RUN), hand in $(ZIP)"

submission: export-html ## the same, for those who look for this word

colab: $(NAMES:%=build/colab/%.ipynb) ## write each notebook as one file for Colab
	@echo "$(words $^) notebooks in build/colab"

colab-check: $(NAMES:%=build/colab-check/%/executed.ipynb) ## run these at Colab's versions, in empty folders (slow)

template: $(ENV) one-sheet ## zip a sheet's kit for students: blanks, checks, hand-in (SHEET=, COLAB=1)
	@mkdir -p build && $(PY) export/to_kit.py build/$(SHEET)-template$(if $(COLAB),-colab).zip $(SHEET) $(if $(COLAB),--colab)
	@echo "hand out build/$(SHEET)-template$(if $(COLAB),-colab).zip"

solution: $(ENV) one-sheet ## zip the kit's solved and answered twin (SHEET=, COLAB=1)
	@mkdir -p build && $(PY) export/to_kit.py build/$(SHEET)-solution$(if $(COLAB),-colab).zip $(SHEET) --solution $(if $(COLAB),--colab)
	@echo "wrote build/$(SHEET)-solution$(if $(COLAB),-colab).zip"

grade: $(ENV) one-sheet ## grade a folder of hand-ins (SHEET=, HANDINS=folder)
	@test -n "$(HANDINS)" || { echo "say which: make grade SHEET=$(SHEET) HANDINS=folder"; exit 1; }
	@$(ISOLATED) $(PY) export/grade.py $(SHEET) "$(HANDINS)" build/grades-$(SHEET) --jobs $(JOBS)

nbgrader: $(ENV) one-sheet ## write a sheet as an nbgrader course, build/nbgrader (SHEET=)
	@mkdir -p build/nbgrader && $(PY) export/to_nbgrader.py build/nbgrader $(SHEET)
	@echo "in build/nbgrader: nbgrader generate_assignment $(SHEET)"

.PHONY: one-sheet
one-sheet:
	@test "$(SHEET)" != all || { echo "say which sheet: SHEET=nice, inn, diary or ae"; exit 1; }

test: $(DEV) lint smoke ## lint, every notebook in smoke, unit tests
	$(ISOLATED) $(THREADS) $(PY) -m pytest -n 2

test-browser: $(DEV) smoke ## the exported pages and JupyterLab in Chromium (apt install chromium)
	$(ISOLATED) $(PY) -m pytest -m browser

test-nbgrader: $(DEV) $(NBGRADER) ## nbgrader's round trip on three hand-ins (3 minutes)
	$(ISOLATED) $(PY) -m pytest -m nbgrader

test-slow: $(DEV) ## kill builds and trainings, and look at what is left (10 minutes)
	$(ISOLATED) $(PY) -m pytest -m slow

test-lowest: $(LOWEST) smoke ## the unit tests at the lowest versions that requirements.txt admits (slow)
	$(ISOLATED) $(THREADS) .venv-lowest/bin/python -m pytest -n 2

lint: $(DEV) ## check style and format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

bench: $(BENCH) ## compare speed with PyTorch's flow packages and JAX, in an environment of its own (slow)
	.venv-bench/bin/python bench/run.py

results: $(ENV) ## gather build/results into results/results.json and the README's table
	$(PY) results/collect.py

clean: ## remove build/ and the environments
	rm -rf build .venv .venv-colab .venv-bench .venv-lowest .venv-nbgrader

# ---- What the tasks are made of --------------------------------------------------------------------------------

$(ENV): requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.11 to 3.13 is needed, $(PYTHON) is $$($(PYTHON) --version). Try make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(BROKEN) .venv
	$(PY) -m pip install --quiet -r requirements.txt -c constraints.txt
	touch $@

$(DEV): $(ENV) requirements-dev.txt
	$(PY) -m pip install --quiet -r requirements-dev.txt -c constraints.txt
	touch $@

.PHONY: executed
executed: $(QUEUE:%=$(RUN)/%.ipynb)

# Each step writes to a name of its own and moves the whole file into place.
$(RUN)/%.ipynb: notebooks/%.ipynb $(MODULES) $(OWN_MODULES) $(wildcard data/*.npz) | $(ENV)
	@rm -f $(ZIP) && mkdir -p $(RUN) build/home
	@line="[$$(printf '%s\n' $(NAMES) | grep -nx '$*' | cut -d: -f1)/$(words $(NAMES))] $*" && echo "$$line" && \
	  $(ISOLATED) $(THREADS) $(PY) export/run_notebook.py $< $@ --profile $(PROFILE) --timeout $(TIMEOUT) && \
	  echo "$$line: done in $$SECONDS s"

$(RUN)/%.html: $(RUN)/%.ipynb export/to_html.py export/sheets.py export/sheets.toml export/convert.py export/page.css $(wildcard export/template/* export/fonts/*.woff2)
	@$(ISOLATED) $(PY) export/to_html.py $< $@

# The zip is made again when other notebooks or another profile are chosen, though no page may be newer than it.
build/$(HANDIN).selection: FORCE
	@mkdir -p $(@D) && echo '$(ONE) $(PAGES)' | cmp -s - $@ || echo '$(ONE) $(PAGES)' > $@

ifeq ($(ONE),)
$(ZIP): $(QUEUE:%=$(RUN)/%.html) build/$(HANDIN).selection
	@$(PY) export/make_index.py $(RUN) $(SHEET) $(NAMES)
	@$(PY) export/make_zip.py $@ $(RUN)/index.html $(RUN)/modules.html $(PAGES) $(NAMES:%=$(RUN)/%.ipynb) $(MODULES) $(OWN_MODULES)
else
$(ZIP): $(RUN)/one/$(ONE).html
	@$(PY) export/make_zip.py $@ $(RUN)/one/$(ONE).html $(RUN)/one/$(ONE).ipynb

$(RUN)/one/$(ONE).ipynb: $(PAGES) build/$(HANDIN).selection
	@mkdir -p $(@D) && $(PY) export/merge.py $@ $(SHEET) $(NAMES:%=$(RUN)/%.ipynb)
endif

build/colab/%.ipynb: notebooks/%.ipynb $(MODULES) export/to_colab.py export/convert.py | $(ENV)
	@mkdir -p $(@D) && $(PY) export/to_colab.py $< $@

$(COLAB_ENV): export/colab_versions.txt
	$(COLAB_PYTHON) -m venv --clear .venv-colab
	.venv-colab/bin/python -m pip install --quiet -r $<
	touch $@

build/home/keras/filled: export/fill_keras_cache.py $(COLAB_ENV)
	KERAS_HOME="$(CURDIR)/build/home/keras" .venv-colab/bin/python $<
	touch $@

$(LOWEST): requirements.txt requirements-dev.txt
	$(PYTHON) -m venv --clear .venv-lowest
	@mkdir -p build && sed -E 's/>=([0-9.]+)[^ ]*/==\1.*/' requirements.txt > build/lowest.txt
	.venv-lowest/bin/python -m pip install --quiet -r build/lowest.txt -r requirements-dev.txt
	touch $@

$(NBGRADER): requirements.txt constraints.txt
	$(PYTHON) -m venv --clear .venv-nbgrader
	.venv-nbgrader/bin/python -m pip install --quiet -r requirements.txt 'nbgrader>=0.9.5' -c constraints.txt
	touch $@

$(BENCH): requirements.txt constraints.txt bench/requirements.txt
	$(PYTHON) -m venv --clear .venv-bench
	.venv-bench/bin/python -m pip install --quiet -r requirements.txt -r bench/requirements.txt -c constraints.txt
	touch $@

# A folder that holds nothing but the one file, no other code to import, and the images in Keras' own cache.
build/colab-check/%/executed.ipynb: build/colab/%.ipynb $(COLAB_ENV) build/home/keras/filled
	@rm -rf $(@D) && mkdir -p $(@D) build/home && cp $< $(@D)/ && echo $*
	@$(ISOLATED) PYTHONPATH= .venv-colab/bin/python export/run_notebook.py $(@D)/$*.ipynb $@ --profile smoke
	@! grep -A4 '"name": "stderr"' $@ || { echo "$*: these lines would stand in the page"; exit 1; }
