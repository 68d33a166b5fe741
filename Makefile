# Python 3.11 or newer and make are all it takes; every target installs what it needs, once.

PYTHON ?= python3
CONFIG ?= config/finops.toml
PORT ?= 3000
BIN := .venv/bin
INSTALLED := .venv/.installed
FAKESNOW := .venv-fakesnow/bin/fakesnow
DLT := .venv-dlt/bin/dlt
AUDIT := $(BIN)/pip-audit --strict --no-deps --disable-pip --progress-spinner off --requirement

DAGSTER_HOME := $(CURDIR)/.dagster
demo dev: export DAGSTER_HOME := $(DAGSTER_HOME)
export DAGSTER_DISABLE_TELEMETRY := yes

.PHONY: demo dev test thorough faults lint audit bench dagster clean

demo: $(INSTALLED) $(DAGSTER_HOME)/dagster.yaml  ## three months of an invented bill, end to end
	@$(BIN)/finops demo

dev: $(INSTALLED) $(DAGSTER_HOME)/dagster.yaml  ## the UI on http://127.0.0.1:3000; PORT=3001 for another
	@$(BIN)/finops --config $(CONFIG) dev --port $(PORT)

test: $(INSTALLED) $(FAKESNOW)  ## the tests, against real servers that they start themselves
	$(BIN)/python -m pytest -m 'not thorough' --numprocesses auto --dist worksteal

thorough: $(INSTALLED) $(FAKESNOW)  ## the tests that take minutes: every warehouse whose test server is slow
	$(BIN)/python -m pytest -m thorough --numprocesses auto --dist worksteal

faults: $(INSTALLED)  ## ten minutes of every fault, then new examples for the fuzzers
	$(BIN)/python -m finops_dagster_tests.faults
	$(BIN)/python -m pytest finops_dagster_tests/hostile --hypothesis-profile=faults

lint: $(INSTALLED)  ## style, types, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A hole that everybody knows tells whether the data can be reached: pip-audit also passes packages of
# which it was told nothing.
audit: $(INSTALLED)  ## known holes in what is pinned
	@echo 'urllib3==1.24' > .venv/known-hole.txt
	@if $(AUDIT) .venv/known-hole.txt 2>&1 | grep -qE 'PYSEC|GHSA|CVE'; \
	then $(AUDIT) constraints.txt; \
	else echo 'audit: skipped, as the data on known holes cannot be reached'; fi

bench: $(INSTALLED) $(DLT)  ## every measure against bare DuckDB, dlt and what it must reach
	$(BIN)/python -m finops_dagster_tests.benchmarks

# Dagster 1.13.27 comes with libraries 0.29.27: each pins the core to the patch.
CORE := $(subst ., ,$(VERSION))
LIBRARIES = 0.$(shell expr $(word 2,$(CORE)) + 16).$(word 3,$(CORE))

dagster:  ## VERSION=1.13.28: pin the whole Dagster family; docs/architecture.md says what to run then
	@test $(words $(CORE)) = 3 || { echo 'make dagster VERSION=1.13.28'; exit 2; }
	sed -E -i.before -e 's/(dagster(-[a-z]+)?==)1\.[0-9.]+/\1$(VERSION)/' \
	  -e 's/(dagster-[a-z]+==)0\.[0-9.]+/\1$(LIBRARIES)/' pyproject.toml constraints.txt
	@rm pyproject.toml.before constraints.txt.before

clean:  ## forget the demo's data and the history of all runs
	rm -rf data/demo .dagster

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

# The server that stands for Snowflake, and what the benchmark is held against, as its users install it:
# what they are built on is not what the project is built on.
$(FAKESNOW): finops_dagster_tests/servers/fakesnow-requirements.txt
$(DLT): finops_dagster_tests/benchmarks/dlt-requirements.txt
$(FAKESNOW) $(DLT):
	$(PYTHON) -m venv $(@D:/bin=)
	$(@D)/pip install --quiet --disable-pip-version-check --requirement $^
	@touch $@

$(DAGSTER_HOME)/dagster.yaml: dagster.yaml
	@umask 077 && mkdir -p $(DAGSTER_HOME) && cp dagster.yaml $@
