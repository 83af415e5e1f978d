#!/usr/bin/env bash
# Puts the accounting contract on a chain, at the address it has on every chain (CREATE2, salt zero). Whoever pays for it gets no
# rights: the contract has no owner. If it is there already, nothing is sent.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'TEXT'
Usage: scripts/deploy.sh [chain] [setting=value ...]

Puts the accounting contract on a chain and prints its address; the default chain is sepolia. It is the same address on every
chain, whoever deploys, so one deployment is enough for everybody. The chain is one of conf/chain:

TEXT
    find conf/chain -name '*.yaml' ! -name off.yaml -exec basename {} .yaml \; | sort | sed 's/^/    /'
    cat <<'TEXT'

Environment:
    PRIVATE_KEY or LLOOM_PRIVATE_KEY   who pays for it: 64 hexadecimal digits; the latter wins. Never printed.
    SEPOLIA_RPC_URL and so on          an RPC server of your own; conf/chain names the variable and public servers

Examples:
    PRIVATE_KEY=... scripts/deploy.sh sepolia
    scripts/deploy.sh base chain.base.max_fee=500000000
TEXT
}

fail() { printf 'scripts/deploy.sh: %s\n' "$1" >&2; exit 2; }

chain=sepolia
case ${1:-} in
    -h | --help) usage; exit ;;
    *=* | "") ;;
    *) chain=$1; shift ;;
esac

[[ $chain =~ ^[a-z_]+$ && $chain != off && -f conf/chain/$chain.yaml ]] || fail "there is no chain $chain (scripts/deploy.sh --help lists them)"
[ -x .venv/bin/python ] || fail "nothing is set up yet: run ./scripts/just once"
# The environment, not the command line: that could be read by others on this machine.
export LLOOM_PRIVATE_KEY=${LLOOM_PRIVATE_KEY:-${PRIVATE_KEY:-}}
[ -n "$LLOOM_PRIVATE_KEY" ] || [ "$chain" = anvil ] || fail "set PRIVATE_KEY or LLOOM_PRIVATE_KEY to the key that pays for it"
[ -n "$LLOOM_PRIVATE_KEY" ] || unset LLOOM_PRIVATE_KEY

exec .venv/bin/python -m lloom role=client command=deploy "chain=$chain" "$@"
