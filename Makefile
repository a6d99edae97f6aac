# Two commands set up everything they need in a virtual environment of their own; python3 and make are enough.
#
#   make demo    what a device installs (no PyTorch): screens the examples in runtime/examples
#   make test    everything: formatting, lint, types, all tests
#
# make quick      the fast tests only
# make builtin    trains, evaluates and exports the model inside the package from the data folder DATA

PYTHON ?= python3
DATA ?= dataset
RECIPE = --model asrnet --dim 32 --crop-size 128 --epochs 10 --epoch-size 1600 --lr 1e-3

.PHONY: demo test quick lint builtin clean

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

builtin: .venv/ready
	rm -rf build/builtin
	.venv/bin/asr-train $(RECIPE) --data $(DATA) --runs build/builtin/seen
	.venv/bin/asr-train $(RECIPE) --data $(DATA) --runs build/builtin/unseen --protocol leave-one-generator-out
	.venv/bin/asr-evaluate --checkpoint build/builtin/seen/run-*/checkpoint_asrnet.pth --data $(DATA) --equalise 90 \
		--report build/builtin/evaluation
	.venv/bin/asr-export build/builtin/seen/run-*/checkpoint_asrnet.pth -o runtime/asr_runtime/builtin/asrnet.onnx \
		--metrics seen-generators=build/builtin/evaluation/metrics.json \
		--metrics leave-one-generator-out=build/builtin/unseen/leave-one-generator-out.json

clean:
	rm -rf .venv .venv-device .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv-device/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	@echo "installing the device part into .venv-device (about 400 MB)"
	$(PYTHON) -m venv --clear .venv-device
	.venv-device/bin/pip install --quiet --disable-pip-version-check -e '.[cpu]'
	touch $@

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	@echo "installing everything, PyTorch included, into .venv (about 7 GB, some minutes)"
	$(PYTHON) -m venv --clear .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -e '.[cpu,dev]'
	touch $@
