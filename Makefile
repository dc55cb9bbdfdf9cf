# `make` lists the targets. Everything lives in .venv and .data; deleting both starts afresh.
PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo run test lint fmt

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/ready ## run everything once: 150 Psalms, embedded and searched by meaning
	@python manage.py embedded python manage.py demo

run: $(VENV)/ready ## run everything until Ctrl-C: API, worker, beat, Flower
	@python manage.py embedded python manage.py up

test: $(VENV)/ready-dev ## run the whole test suite
	@pytest

lint: $(VENV)/ready-dev ## check format, style, types, settings and migrations
	ruff format --check .
	ruff check .
	mypy .
	python manage.py check --fail-level WARNING
	python -W ignore manage.py makemigrations --check --dry-run

fmt: $(VENV)/ready-dev ## format the code
	ruff format .
	ruff check --fix .

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/ready: requirements.txt | $(VENV)/bin/python
	$(VENV)/bin/pip install --quiet -r requirements.txt
	@touch $@

$(VENV)/ready-dev: requirements-dev.txt requirements.txt | $(VENV)/bin/python
	$(VENV)/bin/pip install --quiet -r requirements-dev.txt
	@touch $@ $(VENV)/ready
