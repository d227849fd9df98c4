"""A stand-in of Google's storage: a bucket ``ours`` whose objects are the files of a folder."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

OBJECTS = "/storage/v1/b/ours/o/"


class GoogleBucket(ThreadingHTTPServer):
    """Objects to read; `faults` are of the next requests for a name: status codes, or the words of a 400."""

    daemon_threads = True

    def __init__(self, root: Path):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.asked: list[tuple[str, str]] = []
        self.faults: dict[str, list[int | str]] = defaultdict(list)


@contextmanager
def serve(root: Path) -> Iterator[GoogleBucket]:
    """Serve the files of a folder."""
    with GoogleBucket(root) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: GoogleBucket
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        of_content = path.startswith(f"/download{OBJECTS}")
        name = unquote(path.removeprefix("/download").removeprefix(OBJECTS))
        self.server.asked.append((name, self.headers.get("Range", "")))
        file = self.server.root / name
        if self.server.faults[name]:
            self._refuse(self.server.faults[name].pop(0))
        elif OBJECTS not in path or not file.is_file():
            self._refuse(404)
        elif of_content:
            self._send_content(file.read_bytes())
        else:
            about = {"name": name, "bucket": "ours", "size": str(file.stat().st_size)}
            self._send(200, json.dumps(about).encode(), {"Content-Type": "application/json"})

    def _send_content(self, content: bytes) -> None:
        begin, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        if not begin:
            self._send(200, content, {})
            return
        if int(begin) >= len(content):
            self._refuse(416)
            return
        end = min(int(last or len(content)) + 1, len(content))
        headers = {"Content-Range": f"bytes {begin}-{end - 1}/{len(content)}"}
        self._send(206, content[int(begin) : end], headers)

    def _refuse(self, fault: int | str) -> None:
        code, words = (fault, "refused") if isinstance(fault, int) else (400, fault)
        about = {"error": {"code": code, "message": words}}
        self._send(code, json.dumps(about).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
