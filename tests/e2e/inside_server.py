"""`python3 inside_server.py PORT`: a server for sandboxes, of the standard library alone, with odd habits."""

import base64
import hashlib
import json
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote_to_bytes

GO = threading.Event()
FILE = bytes(range(256)) * 16
PAGE = b"""<!doctype html><title>inside</title><h1>Inside</h1><output id=seen></output><script>
  const seen = [];
  const attempt = (name, act) => {
    try { seen.push(name + "=" + act()); } catch (e) { seen.push(name + "!" + e.name); }
  };
  attempt("cookie", () => { document.cookie = "mine=1"; return document.cookie; });
  attempt("store", () => { localStorage.setItem("k", "v"); return localStorage.getItem("k"); });
  attempt("parent", () => parent.document.title);
  attempt("toss", () => {
    document.cookie = "toss=1; Domain=localhost; Path=/";
    document.cookie = "dialtone_session=mine; Domain=localhost; Path=/";
    return document.cookie;
  });
  attempt("top", () => { top.location = "about:blank"; return "moved"; });
  (async () => {
    for (const origin of new URLSearchParams(location.search).getAll("console")) {
      const post = { method: "POST", mode: "no-cors", credentials: "include" };
      try { seen.push("post=" + (await fetch(origin + "/api/agent/initiate", post)).type); }
      catch (e) { seen.push("post!" + e.name); }
      for (const credentials of ["include", "omit"])
        try { seen.push("fetch=" + (await fetch(origin + "/api/agent", {credentials})).status); }
        catch (e) { seen.push("fetch!" + e.name); }
    }
    try { seen.push("own=" + (await (await fetch("/text")).text())); } catch (e) { seen.push("own!" + e.name); }
    const sent = (await (await fetch("/echo", { credentials: "include" })).json()).headers;
    seen.push("sent=" + JSON.stringify(sent.filter(([name]) => name.toLowerCase() === "cookie")));
    document.getElementById("seen").textContent = seen.join(" ") + " done";
  })();
</script>"""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        act = getattr(self, "on" + path.replace("/", "_").replace("-", "_"), None)
        (act or self.echo)()

    do_HEAD = do_PUT = do_OPTIONS = do_GET

    def do_POST(self) -> None:
        if self.path == "/go":
            GO.set()
        self.echo()

    def give(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def echo(self) -> None:
        body = self.body()
        told: dict[str, Any] = {"method": self.command, "path": self.path, "headers": self.headers.items()}
        told |= {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        self.give(json.dumps(told).encode(), Content_Type="application/json")

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def on_text(self) -> None:
        self.give(b"text", Content_Type="text/plain")

    def on_page(self) -> None:
        self.give(PAGE, Content_Type="text/html", X_Frame_Options="DENY")

    def on_plain(self) -> None:
        self.give(b"<!doctype html><title>inside</title><h1>Inside</h1>", Content_Type="text/html")

    def on_range(self) -> None:
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        self.give(FILE[first : last + 1], 206, Content_Range=f"bytes {first}-{last}/{len(FILE)}")

    def on_unchanged(self) -> None:
        self.send_response(304)
        self.send_header("ETag", '"e"')
        self.send_header("Content-Length", "5")
        self.end_headers()

    def on_large(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(64 * 1_048_576))
        self.end_headers()
        for _ in range(64):
            self.wfile.write(b"x" * 1_048_576)

    def on_odd(self) -> None:
        self.send_response(200)
        for name, value in [
            ("Connection", "keep-alive, X-Hop"), ("X-Hop", "1"), ("Set-Cookie", "a=1; Domain=example.com; Path=/"),
            ("Set-Cookie", "b=2"), ("X-Frame-Options", "DENY"), ("Alt-Svc", 'h3=":443"'), ("X-Kept", "yes"),
            ("Clear-Site-Data", '"cookies"'),
            ("Strict-Transport-Security", "max-age=9"), ("Referrer-Policy", "unsafe-url"), ("Content-Length", "0"),
            ("X-Accel-Redirect", "/metrics"), ("X-Accel-Buffering", "yes"), ("X-Sendfile", "/etc/passwd"),
        ]:  # fmt: skip
            self.send_header(name, value)
        self.end_headers()

    def on_raw(self) -> None:
        """Answers with what the query says, byte for byte."""
        self.wfile.write(unquote_to_bytes(self.path.partition("?")[2]))
        self.close_connection = True

    def on_redirect(self) -> None:
        assert isinstance(self.server, HTTPServer)
        port = self.server.server_port
        to = {"own": f"http://localhost:{port}/text?x#y", "ip": f"http://127.0.0.1:{port}/", "path": "/text"}
        to |= {"far": f"https://example.com/{port}", "near": "http://localhost:1"}
        to |= {"fool": f"http://localhost:{port}@example.com/"}
        self.give(b"", 302, Location=to[self.path.partition("?")[2]])

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def start_chunks(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def on_events(self) -> None:
        """One event, and the second when somebody posts to /go."""
        GO.clear()
        self.start_chunks("text/event-stream")
        self.chunk(b"data: first\n\n")
        if GO.wait(20):
            self.chunk(b"data: second\n\n")
            self.wfile.write(b"0\r\n\r\n")

    def on_silence(self) -> None:
        self.start_chunks("text/event-stream")
        self.chunk(b"data: first\n\n")
        self.rfile.read(1)

    def on_cut(self) -> None:
        self.start_chunks("text/plain")
        self.chunk(b"half")
        self.close_connection = True

    def on_deny(self) -> None:
        self.give(b"no", 403)

    def on_socket(self) -> None:
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept)
        if "Sec-WebSocket-Protocol" in self.headers:
            self.send_header("Sec-WebSocket-Protocol", self.headers["Sec-WebSocket-Protocol"].split(",")[-1].strip())
        self.end_headers()
        self.frame(1, json.dumps(self.headers.items()).encode())
        while True:
            head = self.rfile.read(2)
            size = head[1] & 127
            if size == 126:
                (size,) = struct.unpack("!H", self.rfile.read(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", self.rfile.read(8))
            mask = self.rfile.read(4)
            message = bytes(byte ^ mask[place % 4] for place, byte in enumerate(self.rfile.read(size)))
            if head[0] & 15 == 8:
                return
            if message == b"bye":
                self.frame(8, struct.pack("!H", 4321))
                return
            if message == b"odd bye":
                self.frame(8, struct.pack("!H", 5000))
                return
            self.frame(head[0] & 15, message)

    def frame(self, kind: int, data: bytes) -> None:
        size = len(data)
        if size < 126:
            length = struct.pack("!B", size)
        else:
            length = struct.pack("!BH", 126, size) if size < 65_536 else struct.pack("!BQ", 127, size)
        self.wfile.write(bytes([0x80 | kind]) + length + data)

    def log_message(self, *args: Any) -> None:
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
