#!/bin/bash
# Applies the known fix to the work directory.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cd "${TESTBED:-/testbed}"
patch --strip=1 --forward --no-backup-if-mismatch < "$here/fix.patch"
