# Two commands do everything: `make up` and `make test`. Each first installs what is missing.

.DEFAULT_GOAL := help
# Landed migrations are not linted: they are never edited.
new_migrations := $(filter-out $(foreach n,01 02 03 04 05 06 07 08 09 10 11 12 13,migrations/00$(n).%),$(wildcard migrations/*.sql))
.PHONY: help up test test-fast test-versions lint rehearse bench proof migrate psql clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 22

# exec: make's own child is the server, so a signal to either stops both. setpriv: if make itself is
# killed, the server receives SIGTERM.
up: ## start everything in the foreground on http://127.0.0.1:8000; Ctrl-C stops it
	@bin/bootstrap
	@exec setpriv --pdeathsig TERM .venv/bin/flashsale up

test: ## run the whole suite on all cores; pass options to pytest with ARGS='-k holds'
	@bin/bootstrap test
	@exec .venv/bin/python -m pytest -n auto --dist worksteal $(ARGS)

test-fast: ## run the rules in SQL and the units, in less than a minute
	@bin/bootstrap test
	@exec .venv/bin/python -m pytest -n auto --dist worksteal -m 'not slow' tests/sql tests/operators tests/schema $(ARGS)

# Each version that could be had; the tests of tests/versions are part of `make test`.
test-versions: ## run the rules in SQL on PostgreSQL 16, 17 and 18; adds them if they can be had
	@bin/bootstrap servers
	@for server in .venv/servers/postgresql-*; do \
	  [ -e "$$server" ] || continue; version=$${server#*postgresql-}; \
	  .venv/bin/python -m pytest -n auto --dist worksteal -m 'not slow' --postgresql "$${version%%-*}" \
	    tests/sql tests/operators tests/schema tests/database tests/cli tests/doctor $(ARGS) || exit; \
	done

lint: ## check style, types and new migrations
	@bin/bootstrap lint
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy
	@$(if $(new_migrations),.venv/bin/squawk $(new_migrations))

rehearse: ## sell a throwaway product of the running server to simulated buyers and check the result
	@bin/bootstrap rehearse
	@exec .venv/bin/flashsale rehearse $(ARGS)

bench: ## measure everything, an hour, into bench/results/; QUICK=1 takes 5 minutes; ARGS=growth one part
	@bin/bootstrap bench
	@exec .venv/bin/python -m bench $(if $(QUICK),--quick) $(ARGS)

proof: ## try to break every promise, in about an hour, into proof/RESULTS.md; ARGS=soak one; SEED=n repeats
	@bin/bootstrap test
	@exec .venv/bin/python -m proof $(if $(SEED),--seed $(SEED)) $(ARGS)

migrate: ## bring FLASHSALE_DATABASE_URL, or else the running private cluster, up to date
	@bin/bootstrap
	@exec .venv/bin/flashsale migrate

psql: ## open psql on FLASHSALE_DATABASE_URL, or else on the running private cluster
	@bin/bootstrap
	@exec .venv/bin/flashsale psql

clean: ## remove the private cluster with all its data, and the virtual environment
	@if [ -x .venv/bin/flashsale ]; then .venv/bin/flashsale destroy; fi
	@rm -rf .venv build *.egg-info
