#!/bin/sh
# Pins every dependency with hashes and without addresses. Needs `uv` on the PATH.
set -eu
cd "$(dirname "$0")/.."
common="--quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header"
# shellcheck disable=SC2086
uv pip compile $common pyproject.toml --extra redis --extra postgres --extra local --extra mcp \
  --extra metrics --extra webhooks --extra jwt -o requirements/run.txt
# shellcheck disable=SC2086
uv pip compile $common pyproject.toml --extra redis --extra postgres --extra local --extra mcp \
  --extra metrics --extra webhooks --extra jwt --extra otel --group test --group lint -o requirements/dev.txt
# shellcheck disable=SC2086
uv pip compile $common pyproject.toml --group hosts -c requirements/dev.txt -o requirements/hosts.txt
# shellcheck disable=SC2086
uv pip compile $common --group build -c requirements/dev.txt -o requirements/build.txt
# shellcheck disable=SC2086
uv pip compile $common --group release -c requirements/dev.txt -o requirements/release.txt
# shellcheck disable=SC2086
uv pip compile $common --group docs -c requirements/dev.txt -o requirements/docs.txt
