# `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
ENV := . tools/env.sh &&
NAME ?=
BACKBONE ?= effnet

.DEFAULT_GOAL := help
.PHONY: help setup build demo evidence publish docs test lint bench faults clean distclean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

setup: ## make .venv and build the workspace (demo and test do it by themselves)
	@$(PYTHON) tools/setup_env.py

build: setup ## the same; rebuilds what changed

demo: setup ## record, convert, train, drive and evaluate in the simulated cell; writes out/demo/report.html
	@$(ENV) ros2 run corft demo --out out/demo --backbone $(BACKBONE) $(ARGS)

evidence: setup ## make all runs of the evidence again, or go on with them; writes docs/evidence.md and the README's table
	@$(ENV) python -m corft_core.evidence $(ARGS)

publish: setup ## keep the last demo's figures under results/; write the documents' tables
	@$(ENV) python tools/publish.py

docs: setup ## write docs/reference.md from the programs; a test fails when it is out of date
	@$(ENV) python tools/make_reference.py

test: setup lint ## static checks and all tests
	@$(ENV) python -m pytest $(ARGS)

lint: setup ## ruff and mypy
	@$(ENV) ruff check . && mypy

bench: setup ## measure one thing: make bench NAME=<name>; writes results/bench/<name>.json
	@$(ENV) python tests/bench/run.py $(NAME)

faults: setup ## break the live graph in 300 ways, 20 minutes; writes results/faults.json and docs/faults.md
	@$(ENV) PYTHONPATH="tests:$$PYTHONPATH" python -m faults $(ARGS)

clean: ## remove what was built and what was written under out/
	rm -rf build install log out .mypy_cache .ruff_cache .hypothesis

distclean: clean ## clean, and remove the environment too
	rm -rf .venv
