#!/bin/sh
# Runs in a Debian 13 container: compiles /src/Core.java into /core/started, and makes /core/jdk, a Java runtime with only the
# modules that the jars of /core/lib require.
set -eu

rm -r /etc/apt/sources.list.d
cp -r /lab/mirror.d /etc/apt/sources.list.d
apt-get update -qq
apt-get install -y -qq --no-install-recommends openjdk-21-jdk-headless libzstd1 >/dev/null 2>&1

cd /core
# best_compression uses zstd.
cp "$(find /usr/lib -name libzstd.so.1)" lib/platform/libzstd.so
javac -proc:none -cp "$(echo lib/*.jar | tr ' ' :)" -d /tmp/core /src/Core.java
mkdir started
jar --create --file started/core.jar -C /tmp/core .
# log4j needs java.desktop (java.beans). The jars' module descriptions name the others.
jlink --strip-java-debug-attributes --no-header-files --no-man-pages --output jdk --add-modules \
java.base,java.desktop,java.instrument,java.logging,java.management,java.net.http,java.security.jgss,java.sql,java.xml,\
jdk.attach,jdk.management,jdk.net,jdk.unsupported,jdk.zipfs
jdk/bin/java -Xshare:dump >/dev/null

# The files belong to the user who builds.
chown -R --reference=/core .
