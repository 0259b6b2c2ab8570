#!/usr/bin/env bash
# Runs all checks and tests in order, or the stages named as arguments; stops at the first that fails.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

readonly STAGES=(format clippy layers crates pgrx install regress e2e)

# PostgreSQL's major version, as in dev/setup.sh.
readonly PG_FEATURE=tailstream/pg${TAILSTREAM_PG_MAJOR:-17}

devkit() { cargo run --quiet --package tailstream-devkit --bin tailstream-dev -- "$@"; }

# Each stage: what it runs, and what to do when it fails.
run_stage() {
    case "$1" in
        format) cargo fmt --all --check ;;
        clippy) cargo clippy --workspace --all-targets --no-default-features --features "tailstream/pg_test,$PG_FEATURE" -- -D warnings ;;
        layers) devkit layers ;;
        crates) cargo test --package tailstream-event --package tailstream-log-lines --package tailstream-devkit ;;
        pgrx) devkit pgrx-test ;;
        install) devkit install ;;
        regress) devkit regress ;;
        e2e) cargo test --package tailstream-e2e ;;
        *) return 64 ;;
    esac
}

title() {
    case "$1" in
        format) echo "formatting" ;;
        clippy) echo "lints" ;;
        layers) echo "imports go in one direction" ;;
        crates) echo "the crates without PostgreSQL, and the tooling: events, log lines, private clusters, traffic" ;;
        pgrx) echo "unit tests, and tests inside PostgreSQL" ;;
        install) echo "release build of the extension, installed" ;;
        regress) echo "pg_regress: the SQL surface; pg_isolation: interleaved sessions" ;;
        e2e) echo "end to end: real connections, concurrency, crashes" ;;
        *) echo "unknown stage" ;;
    esac
}

advice() {
    case "$1" in
        format) echo "run 'make fmt'" ;;
        clippy | layers) echo "change what is named above" ;;
        crates | pgrx | e2e) echo "read the failing test's output above, then run only this again: dev/test.sh $1" ;;
        install) echo "read the compiler's output above" ;;
        regress) echo "compare regression.diffs in target/pg_regress or target/pg_isolation; if the new output is right: cargo run -p tailstream-devkit -- regress --accept" ;;
        *) echo "stages are: ${STAGES[*]}" ;;
    esac
}

stages=("$@")
[ $# -gt 0 ] || stages=("${STAGES[@]}")
# The end-to-end tests run against what is installed.
[ "${stages[*]}" != e2e ] || stages=(install e2e)
[ "${stages[*]}" != regress ] || stages=(install regress)

began=$SECONDS
number=0
for stage in "${stages[@]}"; do
    number=$((number + 1))
    stage_began=$SECONDS
    printf '\n==> [%d/%d] %s: %s\n' "$number" "${#stages[@]}" "$stage" "$(title "$stage")"
    if ! run_stage "$stage"; then
        printf '\nFAILED: %s (%s), after %d s\n  to fix it: %s\n' \
            "$stage" "$(title "$stage")" $((SECONDS - stage_began)) "$(advice "$stage")" >&2
        exit 1
    fi
    printf '    ok, %d s\n' $((SECONDS - stage_began))
done
printf '\nAll %d stages passed in %d s.\n' "$number" $((SECONDS - began))
