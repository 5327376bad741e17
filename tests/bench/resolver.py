#!/usr/bin/python3
"""A name server that knows a reverse name of every address, and takes its time. Usage: resolver.py SECONDS|never"""

from __future__ import annotations

import socket
import struct
import sys
import threading

# A PTR record of 300 s behind a pointer to the question: host.example.
_NAME = b"\x04host\x07example\x00"
_ANSWER = b"\xc0\x0c" + struct.pack("!HHIH", 12, 1, 300, len(_NAME)) + _NAME


def main() -> None:
    """Answer until it is killed."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    while True:
        question, client = server.recvfrom(512)
        if sys.argv[1] != "never":
            end = question.index(b"\x00", 12) + 5
            answer = question[:2] + struct.pack("!5H", 0x8180, 1, 1, 0, 0) + question[12:end] + _ANSWER
            threading.Timer(float(sys.argv[1]), server.sendto, (answer, client)).start()


if __name__ == "__main__":
    main()
