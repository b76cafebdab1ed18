#!/usr/bin/env bash
# Fetch what the tests of the page in a browser need, where that is possible: Debian's Chromium, fonts for every
# language of the page, and axe-core from npm. Without them these tests are skipped, so this script never fails.
cd "$(dirname "$0")/.." || exit 0

AXE=4.14.1
if ! command -v chromium >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-noto-core; } \
        >/dev/null 2>&1 || echo "chromium could not be installed: tests in a browser are skipped"
fi
if [ ! -f .venv/axe/node_modules/axe-core/axe.min.js ] && command -v npm >/dev/null; then
    npm install --silent --no-fund --no-audit --ignore-scripts --prefix .venv/axe "axe-core@$AXE" \
        >/dev/null 2>&1 || echo "axe-core could not be installed: tests of accessibility are skipped"
fi
exit 0
