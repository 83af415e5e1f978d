#!/usr/bin/env bash
# Builds the contract offline and checks everything about it: format, tests, coverage, gas, and that the committed artifact is what
# the sources compile to. Quiet but for what is wrong and a summary. Run through `just contracts`.
# `check.sh gas` writes the gas snapshot anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

least_coverage=98 # percent of the lines and of the branches of each file in src/
peer_per_request=316860 # gas for one request in the earlier project of this kind, measured on its contract

fail() { printf 'contracts: %s\n' "$1" >&2; exit "${2:-1}"; }

# Runs a step; its output is shown only if it fails.
step() {
    local name=$1
    shift
    "$@" >"$log" 2>&1 || { cat "$log" >&2; fail "$name failed (above)"; }
}

# Not npm's wrapper in .bin: it exits with 0 whatever forge says.
tools() {
    command -v node >/dev/null || fail "node is not here; install Node.js 20 or later with npm, then run ./scripts/just contracts" 2
    local tool forges
    for tool in solc @openzeppelin/contracts @foundry-rs/forge; do
        [ -e "node_modules/$tool" ] || fail "$tool is not in contracts/node_modules: run npm install --no-save in contracts/" 2
    done
    forges=(node_modules/@foundry-rs/forge-*/bin/forge)
    "${forges[0]}" --version >/dev/null 2>&1 || fail "forge does not run here; npm has it for x64 and arm64, and installs it unless told to omit optional packages" 2
    PATH=$PWD/${forges[0]%/forge}:$PATH
}

formatted() {
    forge fmt --check || { echo "run forge fmt in contracts/"; return 1; }
}

artifact_current() {
    local made
    made=$(node artifact.js) && [ "$made" = "$(cat artifacts/Accounting.json)" ] ||
        { echo "it is not what the sources compile to: run node contracts/artifact.js --write"; return 1; }
}

# Without what is random at length (it adds nothing) and what measures gas (the optimizer is off).
covered() {
    forge coverage --report summary --no-match-contract 'GasTest|InvariantsTest'
}

coverage_table() { awk -F'|' '$2 ~ /src\// { gsub(/ /, "", $2); print $2, $3 + 0, $5 + 0 }' "$log"; }

gas() { sed -n "s/^ *\"$1\": \"\([0-9]*\)\".*/\1/p" snapshots/GasTest.json; }

log=$(mktemp)
trap 'rm -f "$log"' EXIT
tools

if [ "${1:-}" = gas ]; then
    FORGE_SNAPSHOT_CHECK=false FORGE_SNAPSHOT_EMIT=true step "measuring gas" forge test --match-contract GasTest
    echo "contracts/snapshots/GasTest.json is written anew"
    exit
fi

step "the build" forge build
step "the format" formatted
step "the artifact" artifact_current
step "a test" forge test
tests=$(sed -n 's/.*: \([0-9]* tests passed\), .*/\1/p' "$log" | tail -n 1)
step "coverage" covered
coverage=$(coverage_table)
awk -v least="$least_coverage" '$2 < least || $3 < least { bad = 1 } END { exit (bad || NR == 0) }' <<<"$coverage" ||
    fail "less than $least_coverage % is covered (file, lines, branches):"$'\n'"$coverage"

lane=$(gas "settle 1 lane, 1 model") batch=$(gas "per lane of 100, 1 model")
printf '%s, format and artifact as they should be; covered (lines, branches): %s\n' "$tests" \
    "$(awk '{ printf "%s%s %s %%, %s %%", (NR > 1 ? "; " : ""), $1, $2, $3 }' <<<"$coverage")"
printf 'gas: one lane %s, of a hundred %s each; at 1,000 requests a voucher %s or %s a request (elsewhere %s: %s or %s times as much)\n' \
    "$lane" "$batch" $((lane / 1000)) $((batch / 1000)) $peer_per_request $((peer_per_request * 1000 / lane)) $((peer_per_request * 1000 / batch))
