#!/usr/bin/env bash
# How fast model files of 1 to 43 GB come to a GPU: made here, loaded natively and into a Chromium with the extension, and removed.
#
# usage: tests/gpu/load.sh DIR OUT [SHAPE:QUANT:WAYS:RUNS[:cold]]...
# DIR: a folder of a fast disk with room for the largest file (twice, where `opfs` is among its WAYS); OUT: where reports go.
# WAYS and RUNS: see tests/bench/load.mjs; by default four files, for less than five minutes of a GPU that loads 1 GB/s.
# Environment: DOPPLER and DOPPLER_HOST, optimized builds of `doppler` and `doppler-host`; NODE; CHROME; DOPPLER_CHROME_FLAGS. Needs
# `cargo xtask build` and tests/node_modules/playwright-core, and no network.
set -u
cd "$(dirname "$0")/../.."
dir=${1:?DIR} out=${2:?OUT}; shift 2
[ $# -gt 0 ] || set -- llama-3.2-1b:q8_0:loopback,messages,file,opfs:1:cold llama-3.1-8b:q8_0:loopback,file,opfs:1 \
  llama-3.1-70b:q4_k_m:loopback:1 llama-3.1-8b:f16:loopback:1
doppler=${DOPPLER:-target/release/doppler}; node=${NODE:-node}
export DOPPLER_HOST=${DOPPLER_HOST:-$PWD/target/release/doppler-host}
# The host offers the files of this folder and no other.
mkdir -p "$dir/doppler-load" "$out"
trap 'rm -rf "$dir/doppler-load"' EXIT
df -h "$dir"; free -g
for spec; do
  IFS=: read -r shape quant ways runs cold <<<"$spec"
  file=$dir/doppler-load/$shape-$quant.gguf name=$shape-$quant
  echo "== $name $(date +%T)"
  "$doppler" generate --shape "$shape" --quant "$quant" "$file" || continue
  for option in ${cold:+--cold} --json; do
    [ "$option" = --json ] && option=
    timeout 120 "$doppler" bench load --json $option "$file" 2>"$out/$name-native.err" >"$out/$name-native${option#-}.json" ||
      tail -2 "$out/$name-native.err"
    grep -hE '"(seconds|read|write|device|bytes_per_second)"' "$out/$name-native${option#-}.json" | tr -d '\n'; echo " native $option"
  done
  timeout 300 "$node" tests/bench/load.mjs "$file" --ways="$ways" --runs="$runs" ${cold:+--cold} --json >"$out/$name.json" 2> >(tee "$out/$name.txt" >&2)
  rm -f "$file"
done
echo "== done $(date +%T)"
