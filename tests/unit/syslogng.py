"""Stands in for the module that syslog-ng has inside: its classes, without what they do there."""


class LogDestination:
    SUCCESS, QUEUED, NOT_CONNECTED = 3, 4, 5


class LogParser:
    pass


class LogSource:
    pass


LogMessage = dict
