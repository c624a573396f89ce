# The two commands of a newcomer are `make demo` and `make test`; each step already done is not done again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests and tools run from the working tree; the stamp is as new as what decides the installation.
STAMP := $(VENV)/.installed

FUZZ := image fits tar parquet
FUZZ_SECONDS := 300

.PHONY: help install demo docs browser s3-server prometheus referees test test-fast test-deploy test-faults soak test-slow test-newcomer fuzz audit sbom bench lint format train calibrate dist clean
.DEFAULT_GOAL := help

help:  ## say what each target does
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP)  ## create .venv and install the package with its development tools

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)  ## simulate a small survey, catalog it, and show what is in the catalog
	$(BIN)/gax demo --output demo

docs: $(STAMP)  ## build the documentation into build/docs, with warnings as errors (SPHINX='-D nb_execution_mode=off' skips execution)
	$(BIN)/python -m sphinx -W --keep-going -b html $(SPHINX) docs build/docs

s3-server:  ## install the real S3 server of the tests (Debian's Ceph packages; as root)
	apt-get update -qq
	apt-get install -qq --yes --no-install-recommends radosgw ceph-osd ceph-mon ceph-common

browser:  ## install the browser of the tests (Debian's Chromium; as root)
	apt-get update -qq
	apt-get install -qq --yes --no-install-recommends chromium fonts-dejavu-core

prometheus:  ## install the Prometheus of the tests (Debian's; as root)
	apt-get update -qq
	apt-get install -qq --yes --no-install-recommends prometheus

referees:  ## install the validators of the tests of published files (Debian's STILTS and fitsverify; as root)
	apt-get update -qq
	apt-get install -qq --yes --no-install-recommends stilts default-jre-headless fitsverify

lint: $(STAMP)  ## ruff, mypy and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint  ## lint and run the tests (under 15 minutes on 2 cores)
	$(BIN)/python -m pytest -m 'not slow' --numprocesses 2 --dist loadfile

# The plugin tests/fast.py decides which tests these are.
test-fast: $(STAMP)  ## the tests that need neither Ray nor TensorFlow nor another process (under a minute on 2 cores)
	PYTHONPATH=.:tests $(BIN)/python -m pytest -p fast -m 'not slow' --quiet -r fE --numprocesses 2 --dist loadfile

test-deploy: $(STAMP)  ## the image, the manifests, gax submit, and a job on a local Ray cluster
	$(BIN)/python -m pytest tests/deploy tests/cluster/kubernetes tests/runner/test_cluster_size.py tests/cluster/test_metrics.py

test-faults: $(STAMP)  ## break real runs over 200 times and print what was lost: nothing (half an hour on 2 cores)
	$(BIN)/python -m pytest tests/faults -m 'slow or not slow' --injections 200

soak: $(STAMP)  ## a million simulated cutouts: what grows, what slows down (COUNT=100000 for fewer)
	PYTHONPATH=.:tests $(BIN)/python -m faults.soak $(COUNT)

test-slow: $(STAMP)  ## the real survey at full size: resume, identical bits, memory (about an hour on 2 cores)
	$(BIN)/python -m pytest -m slow --ignore tests/faults

fuzz: $(STAMP)  ## fuzz the readers, guided by coverage, FUZZ_SECONDS each (300; FUZZ='fits tar' for some)
	for reader in $(FUZZ); do PYTHONPATH=.:tests $(BIN)/python -m fuzz $$reader --seconds $(FUZZ_SECONDS) || exit 1; done

audit: build/audit/.installed  ## look for known vulnerabilities in the pinned packages (asks PyPI)
	build/audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

sbom: $(STAMP) build/audit/.installed  ## write build/sbom.json, a CycloneDX list of what is installed
	build/audit/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-format JSON \
	    --output-file build/sbom.json

# In an environment of their own, which is not what they look at.
build/audit/.installed:
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1 cyclonedx-bom==7.5.0
	@touch $@

test-newcomer: $(STAMP)  ## what the documentation shows, run: its tutorial, each command, the path of a newcomer (8 minutes)
	$(BIN)/python -m pytest tests/slow/test_newcomer.py tests/slow/test_shown_commands.py

bench: $(STAMP)  ## measure speed and memory beside the plain ways (BENCH='jpeg packed' for some of it)
	PYTHONPATH=.:tests $(BIN)/python -m benchmarks --document $(BENCH)

train: $(STAMP)  ## train the shipped bundle again (two hours on 2 cores): make train DATA=FOLDER OUTPUT=FOLDER
	$(BIN)/python -m training.build --data $(DATA) --output $(OUTPUT)

calibrate: $(STAMP)  ## calibrate and measure the weights of a bundle again: make calibrate DATA=... WEIGHTS=BUNDLE OUTPUT=...
	$(BIN)/python -m training.build --data $(DATA) --weights $(WEIGHTS) --output $(OUTPUT)

baselines: $(STAMP)  ## train a deep ensemble and models of halves to compare a training with (an hour and more on 2 cores): make baselines DATA=... OUTPUT=...
	$(BIN)/python -m training.baselines --data $(DATA) --output $(OUTPUT) --halves

format: $(STAMP)  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dist: $(STAMP)  ## build the source distribution and the wheel in dist/
	rm -rf dist
	$(BIN)/python -m build --outdir dist

clean:  ## remove what was built, but no catalog
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
