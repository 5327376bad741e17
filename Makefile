# wrtflow: every command installs what it needs. `make help` lists them.

SHELL := /bin/sh
.DEFAULT_GOAL := help

# The project's own Python environment comes first.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONDONTWRITEBYTECODE := 1

# Each role's scenario and the whole chain. The longest ones come first, so that two labs end at about the same time.
SCENARIOS ?= default router dashboards collector geolite storage

SH_FILES = $(shell git ls-files | xargs grep -lE '^\#!/bin/sh|^\# shellcheck shell=' 2>/dev/null | grep -vE '\.(j2|md)$$|^Makefile$$')

.PHONY: help
help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: lab-up ## build the lab, deploy wrtflow in it, send traffic, print who talks to whom
	@tools/lab-env python tools/demo.py

.PHONY: replay
replay: ## LOG=file [TRANSPORT=tcp|udp] [SENDER=name]: print the flow documents that a router's log lines become
	@test -n "$(LOG)" || { echo "usage: make replay LOG=file [TRANSPORT=tcp|udp] [SENDER=name]" >&2; exit 2; }
	@test -r "$(LOG)" || { echo "replay: cannot read '$(LOG)'" >&2; exit 2; }
	@tools/setup.sh lab >&2
	@tools/lab-env python tools/progress.py tools/lab-up --as-is >&2
	@tools/lab-env python tools/replay.py --transport "$(or $(TRANSPORT),tcp)" $(if $(SENDER),--sender "$(SENDER)") "$(LOG)"

.PHONY: check
check: ## run linters and unit tests, no containers
	@tools/setup.sh venv
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint unit

.PHONY: lint
lint:
	yamllint --strict .
	ansible-lint --offline --strict
	ruff check .
	ruff format --check .
	mypy
	shellcheck $(SH_FILES)

.PHONY: unit
unit:
	pytest --quiet

.PHONY: test
test: check-and-images ## run check, then each role's scenario and the whole chain in containers
	@tools/lab-env tools/scenarios.py $(SCENARIOS)

.PHONY: test-all
test-all: check-and-images ## run test with the long tests, and the router and the chain again with apk
	@PYTEST_ADDOPTS="-m ''" tools/lab-env tools/scenarios.py $(SCENARIOS) router-apk
	@WRTFLOW_FLAVOUR=apk tools/lab-env tools/scenarios.py default

.PHONY: bench
bench: lab-setup ## [PARTS="file bulk ..."]: measure the collector and the article's chain, in a container of its own
	@tools/lab-env tests/bench/run.sh $(PARTS)

.PHONY: down
down: ## remove the lab's containers and networks
	@tools/lab-env molecule destroy --scenario-name default

# On a new machine, the images are built while the checks run.
.PHONY: check-and-images
check-and-images: lab-setup
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=target lint unit images

.PHONY: images
images:
	@MAKEFLAGS= tools/lab-env molecule/images/build.sh

.PHONY: lab-setup
lab-setup:
	@tools/setup.sh lab

.PHONY: lab-up
lab-up: lab-setup
	@tools/lab-env python tools/progress.py tools/lab-up
