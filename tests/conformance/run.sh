#!/bin/sh
# Runs all public conformance cases with the debug build; see run.py.
set -eu
cd "$(dirname "$0")/../.."
cargo build --quiet
exec python3 tests/conformance/run.py --cbs "${CARGO_TARGET_DIR:-target}/debug/cbs" "$@"
