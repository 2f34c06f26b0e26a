# Everything a newcomer needs: `make demo` and `make test`. Each makes the virtual environment first.
# Another Python or place: make test PYTHON=python3.12 VENV=.venv312

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV ?= .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
ARGS ?=
# The seed of a run that is to be seen again.
SEED ?=
JSON ?= .payonce/smoke.json
# Parallel test processes: one for each core, at most four (they share one PostgreSQL).
JOBS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); echo $$((n < 4 ? n : 4)))
# BUDGET=minutes bounds every target of the proof; each has a default of its own. MINUTES is torture's other name for it.
MINUTES ?= $(or $(BUDGET),5)
WITHIN = $(if $(BUDGET),--budget $(BUDGET))
# What each part of `make proof` gets of its BUDGET (120 by default).
SHARE = $(shell echo $$(( ($(or $(BUDGET),120) + 11) / 12 )))
SCHEMA := docs/openapi.yaml

.PHONY: help venv test check format demo smoke judges bench proof crash interleave torture saboteurs mutants model storm fuzz wheel schema pins clean

help: ## show what can be made
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

venv: $(STAMP) ## make the virtual environment (instant when nothing changed)
	@:

$(STAMP): pyproject.toml requirements/dev.txt requirements/dev-py312.txt requirements/install.sh
	@requirements/install.sh "$(VENV)" "$(PYTHON)"
	@touch $@

test: $(STAMP) ## run the tests on the checkout's own PostgreSQL and Redis (ARGS="-k settle" for some)
	@$(RUN) -m pytest -q -n $(JOBS) -m "not packaging and not smoke and not judges and not torture" $(ARGS)

check: $(STAMP) ## lint, format, types, layers, missing migrations, API description
	@$(RUN) -m config.check

format: $(STAMP) ## format the code and sort the imports
	@$(RUN) -m ruff check --fix --quiet . && $(RUN) -m ruff format --quiet .

demo: $(STAMP) ## play the whole story on screen and keep serving until Ctrl-C
	@exec $(RUN) -m config.demo $(ARGS)

smoke: $(STAMP) ## play the same story and exit; the status says whether every order was paid once
	@mkdir -p "$(dir $(JSON))" && exec $(RUN) -m config.demo --smoke --json "$(JSON)" $(ARGS)

judges: $(STAMP) ## let SDKs that none of us wrote judge our channels, in environments of their own
	@$(RUN) -m pytest -q -m judges tests/judges $(ARGS)

bench: $(STAMP) ## measure each path beside its floor
	@exec $(RUN) -m benchmarks $(ARGS)

crash: $(STAMP) ## kill a process at every boundary of whole payments; each must recover (ARGS="--sample 100")
	@exec $(RUN) -m torture.crash $(WITHIN) $(ARGS)

interleave: $(STAMP) ## search the schedules of operations that race on one order (ARGS="--pair pay-pay")
	@exec $(RUN) -m torture.interleave $(WITHIN) $(ARGS)

torture: $(STAMP) ## kill, pause, cut and flood real processes under buyers and an attacker (MINUTES=5 SEED=7 REPLAY=FILE)
	@exec $(RUN) -m torture.run --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(REPLAY),--replay "$(REPLAY)") $(ARGS)

saboteurs: $(STAMP) ## break payonce on purpose; each broken build must be caught (ARGS="--sample 3 --seed 1", BUDGET= minutes)
	@exec $(RUN) -m torture.saboteurs $(WITHIN) $(ARGS)

mutants: $(STAMP) ## change the money modules a little, many times; some test must fail each time (ARGS="--module payments/policy.py")
	@exec $(RUN) -m torture.mutants $(WITHIN) $(ARGS)

model: $(STAMP) ## play chance-drawn stories for BUDGET minutes against every invariant (SEED=7)
	@exec $(RUN) -m tests.model --minutes $(or $(BUDGET),10) $(if $(SEED),--seed $(SEED)) $(ARGS)

storm: $(STAMP) ## play ORDERS=1000 faulted orders, many at once, on a virtual clock (MODE=no-cache SEED=7 ARGS="--jobs 2")
	@exec $(RUN) -m tests.model.storms $(if $(ORDERS),--orders $(ORDERS)) $(WITHIN) $(if $(SEED),--seed $(SEED)) $(if $(MODE),--mode $(MODE)) $(ARGS)

fuzz: $(STAMP) ## fuzz the live API and its notifications for BUDGET minutes (SEED=7 for one round again)
	@PAYONCE_FUZZ_MINUTES=$(or $(BUDGET),5) PAYONCE_FUZZ_SEED=$(SEED) $(RUN) -m pytest -q -s --timeout 0 tests/fuzz $(ARGS)

proof: $(STAMP) ## the long run: every attack in turn, within BUDGET minutes (120); ends with what failed
	@failed=; for part in interleave crash torture "torture ARGS=--mode=no-cache" "torture ARGS=--mode=two-beats" "torture ARGS=--mode=real-channels" model "storm MODE=plain" "storm MODE=no-cache" "storm MODE=two-beats" fuzz saboteurs; do \
	    echo "=== $$part"; $(MAKE) $$part BUDGET=$(SHARE) MINUTES=$(SHARE) || failed="$$failed [$$part]"; done; \
	    echo "failed:$${failed:- none}"; test -z "$$failed"

schema: $(STAMP) ## write the API description
	@$(RUN) manage.py spectacular --file $(SCHEMA) --validate

wheel: $(STAMP) ## build the wheel into dist/
	@$(RUN) -m build --wheel --no-isolation --outdir dist . >/dev/null && ls dist/*.whl

pins: $(STAMP) ## resolve and pin this environment's requirements anew
	@requirements/pin.sh "$(VENV)" "$(PYTHON)"

clean: ## remove what was built; servers' data and secrets stay
	@rm -rf dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis htmlcov .coverage .coverage.*
