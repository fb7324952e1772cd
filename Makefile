# make help lists the targets. VENV=path reuses an environment that exists.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# Made on the first use and again when the dependencies change. This checkout is installed in it, in editable form, also
# in an environment given by VENV=.
STAMP := $(VENV)/.sqakd-installed$(subst /,-,$(CURDIR))

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all check bench browser clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(STAMP)  ## make the environment in .venv (or complete the one given by VENV=)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(STAMP)  ## teacher, then label-free 2-bit student on real handwritten digits; a result line and a picture
	$(BIN)/python train.py quantizer=ewgs model=resnet20 bits=2
	@echo "picture: runs/digits-resnet20-ewgs-w2a2-sqakd/seed0/picture.png"

test: $(STAMP) browser  ## the tests (about sixteen minutes on two cores)
	$(WITH_BROWSER) $(BIN)/python -m pytest -n auto --dist loadfile

test-all: check browser  ## style, types and all tests, also those that train every cell of the tables (an hour)
	$(WITH_BROWSER) $(BIN)/python -m pytest -n auto --dist loadfile -m "slow or not slow"

check: $(STAMP)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The report is tested in a headless Chromium. Debian's is installed where we may; without one those tests are skipped.
CHROMIUM := test -x /usr/bin/chromium && test -x /usr/bin/chromedriver
APT := DEBIAN_FRONTEND=noninteractive apt-get -qq
WITH_BROWSER := SQAKD_REQUIRE_BROWSER=$$($(CHROMIUM) && echo 1 || echo 0)

browser:
	@$(CHROMIUM) || test "$$(id -u)" != 0 || ! command -v apt-get > /dev/null \
	  || $(APT) install -y --no-install-recommends chromium chromium-driver > /dev/null \
	  || { { $(APT) update || $(APT) update; } && $(APT) install -y --no-install-recommends chromium chromium-driver > /dev/null; } \
	  || echo "no Chromium: the tests that look at the report's page are skipped"

bench: $(STAMP) browser  ## speed of the training step, the losses, the data path, the curvature, the exported files, the report
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/methods.py
	$(BIN)/python benchmarks/contrastive.py
	$(BIN)/python benchmarks/loader.py
	$(BIN)/python benchmarks/hessian.py
	$(BIN)/python benchmarks/runtimes.py
	$(BIN)/python benchmarks/report.py

clean:  ## remove the environment made here (runs/ and data/ stay)
	rm -rf .venv build *.egg-info
