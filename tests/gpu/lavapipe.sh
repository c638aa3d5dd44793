#!/bin/sh
# A Chromium whose WebGPU adapter is the newest Mesa's lavapipe: on a processor alone it has shader-f16 and subgroup matrices, which
# SwiftShader has not. For root on Debian; at first it puts a small Debian sid, 1.9 GB, into target/lavapipe. It sees /tmp and this
# repository. To run a page in it, or tests of the extension:
#
#   CHROME=tests/gpu/lavapipe.sh tests/gpu/page_runner.py --page tests/gpu/verify.html --timeout 900
#   CHROME=tests/gpu/lavapipe.sh node --test tests/e2e/spark.test.mjs
set -e
here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../.." && pwd)
root=$repository/target/lavapipe
if [ "$(id -u)" != 0 ]; then
  echo "lavapipe.sh sets up a Debian sid of its own and needs root for that" >&2
  exit 1
fi
if [ ! -e "$root/chromium/libvk_swiftshader.so" ]; then
  {
    command -v debootstrap || { apt-get update && apt-get install -y debootstrap; }
    rm -rf "$root"
    debootstrap --variant=minbase sid "$root" http://deb.debian.org/debian
    chroot "$root" apt-get install -y --no-install-recommends chromium gcc libc6-dev libvulkan-dev mesa-vulkan-drivers
    cp "$here/lavapipe_icd.c" "$root/tmp"
    cp -al "$root/usr/lib/chromium" "$root/chromium"
    # Hard links: what is written anew must be removed first. WebGL keeps SwiftShader.
    rm "$root/chromium/libvk_swiftshader.so" "$root/chromium/vk_swiftshader_icd.json"
    sed "s#\"\./#\"/usr/lib/chromium/#" "$root/usr/lib/chromium/vk_swiftshader_icd.json" >"$root/chromium/vk_swiftshader_icd.json"
    chroot "$root" gcc -O1 -Wall -Wextra -shared -fPIC -fvisibility=hidden -o /chromium/libvk_swiftshader.so /tmp/lavapipe_icd.c
  } >&2
fi
# The mounts end with the browser.
exec unshare --mount sh -ec '
  mkdir -p "$0$1"
  for folder in "$1" /tmp /sys /dev /dev/shm; do mount --bind "$folder" "$0$folder"; done
  mount -t proc proc "$0/proc"
  shift
  exec chroot "$0" env HOME=/root /chromium/chromium --enable-unsafe-swiftshader --use-webgpu-adapter=swiftshader "$@"
' "$root" "$repository" "$@"
