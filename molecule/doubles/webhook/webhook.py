"""Stands for whatever takes alerts by HTTP: keeps the JSON of each POST, one object a line.

webhook.py PORT FILE
"""

import http.server
import sys
from pathlib import Path

PORT, FILE = int(sys.argv[1]), Path(sys.argv[2])


class Hook(http.server.BaseHTTPRequestHandler):
    """Takes everything."""

    def do_POST(self) -> None:
        """Write the JSON to the file, and answer 204."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        with FILE.open("ab") as file:
            file.write(content.replace(b"\n", b" ") + b"\n")
        self.send_response(204)
        self.end_headers()


http.server.HTTPServer(("", PORT), Hook).serve_forever()
