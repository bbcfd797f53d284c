# All that a checkout needs on a machine with Python >= 3.10, git and make.
# Environments are made once and again only when pyproject.toml changes (the stamp files say so).

PYTHON ?= python3
# What to pass on to pytest or a benchmark, e.g. make test ARGS="-k invite -x"
ARGS ?=
# How many processes run tests side by side. With 0 pytest runs them itself, and shows with -s what
# they print.
WORKERS ?= 2
# Where the browser tests leave their pictures, and the traces of those that fail.
export QMT_TEST_SCREENSHOTS ?= build/screenshots

VENV := .venv
LOWEST := .venv-lowest
CLIENTS := .venv-clients
CLIENTS_JUPYTER_AI_2 := .venv-clients-jupyter-ai-2
GATEWAY := .venv-gateway
RELAY := .relay
HUB_PROXY := .hub-proxy
# The one that speaks with the transport that pyproject.toml names.
RELAY_VERSION := 1.4.1
# What a JupyterHub puts in front of itself and its services.
HUB_PROXY_VERSION := 5.3.0
# The lowest versions are claimed for the oldest Python, so that one is tried first. Running it
# tells more than finding it: a version switcher may leave a name on PATH that leads nowhere.
LOWEST_PYTHON ?= $(firstword $(foreach python,python3.10 python3.11 python3.12 $(PYTHON),\
	$(shell $(python) -c 'print("$(python)")' 2>/dev/null)))
# Tests of one file share what takes long to start, and so do neighbours in tests/browser. A test
# that ends its process ends the run: it would be begun again and again.
PYTEST := -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder \
	--max-worker-restart 0

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-lowest lint docs screenshots binder bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.host ## share a small model between two processes and chat with it
	@$(VENV)/bin/qmt demo $(ARGS)

test: lint $(CLIENTS)/.installed $(CLIENTS_JUPYTER_AI_2)/.installed $(RELAY)/.made $(HUB_PROXY)/.made ## lint, then the whole suite
	$(VENV)/bin/python $(PYTEST) $(ARGS)

test-lowest: $(LOWEST)/.installed $(RELAY)/.made $(HUB_PROXY)/.made ## the suite on the lowest versions that pyproject.toml claims
	$(LOWEST)/bin/python $(PYTEST) $(ARGS)

lint: $(VENV)/.dev ## ruff and mypy
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

docs: $(VENV)/.dev ## the pages of docs/ as a site in build/site; a broken link is an error
	$(VENV)/bin/python -m sphinx --builder html --nitpicky --fail-on-warning --keep-going --quiet \
		docs build/site
	@echo "The site is in build/site; open build/site/index.html."

screenshots: $(VENV)/.dev ## the pictures of docs/images, anew, from a real JupyterLab in Chromium
	$(VENV)/bin/python docs/screenshots.py $(ARGS)

binder: $(VENV)/.host ## what Binder would build, in a fresh home and environment, and its demo there
	@PYTHON="$(PYTHON)" tests/notebooks/image.sh

bench: $(VENV)/.dev $(GATEWAY)/.installed ## every benchmark, one after the other
	@for script in benchmarks/*.py; do \
		test -e "$$script" || { echo "benchmarks/ holds no script."; exit 1; }; \
		echo "== $$script"; $(VENV)/bin/python "$$script" $(ARGS) || exit; \
	done

clean: ## remove the environments and everything else that can be made again
	rm -rf $(VENV) $(LOWEST) $(CLIENTS) $(CLIENTS_JUPYTER_AI_2) $(GATEWAY) $(RELAY) $(HUB_PROXY) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The relay server that the network tests put between two of their networks. They are skipped, and
# say so, where it cannot be built; nothing else needs it.
$(RELAY)/.made:
	@if command -v cargo >/dev/null; then \
		echo "Building the relay server iroh-relay $(RELAY_VERSION) for the tests, once; it takes minutes."; \
		cargo install --quiet --locked iroh-relay --version $(RELAY_VERSION) --features server \
			--root $(RELAY) && touch $@ || echo "It cannot be built; tests with a relay are skipped."; \
	else \
		echo "There is no cargo to build a relay server with; tests with a relay are skipped."; \
	fi

# The proxy of the JupyterHub in tests/hub, which are skipped, and say so, where npm is not there.
$(HUB_PROXY)/.made:
	@if command -v npm >/dev/null; then \
		echo "Installing the proxy of a JupyterHub into $(HUB_PROXY), once."; \
		npm install --silent --no-audit --no-fund --prefix $(HUB_PROXY) \
			configurable-http-proxy@$(HUB_PROXY_VERSION) >/dev/null \
			&& touch $@ || echo "It cannot be installed; tests with a JupyterHub are skipped."; \
	else \
		echo "There is no npm to install a JupyterHub's proxy with; tests with one are skipped."; \
	fi

# $(call make-environment,PYTHON,FOLDER). pip is renewed because groups need pip 25.1.
define make-environment
@$(1) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	echo "qmt-jupyter needs Python 3.10 or newer, and $(1) is not that." \
		"Install one, or name it: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
@$(1) -c 'import venv; from ensurepip import bootstrap' 2>/dev/null || { \
	echo "$(1) cannot make virtual environments." \
		"On Debian or Ubuntu: apt install python3-venv"; exit 1; }
rm -rf $(2)
$(1) -m venv $(2)
$(2)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
endef

# $(call need-openmp,FOLDER). The engine's wheel takes OpenMP's runtime from the system, and a
# bare container has none.
define need-openmp
@$(1)/bin/python -c 'import xllamacpp' 2>&1 | grep -q libgomp || exit 0; \
	if test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
		echo "The engine needs the system library libgomp: installing libgomp1."; \
		apt-get -qq update && \
			DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes libgomp1 >/dev/null; \
	else \
		echo "The engine needs the system library libgomp." \
			"On Debian or Ubuntu: apt install libgomp1"; exit 1; \
	fi
endef

$(VENV)/.made:
	$(call make-environment,$(PYTHON),$(VENV))
	@touch $@

$(VENV)/.host: $(VENV)/.made pyproject.toml
	@echo "Installing qmt-jupyter and its engine into $(VENV), once."
	$(VENV)/bin/python -m pip install --quiet --editable '.[host,upstream]'
	$(call need-openmp,$(VENV))
	@touch $@

$(VENV)/.dev: $(VENV)/.host
	$(VENV)/bin/python -m pip install --quiet --editable '.[host,upstream,hub]' --group dev
	@touch $@

# uv because pip has no way of asking for the lowest versions. It is told to trust the
# certificates that the system, and so pip, trusts.
$(LOWEST)/.installed: pyproject.toml
	$(call make-environment,$(LOWEST_PYTHON),$(LOWEST))
	$(LOWEST)/bin/python -m pip install --quiet uv
	$(LOWEST)/bin/uv pip install --quiet --system-certs --python $(LOWEST) \
		--resolution lowest-direct --editable '.[host,upstream,hub]' --group test
	$(call need-openmp,$(LOWEST))
	@touch $@

# Other people's programs that this project is tested with or measured against, each by the group
# of dependencies that is named like its folder. Wheels alone, so that nothing is compiled here.
$(CLIENTS)/.installed $(CLIENTS_JUPYTER_AI_2)/.installed $(GATEWAY)/.installed: \
		%/.installed: pyproject.toml
	$(call make-environment,$(PYTHON),$*)
	$*/bin/python -m pip install --quiet uv
	$*/bin/uv pip install --quiet --system-certs --python $* --only-binary :all: \
		--group $(patsubst .venv-%,%,$*)
	@touch $@
