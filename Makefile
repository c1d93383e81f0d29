# Everything a fresh machine needs: Python 3.11, pip and git. `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
RUN := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"
READY := $(VENV)/ready
export DVC_NO_ANALYTICS := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test paper lint clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

setup: $(READY) ## install the locked packages into .venv

$(READY): requirements/base.lock requirements/cpu.lock requirements/cuda.lock
	@PYTHON="$(PYTHON)" requirements/install "$(VENV)"
	@touch $@

