# Everything runs through the set-up, which does only what is missing. See CONTRIBUTING.md.
PYTHON3 := $(firstword $(wildcard /usr/bin/python3) python3)
PYTHON := .venv/bin/python
# PFs of the lab's shell and how they are put, like: make lab-shell LAB="--pfs 2 --wire"
LAB ?=
FUZZ ?=

# Compiled code is kept, whatever the caller's environment says: the lab's guest cannot write it.
export PYTHONDONTWRITEBYTECODE :=

PYTEST_OPTIONS := -ra --strict-markers --strict-config

.PHONY: help setup demo test test-cluster lint fuzz reference bench launcher-arm64 lab-shell clean

help: ## show this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile

setup: ## install what is missing: packages, kernel, .venv, build/sriov
	@$(PYTHON3) -m setup

demo: setup ## show the life of pods on an emulated SR-IOV NIC
	@$(PYTHON) -m tests.lab --hugepages 448 --timeout 600 -- .venv/bin/python -m demo config/sample.yaml

test: lint ## lint, types and the whole test suite
	@for program in multus kubelet-managers; do $(PYTHON3) -m setup.cluster $$program || \
		echo "setup: GOING ON WITHOUT $$program: its tests are skipped" >&2; done
	@$(PYTHON3) -m setup.qemu
	$(PYTHON) -m pytest
	@echo "Not run here: pods of a real kubelet, and the image as the agent. That is make test-cluster."

test-cluster: setup ## the image, containerd, Multus and a Kubernetes node in the lab; KUBELET=FILE and such name programs
	@$(PYTHON3) -m setup.cluster
	@$(PYTHON3) -m setup.guest_root
	$(PYTHON) -m pytest -o addopts="$(PYTEST_OPTIONS)" --durations=0 tests/cluster
	$(PYTHON) -m tests.lab --containerd --control-plane -- $(PYTHON) -m bench.pods

lint: setup ## style, types and layers
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports

fuzz: setup ## a million broken inputs for each reader (FUZZ="--share PERCENT TARGET" for less), and a minute of broken replies for the launcher
	@$(PYTHON) -c "import atheris" 2>/dev/null || $(PYTHON) -m pip install -q "atheris>=3,<4"
	$(PYTHON) -m tests.fuzz $(FUZZ)
	@mkdir -p build
	@if command -v clang >/dev/null; then \
		clang -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -DLIBFUZZER -o build/fuzz-launcher cni/launcher/fuzz.c && \
		build/fuzz-launcher -max_total_time=60; \
	else \
		gcc -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -Wall -Wextra -Werror -o build/fuzz-launcher cni/launcher/fuzz.c && \
		build/fuzz-launcher 2000000 $$(date +%s); \
	fi

reference: setup ## write what is generated from the config file's keys: docs/config.md, config/schema.json
	@$(PYTHON) -m setup.reference

bench: setup ## figures from the lab; PEER_CNI=FILE measures another plugin too
	@$(PYTHON) -m tests.lab --pfs 2 --hugepages 448 --timeout 3600 -- env PEER_CNI=$(PEER_CNI) .venv/bin/python -m bench

launcher-arm64: ## build the launcher for arm64, by zig or a musl cross compiler
	@$(PYTHON3) -m setup.launcher arm64

lab-shell: setup ## a shell in the lab
	@$(PYTHON) -m tests.lab --interactive --timeout 86400 $(LAB) -- bash -i

clean: ## remove what the set-up made in the checkout; the cache stays
	rm -rf .venv build .*_cache .hypothesis
