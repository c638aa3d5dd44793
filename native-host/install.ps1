# Registers the native host with the browsers of this user: builds it when this is the repository, else takes the binary beside this
# script. Downloads nothing but what cargo needs. Options go to `doppler-host install`; see `doppler-host install --help`.
$ErrorActionPreference = 'Stop'
$manifest = Join-Path $PSScriptRoot 'Cargo.toml'
if (Test-Path $manifest) {
    if (-not (Get-Command cargo -ErrorAction SilentlyContinue)) { throw 'cargo is missing: install Rust from https://rustup.rs' }
    cargo build --release --package doppler-host --manifest-path $manifest
    if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
    $target = (cargo metadata --format-version 1 --no-deps --manifest-path $manifest | ConvertFrom-Json).target_directory
    $program = Join-Path $target 'release/doppler-host.exe'
} else {
    $program = Join-Path $PSScriptRoot 'doppler-host.exe'
}
if (-not (Test-Path $program)) { throw "$program is missing: put the binary beside this script" }
& $program install @args
exit $LASTEXITCODE
