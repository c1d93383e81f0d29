# A fresh machine needs Python 3.11, pip, git and make. `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
# An environment that is there already, as in the container image, can take its place.
VENV ?= .venv
# Not exported: set-up must find the Python outside .venv.
# Libraries want a home that they can write to, and DVC a $SHELL that runs commands.
HOME_OF = [ -n "$$HOME" ] && [ -w "$$HOME" ] && echo "$$HOME" || { mkdir -p tmp/home; echo "$$PWD/tmp/home"; }
WITH := HOME="$$($(HOME_OF))" PATH="$$(cd "$(VENV)" && pwd)/bin:$$PATH" DVC_NO_ANALYTICS=1 SHELL=/bin/bash
BOOK := PYTHONWARNINGS=ignore sphinx-build -c docs -W --keep-going -n
CODE := $(shell find replicate requirements -name '*.py' -o -name '*.yaml' -o -name '*.lock')
READING := published read@demo read@control read@paper read@pythia reference

.DEFAULT_GOAL := help
.PHONY: help repository setup runtime demo control report test test-all paper lint docs wheel links clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

repository:
	@[ -e .git ] || { echo "make: DVC needs a git repository, and this is none (a zip download?): run" \
		"git init, git add . and git commit -m download" >&2; exit 2; }

setup: repository ## install the locked packages into .venv
	@PYTHON="$(PYTHON)" requirements/install "$(VENV)"

runtime: repository
	@PYTHON="$(PYTHON)" requirements/install "$(VENV)" runtime

demo: runtime tmp/demo ## run the demo study to its end, offline, and write report.html
	@$(MAKE) --no-print-directory report.html
	@echo "report.html tells what was found; results/demo/ holds the estimates"

control: runtime ## run the control study again; weights and traces that git keeps are taken
	@$(WITH) python -m replicate share dvc repro read@control

report: runtime ## write report.html, all that was found on one page, from results/
	@$(WITH) dvc repro --single-item $(READING) report
	@echo "report.html"

# DVC takes seconds to find that nothing has changed; make takes none
tmp/demo: params.yaml dvc.yaml results/demo/claims.json $(CODE)
	@$(WITH) python -m replicate share dvc repro demo
	@mkdir -p tmp && touch $@

results/demo/claims.json: # where it is missing, the demo runs

report.html: params.yaml $(wildcard results/*/*.json)
	@$(WITH) dvc repro --single-item $(READING) report
	@touch $@

test: setup ## run the tests, in two processes of one thread each
	@$(WITH) OMP_NUM_THREADS=1 pytest --numprocesses 2 --dist loadfile -m "not slow"

test-all: setup ## run the tests that run DVC's whole pipeline, too
	@$(WITH) OMP_NUM_THREADS=1 pytest --numprocesses 2 --dist loadfile

lint: setup ## run what is checked before the tests: ruff, pyright and hadolint
	@$(WITH) pre-commit run --all-files

paper: runtime ## build paper/main.pdf from results/ (needs LaTeX, and says what to install)
	@$(WITH) python -m replicate paper --check
	@$(WITH) dvc repro --single-item $(READING) paper
	@cp paper/generated/control/figures/sizes.svg docs/findings.svg
	@echo "paper/main.pdf"

docs: setup ## build docs/_build/html; a warning or a link that leads nowhere is an error
	@$(WITH) $(BOOK) -q -b html . docs/_build/html
	@echo "docs/_build/html/index.html"

wheel: ## build the library's wheel into dist/ and try it in an environment of its own
	@PYTHON="$(PYTHON)" .ci/wheel

links: setup ## check the documentation's links to other sites (needs a network)
	@$(WITH) $(BOOK) -q -b linkcheck . docs/_build/links

clean: ## remove what can be made again: not results/, data/own/ and DVC's cache
	@git clean -fdXq -e '!/data/own/' -- data cache logs tmp paper docs dist report.html ro-crate-metadata.json
	@rm -rf .venv
