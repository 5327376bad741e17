"""The server process (bin/elasticsearch) and the command line tools of the package."""

import os
import signal
import socket
import ssl
import sys
import tempfile
import threading
from pathlib import Path

from . import keystore, reset_password
from .authentication import Authentication
from .core import Core, CoreGoneError
from .front import Front
from .server import Server
from .settings import BadSettingsError, Settings, read
from .store import Store

HOME = Path(os.environ.get("ES_HOME", "/usr/share/elasticsearch"))
CONFIG = Path(os.environ.get("ES_PATH_CONF", "/etc/elasticsearch"))


def tell_systemd(message: str) -> None:
    """Send a notification to systemd, if systemd has started this process."""
    if path := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.connect(path.replace("@", "\0", 1) if path.startswith("@") else path)
            notify.send(message.encode())


def tls(settings: Settings) -> ssl.SSLContext | None:
    """Return the HTTP port's TLS, as the settings say."""
    if not settings.tls:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.file("certificate"), settings.file("key"))
    except (OSError, ssl.SSLError) as error:
        raise BadSettingsError(
            f"failed to load SSL configuration [xpack.security.http.ssl]: {error}"
        ) from error
    return context


def serve(quiet: bool, pidfile: str | None) -> int:
    """Run the node until it gets SIGTERM."""
    settings = read(CONFIG)
    context = tls(settings)
    data = settings.core.get("path.data", HOME / "data")
    store = Store(Path(data[0] if isinstance(data, list) else data) / "xpack-double.json")
    core = Core(HOME)
    # Elasticsearch's own exit status after SIGTERM is 143; the unit counts it as success.
    signal.signal(signal.SIGTERM, lambda *_: core.process.terminate() if core.process else sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="elasticsearch-") as work:
        core.start(settings, Path(work), quiet)
        assert core.process
        core.wait_until_ready()
        front = Front(core, store, Authentication(store, CONFIG) if settings.security else None)
        for address in settings.hosts:
            threading.Thread(
                target=Server(address, settings.port, front, context).serve_forever, daemon=True
            ).start()
        if pidfile:
            Path(pidfile).write_text(str(os.getpid()))
        tell_systemd("READY=1")
        return core.process.wait()


def main(arguments: list[str]) -> int:
    """Run the named tool."""
    tool, *rest = arguments
    if tool == "keystore":
        return keystore.main(CONFIG, rest)
    if tool == "reset-password":
        return reset_password.main(CONFIG, rest)
    if "--version" in rest or "-V" in rest:
        print("Version: 9.2.0, Build: deb/double, JVM: 21")
        return 0
    pidfile = rest[rest.index("-p") + 1] if "-p" in rest else None
    try:
        return serve("--quiet" in rest or "-q" in rest, pidfile)
    except (BadSettingsError, CoreGoneError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
