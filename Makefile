# `make help` lists the targets. VENV=path uses an environment that exists.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# Marks that this checkout is installed in the environment, in editable form. The checkout's path is part of the name,
# because several checkouts may share an environment. A change of the dependencies installs them again.
STAMP := $(VENV)/.sqakd-installed$(subst /,-,$(CURDIR))
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile

# Where this variable is set, as in many images of containers, Python would compile all modules at each start.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo quick test test-all check docs bench browser clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(STAMP)  ## create the environment in .venv, or complete the one given by VENV=

# Most of the packages' 20,000 modules are never imported, so none is compiled in advance.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[dev]'
	touch $@

demo: $(STAMP)  ## train a teacher and its label-free 2-bit student on handwritten digits
	$(BIN)/python train.py quantizer=ewgs model=resnet20 bits=2
	@echo "picture: runs/digits-resnet20-ewgs-w2a2-sqakd/seed0/picture.png"

quick: $(STAMP)  ## run the unit tests (under two minutes on two cores)
	$(PYTEST) --quick

test: $(STAMP) browser  ## run the tests that a change must pass (about eighteen minutes on two cores)
	$(WITH_BROWSER) $(PYTEST)

test-all: check browser  ## check style and types, and run all tests, also those marked slow (an hour)
	$(WITH_BROWSER) $(PYTEST) -m "slow or not slow"

check: $(STAMP)  ## check style, types and spelling; .pre-commit-config.yaml runs the same commands
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

docs: $(STAMP)  ## build the documentation and the reference of the library as a site, build/site
	$(BIN)/python docs/site/build.py

# Some tests open the report in a headless Chromium. Debian's package is installed if we may install packages; without
# a browser those tests are skipped.
CHROMIUM := test -x /usr/bin/chromium && test -x /usr/bin/chromedriver
APT := DEBIAN_FRONTEND=noninteractive apt-get -qq
WITH_BROWSER := SQAKD_REQUIRE_BROWSER=$$($(CHROMIUM) && echo 1 || echo 0)

browser:
	@$(CHROMIUM) || test "$$(id -u)" != 0 || ! command -v apt-get > /dev/null \
	  || $(APT) install -y --no-install-recommends chromium chromium-driver > /dev/null \
	  || { { $(APT) update || $(APT) update; } && $(APT) install -y --no-install-recommends chromium chromium-driver > /dev/null; } \
	  || echo "no Chromium: the tests that open the report's page are skipped"

bench: $(STAMP) browser  ## measure the speed of training steps, compilation, losses, data, curvature, exported files and the report
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/compilation.py
	$(BIN)/python benchmarks/methods.py
	$(BIN)/python benchmarks/stage.py
	$(BIN)/python benchmarks/contrastive.py
	$(BIN)/python benchmarks/loader.py
	$(BIN)/python benchmarks/hessian.py
	$(BIN)/python benchmarks/runtimes.py
	$(BIN)/python benchmarks/report.py

clean:  ## remove the environment and build files (runs/ and data/ stay)
	rm -rf .venv build *.egg-info
