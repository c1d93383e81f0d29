# Everything a fresh machine needs: Python 3.11, pip, git and make. `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
# An environment that is there already, as in the container image, can take its place.
VENV ?= .venv
# Not exported: set-up must find the Python outside .venv.
WITH := PATH="$(abspath $(VENV))/bin:$$PATH" DVC_NO_ANALYTICS=1
BOOK := PYTHONWARNINGS=ignore sphinx-build -c docs -W --keep-going -n
READING := check published claims@demo claims@paper figures@demo tables@demo figures@paper tables@paper reference

.DEFAULT_GOAL := help
.PHONY: help setup runtime unlock demo report test paper lint docs links clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

setup: ## install the locked packages into .venv
	@PYTHON="$(PYTHON)" requirements/install "$(VENV)"

runtime: unlock
	@PYTHON="$(PYTHON)" requirements/install "$(VENV)" runtime

unlock: # DVC writes its lock file in place, and refuses what a kill in that moment left of it
	@lock=.dvc/tmp/rwlock; [ ! -e $$lock ] || [ "$$(tail -c 1 $$lock)" = '}' ] || rm -f $$lock

demo: runtime ## run the demo study to its end: offline, two CPU cores, minutes
	@$(WITH) dvc repro demo
	@$(WITH) dvc repro --single-item figures@paper report
	@echo "report.html tells what was found; results/demo/ holds the estimates; make paper builds the PDF"

report: runtime ## write report.html, all that was found in one page, from what is in results/
	@$(WITH) dvc repro --single-item $(READING) report
	@echo "report.html"

test: setup ## run the tests
	@$(WITH) OMP_NUM_THREADS=1 pytest --numprocesses 2 --dist loadfile

lint: setup ## what CI checks before the tests: ruff, pyright and the hooks of pre-commit
	@$(WITH) pre-commit run --all-files

paper: runtime ## build paper/main.pdf from what is in results/ (needs LaTeX; says what to install)
	@$(WITH) python -m replicate paper --check
	@$(WITH) dvc repro --single-item $(READING) paper
	@cp paper/generated/demo/figures/llc.png docs/findings.png
	@echo "paper/main.pdf"

docs: setup ## build the documentation, docs/_build/html; a warning or a link that leads nowhere is an error
	@$(WITH) $(BOOK) -q -b html . docs/_build/html
	@echo "docs/_build/html/index.html"

links: setup ## look whether the documentation's links to other sites still lead there (needs a network)
	@$(WITH) $(BOOK) -q -b linkcheck . docs/_build/links

clean: ## remove what can be made again, but not results/
	rm -rf .venv data logs paper/generated docs/_build report.html
