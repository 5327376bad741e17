#!/bin/sh
# Runs in a Debian 13 container: compiles /src/Core.java into /core/lib and cuts a Java runtime to what the jars of
# /core/lib require, /core/jdk.
set -eu

rm -r /etc/apt/sources.list.d
cp -r /lab/mirror.d /etc/apt/sources.list.d
apt-get update -qq
apt-get install -y -qq --no-install-recommends openjdk-21-jdk-headless libzstd1 >/dev/null 2>&1

cd /core
# best_compression is zstd.
cp "$(find /usr/lib -name libzstd.so.1)" lib/platform/libzstd.so
javac -proc:none -cp "$(echo lib/*.jar | tr ' ' :)" -d /tmp/core /src/Core.java
mkdir started
jar --create --file started/core.jar -C /tmp/core .
# java.desktop is for log4j (java.beans); the others are what the jars' module descriptions name.
jlink --strip-java-debug-attributes --no-header-files --no-man-pages --output jdk --add-modules \
java.base,java.desktop,java.instrument,java.logging,java.management,java.net.http,java.security.jgss,java.sql,java.xml,\
jdk.attach,jdk.management,jdk.net,jdk.unsupported,jdk.zipfs
jdk/bin/java -Xshare:dump >/dev/null

# Whoever builds owns the result.
chown -R --reference=/core .
