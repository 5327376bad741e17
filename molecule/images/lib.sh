# Shared by the image builds (sourced, POSIX sh). See build.sh for the environment of a build.
# shellcheck shell=sh

export WRTFLOW_CACHE="${WRTFLOW_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/wrtflow}"
mkdir -p "$WRTFLOW_CACHE"

say() { printf 'image: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# Registries fail for minutes at a time: try three times. What the client prints is shown.
retry() {
    for pause in 10 30 0; do
        "$@" && return 0
        [ "$pause" -eq 0 ] || { say "failed, trying again in $pause s: $*"; sleep "$pause"; }
    done
    return 1
}

# lab_way: prints vendor if OpenWrt's and Elastic's servers can be reached, else registry. WRTFLOW_LAB forces one.
lab_way() {
    case ${WRTFLOW_LAB:-} in
    vendor | registry) echo "$WRTFLOW_LAB"; return ;;
    '') ;;
    *) die "WRTFLOW_LAB is '$WRTFLOW_LAB': it takes vendor or registry" ;;
    esac
    for url in https://downloads.openwrt.org/ https://artifacts.elastic.co/GPG-KEY-elasticsearch; do
        curl --silent --fail --head --location --max-time 5 --output /dev/null "$url" || { echo registry; return; }
    done
    echo vendor
}

# sources_sum NAME: prints the digest of all that NAME is made from: its folder, the folders in NAME/uses (paths below molecule/,
# one a line), and the way.
sources_sum() {
    {
        echo "$WRTFLOW_LAB"
        [ "$1" != apt ] || printf '%s' "${WRTFLOW_ELASTIC:-}"
        [ "$1" != openwrt-image ] || docker image inspect --format '{{ .Id }}' "${WRTFLOW_OPENWRT_IMAGE:-}"
        for path in "images/$1" images/lib.sh $(cat "$1/uses" 2>/dev/null); do
            find "../$path" -type f ! -name '*.pyc' ! -name '*.md' | LC_ALL=C sort | while read -r file; do
                printf '%s ' "$file"
                cksum <"$file"
            done
        done
    } | sha256sum | cut -c1-16
}

# built_sum NAME: prints the digest of the sources that the present image or folder was built from; nothing if there is none.
built_sum() {
    case $1 in
    apt | geolite) cat "$WRTFLOW_CACHE/$1/.sum" 2>/dev/null || true ;;
    *) docker image inspect --format '{{ index .Config.Labels "wrtflow.sum" }}' "wrtflow-lab/$1" 2>/dev/null || true ;;
    esac
}

# build_image NAME: builds it, unless it is there and was built from the same sources.
build_image() {
    [ -x "$1/build.sh" ] || die "no image is called '$1': there are $(echo */build.sh | sed 's,/build.sh,,g')"
    WRTFLOW_LAB=$(lab_way)
    export WRTFLOW_LAB
    if [ -e "$1/needs" ]; then
        while read -r need; do build_image "$need"; done <"$1/needs"
    fi
    # The user's own image may have to be pulled first.
    [ "$1" != openwrt-image ] || docker image inspect "${WRTFLOW_OPENWRT_IMAGE:-}" >/dev/null 2>&1 ||
        docker pull --quiet "${WRTFLOW_OPENWRT_IMAGE:-}" >/dev/null ||
        die "WRTFLOW_OPENWRT_IMAGE is '${WRTFLOW_OPENWRT_IMAGE:-}': there is no such image"
    SUM=$(sources_sum "$1")
    [ "$(built_sum "$1")" = "$SUM" ] && return 0
    say "building $1 ($WRTFLOW_LAB)"
    IMAGE="wrtflow-lab/$1" SUM="$SUM" "./$1/build.sh" || die "building $1 failed"
    [ "$(built_sum "$1")" = "$SUM" ] || die "$1/build.sh ended well but made no $1 of these sources"
    echo "$1: built"
}

# debian_rootfs TAR PACKAGES [mmdebstrap options]: makes a Debian 13 root file system with these packages.
debian_rootfs() {
    tar=$1 packages=$2
    shift 2
    retry mmdebstrap --quiet --variant=minbase --include="$packages" "$@" trixie "$tar"
}

# import_image TAR: makes $IMAGE from a root file system.
import_image() {
    docker import --change "LABEL wrtflow.sum=$SUM" "$1" "$IMAGE" >/dev/null
}
