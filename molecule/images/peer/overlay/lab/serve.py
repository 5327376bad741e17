"""The lab's internet servers: HTTP on TCP 80, 443 and 8080, an echo on UDP 123, 443 and 5000.

GET /N answers with N bytes. The body of a POST is read and ignored. GET /hold keeps the connection open. Nothing is
encrypted: only the numbers of bytes matter here.
"""

import asyncio

TCP_PORTS = (80, 443, 8080)
UDP_PORTS = (123, 443, 5000)


async def handle_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one HTTP/1.1 request and close the connection."""
    try:
        method, path, _ = (await reader.readline()).decode("latin-1").split(" ", 2)
        length = 0
        while line := (await reader.readline()).strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
            if name.lower() == b"expect":
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if method == "POST":
            await reader.readexactly(length)
        if path == "/hold":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await reader.read()
        else:
            size = int(path.strip("/") or 0)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % size)
            writer.write(bytes(size))
        await writer.drain()
    except (ValueError, ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


class Echo(asyncio.DatagramProtocol):
    """Send every datagram back where it came from."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the socket."""
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple) -> None:
        """Send it back."""
        self.transport.sendto(data, addr)


async def main() -> None:
    """Listen on every address, IPv4 and IPv6, until the container stops."""
    loop = asyncio.get_running_loop()
    for port in TCP_PORTS:
        await asyncio.start_server(handle_http, port=port)
    # One socket for each address: the answer must come from the address that the datagram was sent to.
    for address in addresses():
        for port in UDP_PORTS:
            await loop.create_datagram_endpoint(Echo, local_addr=(address, port))
    await asyncio.Event().wait()


def addresses() -> list[str]:
    """Return the lab's internet addresses, as the script `internet` set them."""
    return [
        *(f"198.18.{net}.80" for net in (1, 2, 3, 5)),
        "198.18.4.123",
        *(f"fd77:0:0:2:{net}::80" for net in (1, 2, 3)),
    ]


asyncio.run(main())
