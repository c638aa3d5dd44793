#!/bin/sh
# Registers the native host with the browsers of this user: builds it when this is the repository, else takes the binary beside this
# script. Downloads nothing but what cargo needs. Options go to `doppler-host install`; see `doppler-host install --help`.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ -f "$here/Cargo.toml" ]; then
    command -v cargo >/dev/null || { echo "install.sh: cargo is missing: install Rust from https://rustup.rs" >&2; exit 1; }
    cargo build --release --package doppler-host --manifest-path "$here/Cargo.toml"
    target=$(cargo metadata --format-version 1 --no-deps --manifest-path "$here/Cargo.toml" | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    program=$target/release/doppler-host
else
    program=$here/doppler-host
fi
[ -x "$program" ] || { echo "install.sh: $program is missing: put the binary beside this script" >&2; exit 1; }
exec "$program" install "$@"
