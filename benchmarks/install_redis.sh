#!/bin/sh
# Redis of the system's packages, where we may install them. It is not started: benchmarks start their own.
test "$(id -u)" = 0 || { echo "redis-server: not installed, and only root may install it"; exit 1; }
command -v apt-get >/dev/null || { echo "redis-server: not installed, and there is no apt-get"; exit 1; }
apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server
