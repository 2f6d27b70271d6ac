# Two commands: `make serve` sets up and serves the built-in model; `make test` sets up and runs all checks.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS ?= torch,onnxruntime,test,dev
JOBS ?= 2
PYTEST_ARGS ?=
SERVE_ARGS ?=
KERNELS := setup.py $(wildcard kernels/cpu/csrc/*)

.DEFAULT_GOAL := help
.PHONY: help setup serve test lint types contracts unit fresh production scan audit services matrix format bench clean

help:  ## Show this help
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.ready  ## Make the virtual environment and install isotoken in it

# torch comes first and pinned: its CPU build is enough here, and a later step must not replace it.
$(VENV)/.ready: pyproject.toml constraints.txt $(KERNELS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@ $(VENV)/.light

# To serve, isotoken compiles kernels of its own for the CPU. Where there is no compiler ONNX Runtime takes their place.
$(VENV)/.light: pyproject.toml constraints.txt $(KERNELS) | $(BIN)/python
	@command -v c++ > /dev/null && echo "Compiling the CPU kernels, about a minute" || echo "No C++ compiler (c++) found: installing ONNX Runtime"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable "$$(command -v c++ > /dev/null && echo . || echo '.[onnxruntime]')"
	touch $@

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("isotoken needs Python 3.11 or later, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools

serve: $(VENV)/.light  ## Serve the built-in model on http://127.0.0.1:8000 (SERVE_ARGS="--port 8001": flags)
	$(BIN)/isotoken serve $(SERVE_ARGS)

test: lint types contracts unit fresh  ## Everything that CI checks

lint: setup  ## Style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The package's sources are the checkout itself, so the type checker sees it through a link named like the package.
types: setup  ## Types
	@mkdir -p .mypy_root && ln -sfn "$(CURDIR)" .mypy_root/isotoken
	cd .mypy_root && $(abspath $(BIN))/mypy --config-file isotoken/pyproject.toml -p isotoken

contracts: setup  ## Import contracts
	$(BIN)/lint-imports

unit: setup  ## Tests
	$(BIN)/python -m pytest -n $(JOBS) $(PYTEST_ARGS)

fresh: setup  ## Generated files are up to date
	$(BIN)/towncrier build --draft --version next > /dev/null

production: $(VENV)/.light  ## Run examples/production: database, Prometheus and a server with everything on (ARGS="--report report.md")
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[production]'
	$(BIN)/python examples/production/run.py $(ARGS)

# Tests are full of invented secrets. What else is found and is none stands in .secrets.baseline; to add to it:
# detect-secrets scan --baseline .secrets.baseline
scan: setup  ## Look for secrets and unsafe code
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[scan]'
	git ls-files -z -- . ':!tests' ':!models' ':!*.json' ':!*.svg' ':!*.html' ':!*.png' ':!constraints.txt' ':!.secrets.baseline' \
		| xargs -0 $(BIN)/detect-secrets-hook --baseline .secrets.baseline
	$(BIN)/ruff check --select S102,S301,S302,S306,S307,S324,S501,S506,S602,S604,S605,S608,S612,S701,S702 --extend-exclude tests .
	$(BIN)/python -m pip check

audit: setup  ## Look for known vulnerabilities of what is installed (asks PyPI)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[scan]'
	$(BIN)/pip-audit --skip-editable --progress-spinner off

services:  ## Install what some tests and examples/production run beside isotoken: PostgreSQL, Redis, Prometheus (Debian, root)
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends postgresql redis-server prometheus

matrix: setup  ## Measure every backend anew and draw docs/conformance.md and .html (some ten minutes)
	$(BIN)/python tests/conformance/make_matrix.py

format: setup  ## Rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup  ## Benchmarks, with their figures printed (see benchmarks/README.md)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m pytest benchmarks --benchmark-only -q -s $(PYTEST_ARGS)

clean:  ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_root .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info
