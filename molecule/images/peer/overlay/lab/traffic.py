"""Make flows, one after the other, and print their addresses and ports.

Standard input: a JSON list of flows, each {"device": "10.77.0.20", "transport": "tcp"|"udp"|"icmp", "family": 4|6,
"site": a name or an address, "port": n, "up": bytes to send, "down": bytes to fetch, "hold": seconds to stay open}.
Standard output: the same list, each flow with source, source_port and destination as conntrack has them.
"""

import json
import os
import socket
import subprocess
import sys

RESOLVER = "10.77.0.1"


def resolve(flow: dict) -> str:
    """Ask the router for the site's address, from the device's own address, as a device does."""
    site = flow["site"]
    if not any(c.isalpha() for c in site.replace(":", "")) or ":" in site:
        return site
    answer = subprocess.run(
        ["dig", "+short", "-b", flow["device"], f"@{RESOLVER}", site, "AAAA" if flow["family"] == 6 else "A"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    if not answer:
        raise SystemExit(f"{site} has no address of family {flow['family']}: is the router's DNS up?")
    return answer[-1]


def open_socket(flow: dict, kind: int) -> socket.socket:
    """Return a socket of the flow's family, bound to its device, connected to its destination."""
    family = socket.AF_INET6 if flow["family"] == 6 else socket.AF_INET
    sock = socket.socket(family, kind)
    sock.settimeout(15)
    if flow["family"] == 4:
        sock.bind((flow["device"], 0))
    sock.connect((flow["destination"], flow["port"]))
    flow["source"], flow["source_port"] = sock.getsockname()[:2]
    return sock


def tcp(flow: dict) -> None:
    """Upload and download by HTTP. With hold, a child process keeps the connection open."""
    sock = open_socket(flow, socket.SOCK_STREAM)
    if flow.get("hold"):
        sock.sendall(b"GET /hold HTTP/1.1\r\n\r\n")
        sock.recv(1)
        if os.fork() == 0:
            os.close(0), os.close(1), os.close(2)
            sock.settimeout(flow["hold"])
            try:
                sock.recv(65536)
            finally:
                os._exit(0)
        return
    if flow.get("up"):
        sock.sendall(b"POST /%d HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (flow.get("down", 0), flow["up"]))
        sock.sendall(bytes(flow["up"]))
    else:
        sock.sendall(b"GET /%d HTTP/1.1\r\n\r\n" % flow.get("down", 0))
    while sock.recv(65536):
        pass
    sock.close()


def udp(flow: dict) -> None:
    """Send datagrams of up to 1,200 bytes and wait for the echo of each."""
    sock = open_socket(flow, socket.SOCK_DGRAM)
    left = flow["up"]
    while left > 0:
        sock.send(bytes(min(left, 1200)))
        sock.recv(2048)
        left -= 1200


def icmp(flow: dict) -> None:
    """Ping three times."""
    flow["source"] = flow["device"] if flow["family"] == 4 else "fd77:0:0:1::20"
    flow["source_port"] = None
    subprocess.run(
        ["ping", "-q", "-c", "3", "-i", "0.2", "-I", flow["source"], flow["destination"]],
        check=True,
        stdout=subprocess.DEVNULL,
    )


flows = json.load(sys.stdin)
for each in flows:
    each["destination"] = resolve(each)
    {"tcp": tcp, "udp": udp, "icmp": icmp}[each["transport"]](each)
json.dump(flows, sys.stdout)
