#!/bin/sh
# install.sh PROGRAM: the program, from the system's package of the same name, where we may. It is not started.
command -v "$1" >/dev/null && exit 0
test "$(id -u)" = 0 || { echo "$1 is not installed, and only root may install it"; exit 1; }
command -v apt-get >/dev/null || { echo "$1 is not installed, and there is no apt-get"; exit 1; }
apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1"
