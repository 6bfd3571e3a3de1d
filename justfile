# Shows what there is to do.
default:
    @just --list

# Compiles everything without running it.
check:
    cargo check --workspace --all-targets --locked

# Format and lints: nothing may be left to say.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Tests that need nothing installed; those against servers are skipped.
test *arguments:
    cargo test --workspace --locked {{ arguments }}

# All there is, as in CI: lints and tests, also against real servers.
test-all *arguments:
    tests/run {{ arguments }}

# Runs a command with the servers that tests share: `just with cargo test --test postgres`.
with +command:
    tests/servers/with {{ command }}

# Measures; the program as it ships is built first, for those that run it next to its peers.
bench *arguments:
    cargo build --release -p contraflow --features full --locked
    cargo bench --workspace --locked {{ arguments }}

# Builds the book and the API documentation.
docs:
    if command -v mdbook > /dev/null; then mdbook build docs; else echo "mdbook is not installed: no book"; fi
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# Licences, sources and known holes of dependencies.
deny:
    cargo deny --workspace --locked check
