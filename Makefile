# Needs Python >= 3.11 with its venv module, and make. Each target is one command, shown as it runs; bootstrap.py sets
# up the environment it names (.local/venv-…, from the hashed requirement file of that name) when it is not there yet.
# Another Python: make test PYTHON=/path/to/python3

RUN = $(shell command -v python3 || command -v python3.13 || command -v python3.12 || command -v python3.11 || echo python3) -I bootstrap.py
COMPILE = $(RUN) dev uv pip compile --universal --generate-hashes --no-annotate --no-header --python-version 3.11 --quiet $(LOCK_OPTIONS)

.DEFAULT_GOAL := help
.PHONY: help demo test test-unit explore sim chaos bench bench-producer bench-startup bench-scaling bench-latency lint format lock compose-check e2e-docker clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## the whole chain on this machine without Docker; Ctrl-C ends it, DEMO_SECONDS=60 too
	$(RUN) consumer -m demo

test: ## everything that proves it, on real Kafka and real S3 servers (about 13 minutes)
	$(RUN) dev -m pytest -n 3 --dist worksteal

test-unit: ## the tests that start no server (seconds)
	$(RUN) dev -m pytest tests/unit

explore: ## every interleaving of bounded worlds over the real chain; EXPLORE=deep for larger ones
	$(RUN) dev -m tests.exploration

sim: ## the whole consumer in simulated time; SEEDS=100000 for a long run, SEED=n to replay one
	$(RUN) dev -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),10000))

chaos: ## real processes, real Kafka, a real S3 server, every fault; SCENARIO="a b", SUBSET=ci (5 minutes), SEED=n
	$(RUN) dev -m tests.chaos $(if $(SUBSET),--subset $(SUBSET)) $(if $(SEED),--seed $(SEED)) $(SCENARIO)

bench: ## the consumer measured from outside, beside other sinks; writes docs/benchmarks (15 minutes); QUICK=1 (1 minute)
	$(RUN) dev -m $(if $(QUICK),bench.smoke,bench.consumer)

bench-producer: ## the producer measured from outside, beside a stock loop; writes docs/benchmarks (15 minutes); QUICK=1
	$(RUN) dev -m bench.producer $(if $(QUICK),--quick)

bench-startup: ## starts of the consumer measured from outside, and their imports; writes docs/benchmarks (3 minutes)
	$(RUN) dev -m bench.startup

bench-scaling: ## a consumer on 512 partitions, simulated and measured; writes docs/scaling.md (5 minutes)
	$(RUN) dev -m bench.partitions
	$(RUN) dev -m bench.scaling --simulate --write

bench-latency: ## an object a record, and batches by time, beside a stock loop; TEST_S3=versitygw (6 minutes); QUICK=1
	$(RUN) dev -m bench.latency $(if $(QUICK),--quick)

lint: ## ruff, mypy, import-linter
	$(RUN) dev ruff check
	$(RUN) dev ruff format --check
	$(RUN) dev mypy
	$(RUN) dev lint-imports --no-logo

format: ## let ruff mend what it can
	$(RUN) dev ruff check --fix
	$(RUN) dev ruff format

lock: ## compile pyproject.toml into requirements/ (LOCK_OPTIONS=--upgrade for newer versions)
	$(COMPILE) pyproject.toml --extra producer -o requirements/producer.txt
	$(COMPILE) pyproject.toml --extra consumer -o requirements/consumer.txt
	$(COMPILE) pyproject.toml --extra producer --extra consumer --group dev -o requirements/dev.txt
	$(COMPILE) --group kafka -o requirements/kafka.txt
	$(COMPILE) --group s3 -o requirements/s3.txt
	$(COMPILE) --group query -o requirements/query.txt

compose-check: ## is docker-compose.yml valid and safe? (read by a real Compose from PyPI, no Docker needed)
	$(RUN) dev -m pytest tests/unit/test_compose.py

e2e-docker: ## the whole chain in containers: build, up, scale, kill, verify, down (needs an engine)
	$(RUN) dev -m pytest tests/e2e_docker

clean: ## remove everything that was made: environments, caches, the demo's state
	rm -rf .local .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
