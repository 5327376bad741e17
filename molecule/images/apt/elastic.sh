# Sourced by build.sh: fills $apt/elastic.
# shellcheck shell=sh
mkdir -p "$apt/elastic"
