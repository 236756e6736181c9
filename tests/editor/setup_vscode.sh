#!/bin/bash
# setup_vscode.sh DIR: a real VS Code (code-server 4.100.3 = VS Code 1.100.3, from npm, Node 20) and playwright-core in DIR,
# for tests/editor/test_vscode.py: NIGHTSCHOOL_VSCODE=DIR. Needs chromium and ripgrep (Debian: apt-get install chromium
# ripgrep) and, to build four native modules, a C++ compiler with libkrb5-dev libx11-dev libxkbfile-dev libsecret-1-dev.
set -euo pipefail
mkdir -p "$1"; cd "$1"
for program in chromium rg node npm g++; do
  command -v "$program" >/dev/null || { echo "setup_vscode.sh: $program is missing" >&2; exit 1; }
done
export npm_config_update_notifier=false
# Not by npm init: it refuses a folder whose name begins with a dot.
[ -f package.json ] || echo '{"private": true}' >package.json
npm install --ignore-scripts --no-audit --no-fund code-server@4.100.3 playwright-core@1.65.1
code=$PWD/node_modules/code-server/lib/vscode
(cd "$code" && npm install --ignore-scripts --omit=dev --no-audit --no-fund)
gyp="node $(npm root -g)/npm/node_modules/node-gyp/bin/node-gyp.js"
for module in native-watchdog node-pty @vscode/spdlog; do
  (cd "$code/node_modules/$module" && $gyp rebuild --nodedir=/usr -j 2 >gyp.log 2>&1) || { cat "$code/node_modules/$module/gyp.log" >&2; exit 1; }
done
(cd node_modules/argon2 && npx --no-install node-pre-gyp rebuild --build-from-source --nodedir=/usr >gyp.log 2>&1)
mkdir -p "$code/node_modules/@vscode/ripgrep/bin"
ln -sf "$(command -v rg)" "$code/node_modules/@vscode/ripgrep/bin/rg"
ln -sfn node_modules "$code/node_modules.asar"
