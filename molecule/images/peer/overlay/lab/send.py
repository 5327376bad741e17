"""Send log lines to a collector as a router's logread does.

    send.py tcp|udp SOURCE COLLECTOR PORT FILE

FILE holds the lines with a NUL between them. Over TCP, a newline ends each line. Over UDP, each line is one datagram,
with a short pause after it: a receiver can't slow UDP down.
"""

import socket
import sys
import time

transport, source, collector, port, path = sys.argv[1:]
with open(path, "rb") as file:
    lines = file.read().split(b"\0")
kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
with socket.socket(socket.AF_INET, kind) as sock:
    sock.bind((source, 0))
    sock.connect((collector, int(port)))
    for line in lines:
        if transport == "tcp":
            sock.sendall(line + b"\n")
        else:
            sock.send(line)
            time.sleep(0.0002)
