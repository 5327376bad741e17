#!/usr/bin/python3
"""A name server for the benchmark, which takes its time. Usage: resolver.py SECONDS|never

Every IPv4 address has a reverse name, host-A-B-C-D.example, and that name has the address.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading

PTR, A = 12, 1


def main() -> None:
    """Answer until it is killed."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    while True:
        question, client = server.recvfrom(512)
        if sys.argv[1] != "never":
            threading.Timer(float(sys.argv[1]), server.sendto, (answer(question), client)).start()


def answer(question: bytes) -> bytes:
    """Return the answer: one record of a day behind a pointer to the question, or that there is none."""
    labels, at = [], 12
    while question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode("ascii", "replace"))
        at += 1 + question[at]
    (kind,) = struct.unpack("!H", question[at + 1 : at + 3])
    data = b""
    if kind == PTR and labels[4:] == ["in-addr", "arpa"]:
        host = f"host-{'-'.join(reversed(labels[:4]))}".encode()
        data = bytes([len(host)]) + host + b"\x07example\x00"
    elif kind == A and labels[0].startswith("host-"):
        data = socket.inet_aton(labels[0].removeprefix("host-").replace("-", "."))
    record = b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 86400, len(data)) + data if data else b""
    head = question[:2] + struct.pack("!5H", 0x8180, 1, bool(data), 0, 0)
    return head + question[12 : at + 5] + record


if __name__ == "__main__":
    main()
