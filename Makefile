# Two commands set up everything they need in a virtual environment of their own; python3 and make are enough.
#
#   make demo    what a device installs (no PyTorch): screens the examples in runtime/examples
#   make test    everything: formatting, lint, types, all tests
#
# make quick runs the fast tests only; make train is the command behind the model inside the package.

PYTHON ?= python3
DATA ?= dataset

.PHONY: demo test quick lint train clean

demo: .venv-device/ready
	.venv-device/bin/asr-screen runtime/examples

test: lint
	.venv/bin/python -m pytest

quick: .venv/ready
	.venv/bin/python -m pytest -m "not heavy"

lint: .venv/ready
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

clean:
	rm -rf .venv .venv-device .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv-device/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv --clear .venv-device
	.venv-device/bin/pip install --quiet --disable-pip-version-check -e '.[cpu]'
	touch $@

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv --clear .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -e '.[cpu,dev]'
	touch $@
