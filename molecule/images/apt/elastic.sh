# Sourced by build.sh: fills $apt/elastic in the layout of Elastic's apt repository (pool, dists/stable, main), signed with the
# lab's own key (key.asc). For the roles, it differs from Elastic's repository only in address and key.
# NAME/build-deb.sh OUTDIR puts one package into OUTDIR, in the way that WRTFLOW_LAB names.
# shellcheck shell=sh
# shellcheck disable=SC2154 # build.sh sets apt

elastic=$apt/elastic
mkdir -p "$elastic/pool" "$elastic/dists/stable/main/binary-$(dpkg --print-architecture)"
for recipe in */build-deb.sh; do
    package=${recipe%/*}
    say "packing $package"
    rm -rf "$elastic/pool/$package"
    mkdir "$elastic/pool/$package"
    "./$recipe" "$elastic/pool/$package"
done

say "signing the package index"
export GNUPGHOME="$WRTFLOW_CACHE/signing-key"
if [ ! -e "$GNUPGHOME/pubring.kbx" ]; then
    mkdir -m 700 "$GNUPGHOME"
    gpg --batch --quiet --passphrase '' --quick-generate-key 'wrtflow lab <lab@wrtflow.invalid>' rsa3072 sign never
fi
(
    cd "$elastic" || exit
    index=dists/stable
    apt-ftparchive packages pool >"$index/main/binary-$(dpkg --print-architecture)/Packages"
    apt-ftparchive -o APT::FTPArchive::Release::Suite=stable -o APT::FTPArchive::Release::Codename=stable \
        -o APT::FTPArchive::Release::Components=main \
        -o "APT::FTPArchive::Release::Architectures=$(dpkg --print-architecture)" release "$index" >"$index.new"
    gpg --batch --quiet --yes --clearsign --output "$index/InRelease" "$index.new"
    rm "$index.new"
    gpg --batch --quiet --armor --export >key.asc
)
gpgconf --kill gpg-agent
unset GNUPGHOME
