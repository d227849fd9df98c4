"""A stand-in of the Hugging Face Hub's API for one repository: list, download, upload; and what it answers when it fails."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REPO = "org/name"


class Hub:
    """Files of `REPO`, and faults that are switched on: `status` of every answer, `half` of every file."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.status: int | None = None
        self.half = False
        self.gated = False
        self.asked: list[str] = []
        self.private: bool | None = None
        self.url = ""

    @property
    def commit(self) -> str:
        content = b"".join(name.encode() + body for name, body in sorted(self.files.items()))
        return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            headers.setdefault("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def json(self, value: Any, status: int = 200) -> None:
            self.answer(status, json.dumps(value).encode(), Content_Type="application/json")

        def refused(self) -> bool:
            hub.asked.append(self.path)
            if hub.status is not None:
                self.answer(hub.status)
            elif hub.gated:
                self.answer(403, X_Error_Code="GatedRepo", X_Error_Message="gated")
            elif (
                REPO not in self.path and "repos/create" not in self.path and "validate-yaml" not in self.path
            ):
                self.answer(404, X_Error_Code="RepoNotFound", X_Error_Message="not found")
            elif "/absent" in self.path:
                self.answer(404, X_Error_Code="RevisionNotFound", X_Error_Message="no revision")
            else:
                return False
            return True

        def do_GET(self) -> None:
            if self.refused():
                return
            if found := re.fullmatch(rf"/{REPO}/resolve/[^/]+/(.+)", self.path.split("?")[0]):
                body = hub.files[found[1]]
                headers = {
                    "ETag": f'"{hashlib.sha256(body).hexdigest()}"',
                    "X_Repo_Commit": hub.commit,
                    "Accept_Ranges": "bytes",
                }
                sent = body[: len(body) // 2] if hub.half and self.command != "HEAD" else body
                if hub.half:
                    headers |= {"Content_Length": str(len(body)), "Connection": "close"}
                    self.close_connection = True
                self.answer(200, sent, **headers)
            elif "/tree/" in self.path:
                self.json(
                    [
                        {
                            "type": "file",
                            "path": name,
                            "size": len(body),
                            "oid": hashlib.sha256(body).hexdigest()[:40],
                        }
                        for name, body in hub.files.items()
                    ]
                )
            else:
                listed = [{"rfilename": name} for name in hub.files]
                self.json({"id": REPO, "sha": hub.commit, "siblings": listed, "private": False, "tags": []})

        do_HEAD = do_GET

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            if self.refused():
                return
            if "repos/create" in self.path:
                asked = json.loads(body)
                hub.private = bool(asked.get("private") or asked.get("visibility") == "private")
                self.json({"url": f"{hub.url}/{REPO}", "id": "1", "name": REPO})
            elif "validate-yaml" in self.path:
                self.json({"errors": [], "warnings": []})
            elif "/preupload/" in self.path:
                names = [file["path"] for file in json.loads(body)["files"]]
                modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
                self.json({"files": modes})
            elif "/commit/" in self.path:
                for line in body.splitlines():
                    entry = json.loads(line)
                    if entry["key"] == "file":
                        hub.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                self.json({"commitUrl": f"{hub.url}/{REPO}/commit/{hub.commit}", "commitOid": hub.commit})
            else:
                self.answer(404)

    return Handler


@contextmanager
def serve() -> Iterator[Hub]:
    """Start it on a free port of this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
