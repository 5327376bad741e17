#!/bin/sh
# make bench: a collector of its own in a container (not the lab's), installed by the role, measured, removed.
# Arguments are parts of bench.py (none: all of them) and of storage.py (disk, year). Run by tools/lab-env.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
# Several may run at a time.
name=wrtflow-bench-$$
cache=${WRTFLOW_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/wrtflow}
work=$(mktemp -d)

remove() {
    docker rm --force --volumes $name >/dev/null 2>&1 || true
}

end() {
    remove
    rm -rf "$work"
}
trap end EXIT
trap 'exit 130' INT TERM

storage='' collector=''
for part in "$@"; do
    case $part in
    disk | year) storage="$storage $part" ;;
    *) collector="$collector $part" ;;
    esac
done

molecule/images/build.sh debian apt geolite >&2
docker run --detach --name $name --label wrtflow=bench --cgroupns host --cap-add NET_ADMIN --cap-add SYS_ADMIN \
    --tmpfs /run --tmpfs /run/lock --volume /sys/fs/cgroup:/sys/fs/cgroup:rw --volume "$cache/apt:/srv/apt:ro" \
    wrtflow-lab/debian /lib/systemd/systemd >/dev/null

# What Elasticsearch's role would leave: a key, and the authority of the sink's certificate.
mkdir "$work/secrets" "$work/inventory"
for key in collector health; do echo bench >"$work/secrets/$key.api-key"; done
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=bench \
    -addext subjectAltName=IP:127.0.0.1 -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature \
    -keyout "$work/server.key" -out "$work/secrets/elasticsearch-ca.crt" 2>/dev/null
cat "$work/secrets/elasticsearch-ca.crt" "$work/server.key" >"$work/server.pem"

cat >"$work/inventory/hosts.yml" <<END
collector:
  hosts:
    bench:
      ansible_connection: community.docker.docker
      ansible_host: $name
      wrtflow_elasticsearch_url: https://127.0.0.1:9200
      syslog_ng_udp: true
      wrtflow_secrets_dir: $work/secrets
storage:
  hosts:
    bench:
END
cp -r inventory/lab/group_vars "$work/inventory/"
cat >"$work/collector.yml" <<END
- hosts: collector
  roles: [syslog_ng]
END

tries=60
until docker exec $name systemctl is-system-running 2>/dev/null | grep -Eq 'running|degraded'; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || { echo "bench: $name does not boot" >&2; exit 1; }
    sleep 1
done

install() { # PLAYBOOK, more of ansible-playbook's arguments
    ansible-playbook --inventory "$work/inventory" "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
}

if [ -n "$storage" ]; then
    echo "bench: installing Elasticsearch" >&2
    url=https://$(docker inspect --format '{{ .NetworkSettings.IPAddress }}' $name):9200
    printf -- '- hosts: collector\n  roles: [elasticsearch]\n' >"$work/storage.yml"
    install "$work/storage.yml" --extra-vars "wrtflow_elasticsearch_url=$url" --extra-vars "wrtflow_secrets_dir=$work/storage" \
        --extra-vars '{"elasticsearch_heap": "1g", "elasticsearch_dynamic": "strict", "elasticsearch_max_size": "0"}'
    # shellcheck disable=SC2086 # words
    python tests/bench/storage.py "$url" "$work/storage" $storage
    [ -n "$collector" ] || exit 0
    docker exec $name systemctl disable --now elasticsearch wrtflow-retention.timer
fi

echo "bench: installing the collector" >&2
docker exec $name mkdir /var/lib/GeoIP
docker cp "$cache/geolite/." $name:/var/lib/GeoIP/ >/dev/null
install "$work/collector.yml"

# The article's chain needs syslog-ng's http() and geoip2(); the names are a resolver's of this machine's own.
docker exec $name sh -c 'systemctl stop syslog-ng && rm /etc/syslog-ng/wrtflow/health.api-key && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends syslog-ng-mod-http syslog-ng-mod-geoip2 >/dev/null &&
    echo nameserver 127.0.0.1 >/etc/resolv.conf && mkdir /root/bench'
docker cp "$here/." $name:/root/bench/ >/dev/null
docker cp "$work/server.pem" $name:/root/bench/ >/dev/null
# shellcheck disable=SC2086 # words
docker exec $name python3 /root/bench/bench.py $collector
