# wrtflow: every command installs what it needs. `make help` lists them.

SHELL := /bin/sh
.DEFAULT_GOAL := help

# The project's own Python environment comes first.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONDONTWRITEBYTECODE := 1

# Each role's scenario and the whole chain. The ones that find a fault soonest come first.
SCENARIOS ?= router collector geolite storage dashboards default

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
	yamllint --strict .
	ansible-lint --offline --strict
	ruff check .
	ruff format --check .
	mypy
	shellcheck $(SH_FILES)
	pytest --quiet

.PHONY: test
test: check lab-setup ## run check, then each role's scenario and the whole chain in containers
	@tools/lab-env tools/scenarios $(SCENARIOS)

.PHONY: test-all
test-all: check lab-setup ## run test with the long tests, and the router and the chain again with apk
	@PYTEST_ADDOPTS="-m ''" tools/lab-env tools/scenarios $(SCENARIOS) router-apk
	@WRTFLOW_FLAVOUR=apk tools/lab-env tools/scenarios default

.PHONY: bench
bench: lab-setup ## [PARTS="file bulk ..."]: measure the collector and the article's chain, in a container of its own
	@tools/lab-env tests/bench/run.sh $(PARTS)

.PHONY: down
down: ## remove the lab's containers and networks
	@tools/lab-env molecule destroy --scenario-name default

.PHONY: lab-setup
lab-setup:
	@tools/setup.sh lab

.PHONY: lab-up
lab-up: lab-setup
	@tools/lab-env python tools/progress.py tools/lab-up
