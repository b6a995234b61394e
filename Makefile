# Everything a developer does here, by name. `make` alone lists it.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help setup gen run restart tour phone trace test test-fast test-pooler lint types check bench proof lock sbom licences audit job backup wal restore restore-drill manifests migration clean

BIN := .venv/bin
RUN := PYTHONPATH=gen $(BIN)/python
# As many workers as processors, but no more than the databases of one small machine can bear.
PYTEST := $(RUN) -m pytest -n auto --maxprocesses=4 --dist loadgroup
# What touches the database by ways of its own: the others go the same ways.
POOLED := $(addprefix tests/kit/test_,$(addsuffix .py,db relay events errors faults pipeline resources jobs telemetry)) \
	tests/fault/test_pool_storm.py
PYTHON_CODE := kit services gateway deploy benchmarks tools
# With their folders, whose time changes when a file is taken away.
PROTOS := $(shell find protos -name '*.proto' -o -type d -not -name __pycache__ 2>/dev/null)
COMPILE := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --no-annotate --no-header

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

setup: ## install the locked packages into .venv (PYTHON=/path/to/python3 to choose one)
	@PYTHON='$(PYTHON)' sh deploy/local/setup.sh

gen: gen/descriptors.binpb ## make the Python stubs from protos/

gen/descriptors.binpb: $(PROTOS) protos/generate.py requirements-dev.lock | setup
	@echo 'Making the stubs in gen/'
	@made=$$($(RUN) protos/generate.py 2>&1) || { echo "$$made" >&2; exit 1; }
	@touch $@

run: gen ## start everything on this machine and stay until Ctrl-C (REPLICAS=2: two processes of each service)
	@PYTHONPATH=gen exec $(BIN)/python -m deploy.local run

restart: gen ## replace what runs without failing a request (WHAT=content, gateway; default all); needs REPLICAS=2
	@$(RUN) -m deploy.local restart $(or $(WHAT),all)

tour: gen ## walk through the main job, starting the stack if it does not run
	@PYTHONPATH=gen exec $(BIN)/python -m deploy.tour

phone: gen ## a day in the life of an offline phone, on two devices that sync in the wrong order
	@PYTHONPATH=gen exec $(BIN)/python -m deploy.phone

trace: gen ## print a trace as a tree (ID=...), or list the recent ones
	@$(RUN) -m deploy.local trace '$(ID)'

test: gen ## run all tests
	@$(PYTEST)

test-fast: gen ## run the tests that take no whole stack and no second
	@$(PYTEST) -m 'not slow'

lint: gen ## check style, who imports whom, and what migrations hold up
	@$(RUN) -m ruff check .
	@PYTHONPATH=gen $(BIN)/lint-imports
	@$(RUN) -m tools.lint_migrations

types: gen ## check types
	@$(RUN) -m mypy --strict $(PYTHON_CODE)

test-pooler: gen ## run the tests of the data layer through PgBouncer, six server connections for each service
	@PGBOUNCER=6 $(RUN) -m pytest $(POOLED)

check: gen lint types test ## everything that must pass before a change goes in

bench: gen ## measure the running stack
	@$(RUN) -m benchmarks
	@$(RUN) -m benchmarks.lists
	@$(RUN) -m benchmarks.searches
	@$(RUN) -m benchmarks.reviews
	@$(RUN) -m benchmarks.syncs
	@$(RUN) -m benchmarks.tracing

proof: gen ## run all tests with many more random cases
	@HYPOTHESIS_PROFILE=proof $(PYTEST) --timeout=3600

lock: setup ## resolve requirements*.in into the lock files
	@$(COMPILE) -o requirements.lock requirements.in
	@$(COMPILE) -o requirements-dev.lock requirements-dev.in

sbom: setup ## list what the services are made of as CycloneDX, in sbom.json
	@$(BIN)/python -m tools.list_packages sbom > sbom.json
	@echo 'sbom.json is written'

licences: setup ## list the packages of the services and what they are licensed under
	@$(BIN)/python -m tools.list_packages licences

audit: setup ## ask whether vulnerabilities of the locked packages are known
	@$(BIN)/python -m tools.list_packages audit

job: gen ## run a job of a service (SERVICE=content NAME=backfill_chunks; DO=list|pause|abort)
	@test -n '$(SERVICE)' || { echo 'Say which: make job SERVICE=content NAME=backfill_chunks' >&2; exit 1; }
	@PYTHONPATH=gen exec $(BIN)/python -m deploy.local job $(or $(DO),$(if $(NAME),run,list)) '$(SERVICE)' $(NAME)

backup: gen ## back up the database and the uploaded files; old backups go after a week
	@$(RUN) -m deploy.backups create

wal: gen ## archive every change of the running stack within seconds, and stay until Ctrl-C
	@PYTHONPATH=gen exec $(BIN)/python -m deploy.backups wal

restore: gen ## bring back a backup (BACKUP=name, default the newest) or a moment (AT=2026-11-22T21:00:00Z); what is there is kept
	@$(RUN) -m deploy.backups restore $(if $(AT),--at $(AT),$(or $(BACKUP),latest))

restore-drill: gen ## restore the newest backup, or a moment (AT=...), on a server of its own and check all of it
	@$(RUN) -m deploy.backups drill $(if $(AT),--at $(AT),$(or $(BACKUP),latest))

manifests: gen ## make the Kubernetes manifests and the dashboards, in gen/
	@$(RUN) -m deploy.kubernetes
	@$(RUN) -m deploy.telemetry.dashboards

migration: gen ## begin a migration (SERVICE=content NAME=add_subtitle)
	@test -n '$(SERVICE)' -a -n '$(NAME)' || { echo 'Say which: make migration SERVICE=content NAME=add_subtitle' >&2; exit 1; }
	@$(RUN) -m deploy.local migration '$(SERVICE)' '$(NAME)'

clean: ## remove what tools made; keeps .venv and the data in .run
	@rm -rf gen .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find $(PYTHON_CODE) protos tests -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
