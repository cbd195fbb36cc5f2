#!/bin/sh
# Installs what the tests use and Debian has (Chromium, Redis, PostgreSQL with PgBouncer, nginx,
# HAProxy, Caddy), as root; says what is left out.
set -u
missing=""
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
command -v redis-server >/dev/null 2>&1 || missing="$missing redis-server"
PATH="$PATH:/usr/sbin:/sbin"
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing="$missing postgresql"
for name in nginx haproxy caddy pgbouncer; do
  command -v $name >/dev/null 2>&1 || missing="$missing $name"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing$missing"
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  # shellcheck disable=SC2086 -- a list of package names
  if apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null; then
    exit 0
  fi
fi
echo "left out, because these are not installed:$missing (their tests are skipped and say so)"
