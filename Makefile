# The commands of this repository.  `make run` and `make test` are the two that a newcomer needs.
SHELL := /bin/bash
BACKEND ?= sandbox
LISTEN ?= 127.0.0.1:2222
PYTHON := .venv/bin/python

.PHONY: help run test check fmt setup stack stack-down demo bench lock wheel

help:
	@echo "make run          set up, then the gateway on $(LISTEN) with embedded parts (BACKEND=sandbox|docker)"
	@echo "make test         set up, then every test and check (DOORWARD_REQUIRE=all: a missing real part is a failure)"
	@echo "make demo         the whole story, narrated, checked and timed (STACK=real: on real OPA, Vault, PostgreSQL, Docker)"
	@echo "make stack        real OPA, Vault, PostgreSQL, Docker engine and an OTLP receiver on loopback; make stack-down ends them"
	@echo "make bench        measure against OpenSSH and bare asyncssh in one run"
	@echo "make check, fmt   lint, types, layers, Rego and Go formats; or put the formats right"
	@echo "make lock, wheel  pin dependencies anew; build the wheel with the agent inside"

run:
	@scripts/setup $(if $(filter docker,$(BACKEND)),docker,run)
	@$(if $(filter docker,$(BACKEND)),$(PYTHON) -m tests.stack.images)
	@exec $(PYTHON) -m gateway run --backend $(BACKEND) --listen $(LISTEN)

test:
	@scripts/setup test
	@scripts/test

check:
	@scripts/setup test
	@scripts/check

fmt:
	@scripts/setup dev
	@scripts/fmt

setup:
	@scripts/setup dev

stack:
	@scripts/setup test
	@$(PYTHON) -m tests.stack up

stack-down:
	@$(PYTHON) -m tests.stack down

demo:
	@scripts/setup $(if $(filter real,$(STACK)),test,run)
	@$(PYTHON) -m demo $(if $(STACK),--stack $(STACK))

bench:
	@scripts/setup test
	@$(PYTHON) -m bench

lock:
	@scripts/setup dev
	@scripts/lock

wheel:
	@scripts/setup dev
	@scripts/wheel
