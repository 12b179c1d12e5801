# What a developer of shed types.  `make help` lists it.
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
CODE := src tests benchmarks examples packaging scripts

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1 — /p' Makefile

demo: setup ## from packages to a command run inside a shed, and back
	@$(PYTHON) scripts/demo.py

images: setup ## make the images base, extensions and full
	@$(PYTHON) scripts/images.py

# A file for each processor and one more, for tests wait much; what took longest is shown at the end.
PYTEST := $(PYTHON) -m pytest -n $(shell expr $$(nproc) + 1) --dist loadfile --no-loadscope-reorder --durations 15

test: setup-tests lint ## everything: unit, integration, real VM boots
	@cat .cache/tests/took 2>/dev/null || echo "This boots VMs and takes a while.  The fast half is: make check"
	@begin=$$(date +%s); $(PYTEST) && mkdir -p .cache/tests && \
	  echo "All tests took $$((($$(date +%s) - begin + 59) / 60)) minutes here the last time.  The fast half is: make check" >.cache/tests/took

check: setup-tests lint ## the fast half, about three minutes on two processors: style, types, most unit tests
	@$(PYTEST) -q -m "not slow and not vm" tests/unit

lint: setup ## style and types
	@.venv/bin/ruff check $(CODE)
	@.venv/bin/ruff format --check $(CODE)
	@.venv/bin/mypy

build-tools: setup ## the image of mkfs.erofs and its like, for podman or docker
	@images/build-tools/build

bench: setup-tests ## measure, side by side with the tools shed replaces
	@PYTHONPATH=tests $(PYTHON) -m benchmarks

setup: ## install what `shed` needs (uses sudo for missing packages only)
	@scripts/setup

setup-tests: ## install what the tests and benchmarks need too
	@scripts/setup --tests

# The same commit gives the same bytes.
wheel deb: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct)

wheel: setup ## a wheel, in dist/
	@$(PYTHON) -m hatchling build -t wheel -d dist

deb: setup-tests ## a Debian package, in dist/
	@$(PYTHON) packaging/build_deb.py dist

sdk: setup ## write src/shed/client/sync anew, from src/shed/client/aio
	@$(PYTHON) scripts/sdk.py

reference: setup ## write docs/reference/cli.md, api.md and errors.md anew
	@$(PYTHON) scripts/cli_reference.py
	@$(PYTHON) scripts/api_reference.py
	@$(PYTHON) scripts/error_reference.py

recording: setup ## record docs/assets/quick-start by a real run; takes the image base, which `make demo` makes
	@$(PYTHON) scripts/recording.py

docs: export NO_MKDOCS_2_WARNING := 1
docs: setup ## the documentation as a site, in build/docs
	@$(PYTHON) -m mkdocs build --strict --quiet
	@echo "build/docs/index.html; with search: $(PYTHON) -m http.server -d build/docs"

# For the oldest Python that is promised: Debian 12's.
lock: ## renew the two lock files from pyproject.toml
	@uv pip compile -q --python-version 3.11.2 --generate-hashes --no-emit-find-links --custom-compile-command "make lock" pyproject.toml -o requirements.lock
	@uv pip compile -q --python-version 3.11.2 --generate-hashes --no-emit-find-links --custom-compile-command "make lock" --group dev pyproject.toml -o requirements-dev.lock

.PHONY: sdk help demo images test lint bench setup setup-tests wheel deb build-tools reference recording docs lock
