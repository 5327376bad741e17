#!/bin/sh
# build-deb.sh OUTDIR: puts Elasticsearch's package there.
set -eu
. ./lib.sh
