# Everything a fresh machine needs is Python 3.11+ and make; each target sets up .venv first.
PYTHON ?= python3
BIN := .venv/bin
# OpenMP threads that spin while they wait make a busy machine a hundred times slower.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test test-all lint docs starter clean

# From raw pictures to a LoRA. RECIPE=recipes/t7-came-character.toml trains that instead of what is advised.
DEMO ?= build/demo
RUNS ?= runs
RECIPE ?= $(DEMO)/demo.toml
demo: .venv/installed
	$(BIN)/python -m tools.demo_raw $(DEMO)/pictures
	$(BIN)/kiln curate $(DEMO)/pictures --for style --resolution 128 --apply
	$(BIN)/kiln tag $(DEMO)/pictures --tagger starter --rules tools/demo_rules.toml
	$(BIN)/kiln advise $(DEMO)/pictures --base starter --for style --out $(DEMO)/demo.toml --overwrite
	$(BIN)/kiln check $(RECIPE)
	$(BIN)/kiln train $(RECIPE) --overwrite --set runs=$(RUNS)
	$(BIN)/kiln judge $(RUNS)/$(notdir $(basename $(RECIPE))) --budget 2

test: .venv/installed lint
	$(BIN)/pytest -q -n 2 --dist worksteal

test-all: .venv/installed lint
	HYPOTHESIS_PROFILE=new $(BIN)/pytest -q -n 2 --dist worksteal
	$(BIN)/pytest -q -m slow

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check

docs: .venv/installed
	$(BIN)/python -m tools.docs

starter: .venv/installed
	$(BIN)/pip install -q -c constraints.txt -e '.[starter]'
	$(BIN)/python -m tools.starter

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

clean:
	rm -rf .venv build runs
