# The one task runner. `make setup` is part of every target that needs it, and is quick when nothing is missing.
.PHONY: help setup demo test faults soak lint docs bench clean

HARNESS = .venv/bin/harness

help:
	@echo "make setup   system packages (as root), Docker, .venv, the embedded model"
	@echo "make demo    set up, then run the main job: a real framework, a real small model, real containers"
	@echo "make test    set up, then pass the tests"
	@echo "make faults  set up, then break everything that can break, at length; make test has the short of it"
	@echo "make lint    ruff, mypy, and the generated docs against the code"
	@echo "make docs    write the generated docs anew"
	@echo "make soak    a thousand runs, one and two at a time: what the harness holds must not grow"
	@echo "make bench   the targets for speed, as ratios against a baseline in the same run"

setup:
	@sh scripts/setup.sh

demo: setup
	$(HARNESS) sweep --agents mini-swe-agent,oracle,nop --models llamacpp/smollm2:135m --tasks smoke --limit 4 \
		--max-calls 8 --num-predict 256

test: setup
	.venv/bin/python -m pytest

faults: setup
	HARNESS_FAULTS=all .venv/bin/python -m pytest tests/faults tests/escape

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/python docs/generate.py --check

docs: setup
	.venv/bin/python docs/generate.py

soak: setup
	.venv/bin/python tests/benchmarks/soak.py

bench: setup
	.venv/bin/python tests/benchmarks/startup.py
	.venv/bin/python tests/benchmarks/gateway.py
	.venv/bin/python tests/benchmarks/doors.py
	.venv/bin/python tests/benchmarks/run_cost.py
	.venv/bin/python tests/benchmarks/sampler.py
	.venv/bin/python tests/benchmarks/loops.py
	.venv/bin/python tests/benchmarks/recommend.py
	.venv/bin/python tests/benchmarks/scale.py

clean:
	$(HARNESS) clean
