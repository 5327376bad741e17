"""Stands in for the module inside syslog-ng: its classes, without their functions."""


class LogDestination:
    SUCCESS, QUEUED, NOT_CONNECTED = 3, 4, 5


class LogParser:
    pass


class LogSource:
    pass


LogMessage = dict
