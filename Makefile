# Two commands set up everything they need in a virtual environment of their own; python3 and make are enough.
#
#   make demo    what a device installs (no PyTorch): screens the examples in runtime/examples
#   make demo-page   the same, as a page to drop pictures on (docs/serve.md)
#   make test    everything: formatting, lint, types, all tests
#
# make quick      the fast tests only
# make faults     the fault table: real cameras, servers and files that fail in 26 ways, with measured figures
# make mutants    changes modules a little, one place at a time, and counts what their tests notice (CONTRIBUTING.md)
# make browser-demo   builds build/browser-demo: a page that screens pictures in the browser, without a server
# make gpu        everything that needs CUDA, one table; elsewhere each step says why it was skipped
# make docs       the documentation site, in site/; make docs-output writes what the commands print now into the pages
# make builtin    trains, evaluates and exports the models inside the package from the data folder DATA, whose sources'
#                 families stand in FAMILIES (source, label, family, year); quick looks are learned on UNSEEN, a folder of
#                 labelled pictures that are in no training split

PYTHON ?= python3
DATA ?= dataset
FAMILIES ?= $(DATA)/../families.csv
RECIPE = --model asrnet-lite --blocks 11 --activations 3 10 --correlations 5 \
	--windows 5 --views 4 --plain-weight 0.6 --per-source 80 24 --families $(FAMILIES)
RECIPE_asrnet-lite = $(RECIPE) --scales 2 --ridge 0.003
RECIPE_asrnet-lite-tiny = $(RECIPE) --crop-size 160 --ridge 0.001
PROTOCOLS = leave-one-family-out leave-one-photo-kind-out leave-one-family-and-photo-kind-out leave-later-generators-out

.PHONY: browser-demo demo demo-page docs docs-output screenshots test quick faults gpu mutants equipment lint builtin clean

demo: .venv-device/ready
	.venv-device/bin/asr-screen runtime/examples

demo-page: .venv-device/ready
	.venv-device/bin/pip install --quiet --disable-pip-version-check -e '.[cpu,provenance,serve]'
	.venv-device/bin/asr-serve --open

# The pictures of the documentation.
screenshots: .venv/ready
	.venv/bin/python docs/make_screenshots.py

browser-demo: .venv-device/ready
	.venv-device/bin/python runtime/embed/browser/build.py build/browser-demo

# Tests whose limits of time or age are near to what they measure have the machine to themselves; the others run two at a time. A worker that
# crashes ends the run: pytest-xdist would wait for ever for the tests that it had taken. Files keep their order: by itself
# it begins with those of many tests, and the few long tests of privacy came last, alone.
TIMED = tests/bench/test_batching.py tests/bench/test_folder.py \
	$(patsubst %,tests/faults/test_%.py,cameras load network paths serve wall) \
	tests/runtime/cameras tests/runtime/isolation tests/runtime/inference/test_deadline.py \
	tests/runtime/reports/test_wall.py tests/runtime/serve/test_limits.py tests/runtime/test_redact.py
test:
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=line lint equipment
	.venv/bin/python -m compileall -q bench export models runtime/asr_runtime train  # many tests start commands
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 $(TIMED:%=--ignore=%)
	.venv/bin/python -m pytest $(TIMED)

quick: .venv/ready
	.venv/bin/python -m pytest -m "not heavy"

faults: .venv/ready equipment
	.venv/bin/python -m pytest tests/faults

# MUTANTS="ridge smoothing --sample 50" runs some modules, or fewer mutants.
mutants: .venv/ready
	.venv/bin/pip install --quiet --disable-pip-version-check -e '.[mutants]'
	.venv/bin/python tests/mutants.py $(MUTANTS)

# On a machine with an NVIDIA driver, with onnxruntime-gpu in an environment of its own.
ifneq ($(shell command -v nvidia-smi),)
GPU_VENV = .venv-gpu
else
GPU_VENV = .venv
endif
gpu: $(GPU_VENV)/ready
	$(GPU_VENV)/bin/python -m asr_bench.gpu -o bench/results

# Debian packages with the cameras, brokers and codecs of the tests. A test whose equipment is missing is skipped and
# says what it needs.
EQUIPMENT = $(strip $(shell sed 's/\#.*//' tests/faults/debian-packages.txt))
equipment:
	@if dpkg -s $(EQUIPMENT) >/dev/null 2>&1; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		echo "installing test equipment: $(EQUIPMENT)"; \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends $(EQUIPMENT) >/dev/null; \
	else echo "some tests will be skipped; for all of them, as root: apt-get install $(EQUIPMENT)"; fi

lint: .venv/ready
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet
	@echo "open site/index.html"

docs-output: .venv/ready
	UPDATE_DOCS=1 .venv/bin/python -m pytest -q tests/test_docs.py

builtin: builtin-asrnet-lite builtin-asrnet-lite-tiny

builtin-%: .venv/ready
	rm -rf build/$*/run-*
	.venv/bin/asr-train $(RECIPE_$*) --data $(DATA) --runs build/$*
	for protocol in $(PROTOCOLS); do \
		.venv/bin/asr-train $(RECIPE_$*) --data $(DATA) --runs build/$* --protocol $$protocol >/dev/null || exit 1; done
	.venv/bin/asr-export build/$*/run-*/checkpoint_asrnet-lite.pth -o build/$*/$*.onnx
	.venv/bin/asr-evaluate --model build/$*/$*.onnx --data $(DATA) --families $(FAMILIES) --look auto --robustness 50 \
		--report build/$*/evaluation
	.venv/bin/asr-export build/$*/run-*/checkpoint_asrnet-lite.pth -o runtime/asr_runtime/builtin/$*.onnx \
		--card models/cards/$*.md --metrics seen-generators=build/$*/evaluation/metrics.json \
		$(foreach protocol,$(PROTOCOLS),--metrics $(protocol)=build/$*/$(protocol).json)
	cp build/$*/run-*/summary.json models/cards/$*.json
	$(if $(UNSEEN),.venv/bin/asr-export runtime/asr_runtime/builtin/$*.onnx --quick-look $(UNSEEN) \
		-o runtime/asr_runtime/builtin/$*.onnx)

clean:
	rm -rf .venv .venv-device .venv-gpu .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv-device/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	@echo "installing the device part into .venv-device (about 400 MB)"
	$(PYTHON) -m venv --clear .venv-device
	.venv-device/bin/pip install --quiet --disable-pip-version-check -e '.[cpu]'
	touch $@

.venv-gpu/ready: pyproject.toml
	$(PYTHON) -m venv --clear .venv-gpu
	.venv-gpu/bin/pip install --quiet --disable-pip-version-check -e '.[gpu,bench,train]'
	touch $@

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	@echo "installing everything, PyTorch included, into .venv (about 7 GB, some minutes)"
	$(PYTHON) -m venv --clear .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -e '.[cpu,dev]'
	touch $@
