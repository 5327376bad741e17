#!/bin/sh
# The lab's package repositories, served to the log server as /srv/apt (a folder, not an image):
#   debian/   the Debian packages that the roles install (packages.txt), and their dependencies
#   elastic/  Elasticsearch and Kibana, signed, in the layout of Elastic's repository (elastic.sh)
set -eu
. ./lib.sh

apt=$WRTFLOW_CACHE/apt
mkdir -p "$apt/debian"
rm -f "$apt/.sum"

# A container of the log server's image finds out which packages are missing there. It does so again when the image or the
# list has changed.
debian_sum=$(cat apt/packages.txt; built_sum debian)
if [ "$(cat "$apt/debian/.sum" 2>/dev/null)" != "$debian_sum" ]; then
    say "downloading Debian packages"
    rm -f "$apt/debian/.sum"
    # shellcheck disable=SC2016 # the container's shell reads the list
    retry docker run --rm --volume "$PWD/apt/packages.txt:/packages.txt:ro" --volume "$apt/debian:/out" \
        wrtflow-lab/debian sh -c '
            set -e
            rm -r /etc/apt/sources.list.d
            cp -r /lab/mirror.d /etc/apt/sources.list.d
            apt-get update -qq
            apt-get install -y -qq --download-only --no-install-recommends $(sed "s/#.*//" /packages.txt) >/dev/null
            rm -f /out/*.deb
            cp /var/cache/apt/archives/*.deb /out/'
    (cd "$apt/debian" && apt-ftparchive packages . >Packages && apt-ftparchive release . >Release.new && mv Release.new Release)
    echo "$debian_sum" >"$apt/debian/.sum"
fi

# shellcheck source=/dev/null
. ./apt/elastic.sh
echo "$SUM" >"$apt/.sum"
