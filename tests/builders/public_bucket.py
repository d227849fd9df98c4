"""A web server with a public bucket in a folder: ranges, checksums, S3's listings, and faults on demand."""

from __future__ import annotations

import gzip
import hashlib
import re
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class PublicBucket(ThreadingHTTPServer):
    """Files of a folder.

    Attributes
    ----------
    asked : list of (str, str, str)
        Method, key and range of every request.
    faults : dict of str to list
        What happens at the next requests for a key, the first first: a status code, ``cut`` (half of what is sent),
        ``half`` (as if the file were half as long), ``reset``, ``page`` (a web page in its place), ``wrong`` (other
        bytes), ``no range`` (all, whatever is asked for), ``no head``, ``loop`` (sent elsewhere without end), ``header``
        (the connection ends within the header), ``gzip`` (packed, whatever is asked for; a ``.gz`` is only called so).
    retry_after : str
        Sent with every status code of `faults`.
    """

    daemon_threads = True

    def __init__(self, root: Path, *, listing: str = "s3", page: int = 1000):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root, self.listing, self.page = root, listing, page
        self.asked: list[tuple[str, str, str]] = []
        self.faults: dict[str, list[int | str]] = defaultdict(list)
        self.retry_after = ""

    @property
    def address(self) -> str:
        """For ``--from``."""
        return f"http://127.0.0.1:{self.server_port}/bucket"

    def sent(self, method: str = "GET") -> list[str]:
        """Keys of the files asked for, listings apart."""
        return [key for how, key, _ in self.asked if how == method and not key.endswith("/")]


@contextmanager
def serve(root: Path, files: Mapping[str, bytes] = {}, **options: object) -> Iterator[PublicBucket]:
    """Serve files by their keys."""
    root.mkdir(parents=True, exist_ok=True)
    for key, content in files.items():
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(content)
    with PublicBucket(root, **options) as server:  # type: ignore[arg-type]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: PublicBucket
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        key, query = unquote(parts.path).removeprefix("/bucket/"), parse_qs(parts.query)
        if "list-type" in query:
            key = query["prefix"][0]
        self.server.asked.append((self.command, key, self.headers.get("Range", "")))
        faults = self.server.faults[key]
        fault = "no head" if "no head" in faults and self.command == "HEAD" else None
        if fault is None and self.command == "GET" and faults and faults[0] != "no head":
            fault = faults.pop(0)
        if isinstance(fault, int) or fault == "no head":
            headers = {"Retry-After": self.server.retry_after} if self.server.retry_after else {}
            self._send(501 if fault == "no head" else int(fault), b"", headers)
        elif fault == "loop":
            self._send(302, b"", {"Location": self.path})
        elif fault == "header":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le")
            self.close_connection = True
        elif "list-type" in query:
            self._list(key, query)
        elif key.endswith("/") and self.server.listing == "html":
            names = [f"{p.name}/" if p.is_dir() else p.name for p in (self.server.root / key).iterdir()]
            links = "".join(f'<li><a href="{name}">{name}</a></li>' for name in names)
            self._send(
                200, f'<html><a href="../">up</a>{links}</html>'.encode(), {"Content-Type": "text/html"}
            )
        elif not (self.server.root / key).is_file():
            self._send(404, b"", {})
        else:
            self._file((self.server.root / key).read_bytes(), fault)

    def _file(self, content: bytes, fault: str | None) -> None:
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        if fault == "page":
            self._send(200, b"<html>log in</html>", {"Content-Type": "text/html"})
            return
        if fault == "wrong":
            content = content[::-1]
        if fault == "half":
            content = content[: len(content) // 2]
        if fault == "gzip":
            packed = content if self.path.endswith(".gz") else gzip.compress(content)
            self._send(200, packed, {"Content-Encoding": "gzip"})
            return
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        same = self.headers.get("If-Range", etag) == etag
        headers = {"ETag": etag, "Content-Type": "binary/octet-stream", "Accept-Ranges": "bytes"}
        if found and same and fault != "no range":
            begin = int(found[1])
            if begin >= len(content):
                self._send(416, b"", {})
                return
            end = min(int(found[2] or len(content)), len(content) - 1) + 1
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(content)}"
            self._send(206, content[begin:end], headers, fault)
        else:
            self._send(200, content, headers, fault)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str], fault: str | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault in ("cut", "reset"):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            if fault == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        self.wfile.write(body)

    def _list(self, prefix: str, query: Mapping[str, list[str]]) -> None:
        if self.server.listing != "s3":
            self._send(404, b"", {})
            return
        folder = self.server.root / prefix
        there = sorted(folder.iterdir()) if folder.is_dir() else []
        begin = int(query.get("continuation-token", ["0"])[0])
        shown, more = there[begin : begin + self.server.page], len(there) > begin + self.server.page
        lines = ['<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">']
        lines.append(f"<IsTruncated>{str(more).lower()}</IsTruncated>")
        if more:
            lines.append(f"<NextContinuationToken>{begin + self.server.page}</NextContinuationToken>")
        for path in shown:
            name = escape(f"{prefix}{path.name}")
            if path.is_dir():
                lines.append(f"<CommonPrefixes><Prefix>{name}/</Prefix></CommonPrefixes>")
            else:
                lines.append(f"<Contents><Key>{name}</Key><Size>{path.stat().st_size}</Size></Contents>")
        body = "".join([*lines, "</ListBucketResult>"]).encode()
        self._send(200, body, {"Content-Type": "application/xml"})
