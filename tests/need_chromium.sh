#!/bin/sh
# The browser tests need Debian's Chromium, and a font that holds Chinese. As root on Debian they are installed;
# elsewhere they are asked for in words. On CI nothing may be missing.
set -eu
missing=""
command -v chromium >/dev/null 2>&1 || missing="chromium"
fc-list :lang=zh 2>/dev/null | grep -q . || missing="$missing fonts-noto-cjk"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends fontconfig $missing >/dev/null
    exit 0
fi
echo "The browser tests need: $missing. On Debian or Ubuntu: sudo apt-get install $missing"
if [ -n "${CI:-}" ]; then exit 1; fi
echo "They are skipped here."
