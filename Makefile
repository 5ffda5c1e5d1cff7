# Two commands on a fresh machine: `make quickstart` and `make test`.
# PIP_FLAGS is for your own needs, e.g. a CPU-only PyTorch on Linux:
#   make quickstart PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PYTHON ?= python3
PIP_FLAGS ?=
# Processes that test, with a thread and 2 GB each: as many as there are cores, e.g. make test WORKERS=8.
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv pip install --quiet
# Images set it; then each process would compile the libraries anew, as uv installs them uncompiled.
export PYTHONDONTWRITEBYTECODE :=
APT_PACKAGES := chromium qemu-user-static mmdebstrap arch-test openssh-server openssh-client libusb-1.0-0 libvulkan1 \
  slurmctld slurmd slurm-client munge default-jdk-headless libandroid-json-java

.PHONY: quickstart test test-matrix test-runtimes test-lowest lint format bench peers schema lock clean

quickstart: $(VENV)/.installed
	$(BIN)/edgeres run quickstart

test: $(VENV)/.installed-dev $(VENV)-tflite-runtime/.installed $(VENV)-mlflow/.installed $(VENV)-zoo/.installed \
    $(VENV)-runtimes/.installed $(VENV)-ort-web/.installed $(VENV)-kotlin/.installed debian-packages
	EDGERES_RUNTIMES=$(abspath $(VENV)-runtimes) EDGERES_ORT_WEB=$(abspath $(VENV)-ort-web)/package.tgz \
	  EDGERES_KOTLIN=$(abspath $(VENV)-kotlin)/package \
	  OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# All of what `make test` has by turns (tests/turns.py), and 26 networks of torchvision's and timm's own code to every
# int8 file: hours on two cores.
test-matrix: $(VENV)/.installed-dev $(VENV)-zoo/.installed
	EDGERES_MATRIX=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -m turns -n $(WORKERS) --dist load -rA

# Qualcomm's and Rockchip's runtimes have licences of their own, and Rockchip's takes 5 GB: who types this accepts both
# (edgeres list runtimes; docs/runtimes.md says where they are). They go where `make test`'s are, which then uses them, too.
test-runtimes: $(VENV)/.installed-dev $(VENV)-runtimes/.installed debian-packages
	EDGERES_RUNTIMES=$(abspath $(VENV)-runtimes) $(BIN)/edgeres runtimes install qnn-htp rk3588 --accept-licence
	EDGERES_RUNTIMES=$(abspath $(VENV)-runtimes) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/runtimes \
	  tests/targets/test_compiled.py tests/e2e/test_compiled.py tests/contracts -rs

# The lowest versions that pyproject.toml declares; LOWEST="--cpu --find-links FOLDER" for a CPU's torch.
test-lowest: $(VENV)/bin/uv
	$(BIN)/python tests/reliability/lowest_versions.py --folder build/lowest $(LOWEST)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/int8_speedup.py

# Our int8 files beside other tools': make peers DATA=CIFAR10 WEIGHTS=FOLDER (akamaster's resnet20).
peers: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/peers.py --data $(DATA) --weights $(WEIGHTS) --network resnet20

schema: $(VENV)/.installed
	$(BIN)/edgeres list recipes --schema > recipes/schema.json
	$(BIN)/edgeres list recipes --keys > docs/recipe.md

lock: $(VENV)/bin/uv
	head -3 requirements.lock > requirements.new
	$(BIN)/uv pip compile --quiet pyproject.toml --extra dev -c constraints.txt --generate-hashes \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links >> requirements.new
	mv requirements.new requirements.lock

clean:
	rm -rf $(VENV) $(VENV)-tflite-runtime $(VENV)-mlflow $(VENV)-zoo $(VENV)-runtimes $(VENV)-ort-web $(VENV)-kotlin \
	  runs build dist

# pip, whose settings and PIP_FLAGS say where a build of torch is, brings that; uv, many times faster, the rest.
$(VENV)/bin/uv: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt torch uv
	touch $@

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/uv
	$(UV) --python $(BIN)/python -c constraints.txt -e ".[coreml]"
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/uv
	$(UV) --python $(BIN)/python -c constraints.txt -e ".[dev]"
	touch $@ $(VENV)/.installed

# The runtime that boards have, and Android's tools: both need numpy < 2 and Python <= 3.11. Where they
# don't install, their tests say why they skip.
$(VENV)-tflite-runtime/.installed: | $(VENV)/bin/uv
	$(PYTHON) -m venv $(VENV)-tflite-runtime
	-$(UV) --python $(VENV)-tflite-runtime/bin/python \
	  tflite-runtime==2.14.0 tflite-support==0.4.4 "numpy<2" && touch $@

# The code of torchvision's and timm's networks. A folder, as torchvision's wheel wants the PyTorch that it was
# built for; the networks need none of what it compiled.
$(VENV)-zoo/.installed: | $(VENV)/bin/uv
	-$(UV) --python $(BIN)/python --target $(VENV)-zoo --no-deps \
	  torchvision==0.29.1 timm==1.0.31 huggingface-hub==2.4.0 pyyaml==6.0.4 && touch $@

# The runtimes that files are asked on and that are small and free; where they don't install, their tests skip.
$(VENV)-runtimes/.installed: $(wildcard edgeres/runtimes/locks/*.txt) | $(VENV)/.installed-dev
	-EDGERES_RUNTIMES=$(abspath $(VENV)-runtimes) $(BIN)/edgeres runtimes install tflm openvino ethos-u55-128 && touch $@

# The runtime of the web bundle's page; where npm can't fetch it, npm says why, and that page's test skips.
$(VENV)-ort-web/.installed:
	mkdir -p $(@D)
	-cd $(@D) && npm pack onnxruntime-web@1.30.0 --ignore-scripts --fetch-retries=0 >/dev/null && \
	  mv onnxruntime-web-*.tgz package.tgz && touch .installed

# The compiler for the Android sample's Kotlin; without it, that test skips.
$(VENV)-kotlin/.installed:
	mkdir -p $(@D)
	-cd $(@D) && npm pack kotlin-compiler@2.4.20 --ignore-scripts --fetch-retries=0 >/dev/null && \
	  tar xzf kotlin-compiler-*.tgz && rm kotlin-compiler-*.tgz && touch .installed

# A real MLflow server to track runs to; it pins another protobuf than the converters.
$(VENV)-mlflow/.installed: | $(VENV)/bin/uv
	$(PYTHON) -m venv $(VENV)-mlflow
	-$(UV) --python $(VENV)-mlflow/bin/python mlflow==3.17.2 && touch $@

# What the tests need from Debian: Chromium for the report, libusb for Android's tools, a JDK and org.json for its sample,
# a cluster, the others for an emulated ARM board. Elsewhere those tests say why they skip.
.PHONY: debian-packages
debian-packages:
	@if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && ! dpkg -s $(APT_PACKAGES) >/dev/null 2>&1; then \
	  apt-get -qq update && apt-get -qq install -y --no-install-recommends $(APT_PACKAGES) >/dev/null; \
	fi
