"""The classes that syslog-ng's configuration names, and nothing but the way between its messages and Core.

Names on a message: flow.opened (NEW), flow.closed (the DESTROY's line or JSON object), flow.lost (start and NEW line
of a flow whose DESTROY will not come), place.source and place.destination (to be looked up); MESSAGE is the flow's key.
Finished documents leave by core.outbox and come back as messages of their own: wrtflow.documents.
"""

from __future__ import annotations

import threading
import typing

from wrtflow import core as cores
from wrtflow import flow, health, settings

try:
    from syslogng import LogMessage, LogParser, LogSource  # type: ignore[import-not-found,unused-ignore]
except ImportError:  # outside syslog-ng: the tests

    class LogParser:  # type: ignore[no-redef]
        """Stands in for syslog-ng's class."""

    class LogSource:  # type: ignore[no-redef]
        """Stands in for syslog-ng's class."""

    LogMessage = dict

Message = typing.Any


_lock = threading.Lock()
_users = 0
_core: cores.Core | None = None


def _start() -> cores.Core:
    """Return the one Core, started. Counted: each has its _stop()."""
    global _users, _core
    with _lock:
        loaded = settings.load()
        if _core is None or (_users == 0 and _core.settings != loaded):
            _core = cores.Core(loaded, _core)
        if _users == 0:
            _core.start()
        # The databases may be new ones.
        _core.places.clear()
        _users += 1
        return _core


def _stop() -> None:
    global _users
    with _lock:
        _users -= 1
        if _users == 0 and _core is not None:
            _core.stop()


class _Parser(LogParser):  # type: ignore[misc]
    core: cores.Core

    def init(self, options: dict[str, typing.Any]) -> bool:
        try:
            self.core = _start()
        except (settings.SettingsError, ValueError) as error:
            health.say(health.ERROR, f"the settings can't be used: {error}")
            return False
        return True

    def deinit(self) -> None:
        _stop()


class Line(_Parser):
    """Reads a router's line. Only flows pass."""

    def parse(self, message: Message) -> bool:
        """Make the message a flow event, cut down to its key where grouping-by() will hold it."""
        text = message["MESSAGE"].decode("utf-8", "replace")
        sender = message["SOURCEIP"].decode()
        core = self.core
        try:
            found = core.line(text, sender)
        except flow.Refused as why:
            core.refuse(sender, why, text)
            return False
        if found is None:
            return False
        key, event = found
        # The memory of an open flow is this message: in place of the line, the key needs no more room.
        message["MESSAGE"] = key
        if event.event == "NEW":
            message["flow.opened"] = cores.opening(core.opened(key, text), event.stamp)
        else:
            message["flow.closed"] = text
        return True


class Json(_Parser):
    """Reads an object of ulogd's JSON output. Only ends of flows pass."""

    def parse(self, message: Message) -> bool:
        """Make the message a flow that is ready for its document: there is nothing to correlate."""
        text = message["MESSAGE"].decode("utf-8", "replace")
        sender = message["SOURCEIP"].decode()
        try:
            found = self.core.object(text, sender)
        except flow.Refused as why:
            self.core.refuse(sender, why, text)
            return False
        if found is None or found[1].event != "DESTROY":
            return False
        message["MESSAGE"] = found[0]
        message["flow.closed"] = text
        return True


class Document(_Parser):
    """Makes the document of an ended flow. What passes are flows whose addresses have to be placed first."""

    placed = False

    def parse(self, message: Message) -> bool:
        """Put the document into the outbox, or place.source and place.destination on the message."""
        key, opened = message["MESSAGE"].decode(), message.get("flow.opened", b"").decode()
        closed = message.get("flow.closed", b"").decode()
        get = (lambda name: message.get(name, b"").decode("utf-8", "replace")) if self.placed else None
        try:
            if closed:
                self.core.finished(key, closed, opened, get)
            else:
                start, _, line = message["flow.lost"].decode().partition(" ")
                self.core.lost(key, int(start), line, opened, get)
        except cores.Unplaced as unplaced:
            message["place.source"], message["place.destination"] = unplaced.args
            return True
        return False


class PlacedDocument(Document):
    """Makes the document with what geoip2() has found."""

    placed = True


class _Source(LogSource):  # type: ignore[misc]
    core: cores.Core

    def init(self, options: dict[str, typing.Any]) -> bool:
        self.core = _start()
        return True

    def deinit(self) -> None:
        _stop()


class Endings(_Source):
    """Flows whose DESTROY will not come. They go through grouping-by(), which lets go of them, to their documents."""

    def run(self) -> None:
        """Post endings until request_exit()."""
        while (lost := self.core.endings.get()) is not None:
            message = LogMessage(lost.key)
            message["flow.lost"] = f"{lost.start} {lost.line}"
            self.post_message(message)
        # Nobody makes documents any more: syslog-ng reads no lines once it asks its sources to exit.
        self.core.outbox.stop()

    def request_exit(self) -> None:
        """Make run() return."""
        self.core.endings.put(None)


class Documents(_Source):
    """Finished documents, those of a moment in one message."""

    def run(self) -> None:
        """Post documents until Endings.run() has returned, whose documents are the last."""
        self.core.outbox.run(self._post)

    def _post(self, text: str) -> None:
        message = LogMessage()
        message["wrtflow.documents"] = text
        self.post_message(message)

    def request_exit(self) -> None:
        """Nothing to do: see run()."""
