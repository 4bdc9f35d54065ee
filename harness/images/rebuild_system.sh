#!/bin/sh
# The part that every rebuilt environment shares: Python, git and what tests need of the system. Started by rebuilt.py
# in a container of a Debian base, whose state afterwards becomes an image.
#
#   rebuild_system.sh PACKAGE...     beside the common ones
set -eu

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# Tests of the time are run by a Python of the time, tests of locales in one that is not C, patches that need it by patch.
apt-get install -qq -o Dpkg::Use-Pty=0 --no-install-recommends \
    ca-certificates git less locales make patch procps "$@"
sed -i '/en_US.UTF-8/s/^# //' /etc/locale.gen
locale-gen
apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /usr/share/doc/* /usr/share/man/*
rm -rf /harness
