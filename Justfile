# Run through ./scripts/just, which sets everything up first.

# Byte-code of our own modules is wanted too: a node starts many processes.
export PYTHONDONTWRITEBYTECODE := ""

# List the recipes
[private]
default:
    @just --list --unsorted

# A whole network on this machine: validator, two executors, client, one real answer (ends with demo.stay=false)
demo *overrides:
    @python -m lloom role=demo {{ overrides }}

# All tests and checks: what CI runs
test: check
    python -m pytest --durations=20 --durations-min=5

# Style, types and the three rings
check:
    ruff format --check .
    ruff check .
    mypy
    lint-imports

# Format the code and mend what can be mended
fix:
    ruff format .
    ruff check --fix .

# Only the tests that need neither Ray nor sockets
unit *arguments:
    python -m pytest tests/unit {{ arguments }}

# The accounting contract: build, format, tests, coverage, gas (a minute or two); `contracts gas` writes the gas snapshot anew
contracts *arguments:
    @contracts/check.sh {{ arguments }}

# Latency and throughput beside LiteLLM's proxy and vllm-router, in one run; `bench dht`: discovery beside stock kademlia (takes minutes)
bench *arguments:
    python -m tests.bench {{ arguments }}

# Faults at every stage of a request, under load, and what callers notice of them: a table, in about a minute
faults:
    python -m tests.faults

# Coding agents (1.2 GB from npm, for Node.js 20 or newer), each doing a task through a network of real nodes
agents:
    @cd tests/e2e/clients/agents && npm install --silent --no-save
    python -m pytest -v tests/e2e/clients/test_agents.py

# Compile requirements.in into requirements.txt
lock:
    uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links \
        --excludes requirements.excludes --custom-compile-command "just lock" requirements.in -o requirements.txt
