"""Reading rate of shards by URL from a local server, compared with the same shards on disk.

    python tests/benchmarks/remote.py                # 24 subjects
    python tests/benchmarks/remote.py --subjects 96 --rounds 7

What is measured is what every command does first: the index is opened, all tars are compared with their hashes (`verify`),
and each sample is read once. Subjects are drawn as in `shards.py`. From the server the tars are downloaded for it, through
fsspec into an empty cache. Files are cold: their pages are dropped before each measurement, the server's too. A second
run of the same job finds the cache full. `sockets` is what no download can do without: every tar is received by a bare
socket, hashed and written, and each sample read; the index is the disk's.
Every measurement is a process of its own, rounds are interleaved, ratios are of medians. They are given twice: of the clock,
and of seconds of this process's processor, since on a machine that is busy with other things the clock says little. The
goal is 0.7 of the disk's. No part of the test suite.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parent)]

#: Share of the disk's throughput that is to be reached.
GOAL = 0.7
#: Subjects of a shard.
SHARD = 6
#: Downloads at a time, as many as BHX makes.
THREADS = 4


class Handler(BaseHTTPRequestHandler):
    """Files of the working directory, by ranges, as the kernel sends them."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = Path(self.path.lstrip("/"))
        size = path.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        begin, end = (int(asked[1]), min(int(asked[2]) + 1, size)) if asked else (0, size)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(end - begin))
        if asked:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
        self.end_headers()
        if self.command == "GET":
            with path.open("rb") as file:
                self.connection.sendfile(file, begin, end - begin)


def serve(folder: Path) -> None:
    """Serve a folder until the end of the process; its port is the first line."""
    os.chdir(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


def forget(folder: Path) -> None:
    """Drop the pages of a folder's files."""
    for path in (path for path in folder.iterdir() if path.is_file()):
        with path.open("rb") as file:
            os.fsync(file)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def receive(port: int, tar: Path, sha256: str, out: Path) -> None:
    """Receive one tar by a socket, hash it and write it."""
    room, digest = memoryview(bytearray(1 << 20)), hashlib.sha256()
    with socket.create_connection(("127.0.0.1", port)) as there, out.open("wb", buffering=0) as file:
        there.sendall(f"GET /{tar.name} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += there.recv(1)
        while n := there.recv_into(room):
            digest.update(room[:n])
            file.write(room[:n])
    assert digest.hexdigest() == sha256


def child(place: str, port: int | None) -> None:
    """Open, verify and read the shards of a place, and print the seconds of each part; with a port by sockets."""
    from bhx_model.data import shard_hashes, shards

    if "://" in place:
        importlib.import_module("aiohttp")
        importlib.import_module("fsspec.implementations.http")
    began = time.perf_counter(), time.process_time()
    index = shards.open_index(place if "://" in place else Path(place))
    listed = [shard for of_modality in index.shards.values() for shard in of_modality]
    if port is None:
        shard_hashes.verify(listed)
    else:
        out = Path(os.environ["BHX_CACHE"])
        out.mkdir()
        with ThreadPoolExecutor(THREADS) as pool:
            list(
                pool.map(lambda shard: receive(port, shard.path, shard.sha256, out / shard.path.name), listed)
            )
    verified = time.perf_counter(), time.process_time()
    for sample in index.samples["bold"]:
        shards.read_bold(sample, len(index.metadata["roi_names"]))
    for sample in index.samples["t1w"]:
        shards.read_t1w([sample], index.metadata["t1w_shape"])
    ended = time.perf_counter(), time.process_time()
    found = {}
    for number, clock in enumerate(("clock", "processor")):
        found[f"verified, {clock}"] = verified[number] - began[number]
        found[f"and read, {clock}"] = ended[number] - began[number]
    print(json.dumps(found))


def measure(place: str, cache: Path, port: int | None = None) -> dict[str, float]:
    """One measurement, in a process of its own."""
    environment = {**os.environ, "BHX_CACHE": str(cache), "NO_PROXY": "127.0.0.1"}
    words = [sys.executable, str(HERE), "--child", place, *([] if port is None else ["--port", str(port)])]
    done = subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subjects", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured (default: a temporary one)")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve)
    elif args.child:
        child(args.child, args.port)
    else:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            compare(Path(folder), args.subjects, args.rounds)


def compare(folder: Path, subjects: int, rounds: int) -> None:
    """Print throughputs and their ratios."""
    import shards

    shards.write_features(folder / "features", subjects, SHARD)
    list(shards.pack_ours(folder / "features", folder / "shards"))
    index = folder / "shards" / "index.json"
    mb = sum(path.stat().st_size for path in index.parent.glob("*.tar")) / 1e6
    print(
        f"{subjects} subjects, {len(list(index.parent.glob('*.tar')))} tars, {mb:.0f} MB; MB/s, median of {rounds} rounds"
    )
    words = [sys.executable, str(HERE), "--serve", str(index.parent)]
    seconds: dict[str, list[dict[str, float]]] = {}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        url = f"http://127.0.0.1:{port}/index.json"
        cache, bare = folder / "cache", folder / "sockets"
        kinds = {
            "disk": (str(index), cache),
            "sockets": (str(index), bare, port),
            "loopback": (url, cache),
            "loopback again": (url, cache),
        }
        try:
            for _ in range(rounds):
                for name, how in kinds.items():
                    forget(index.parent)
                    seconds.setdefault(name, []).append(measure(*how))
                shutil.rmtree(cache)
                shutil.rmtree(bare)
        finally:
            server.terminate()
    medians = {
        name: {part: statistics.median(one[part] for one in found) for part in found[0]}
        for name, found in seconds.items()
    }
    print(f"{'':22}" + "".join(f"{name:>16}{'of disk':>9}" for name in seconds))
    for part, disk in medians["disk"].items():
        line = (f"{mb / found[part]:16.0f}{disk / found[part]:9.2f}" for found in medians.values())
        print(f"{part:22}" + "".join(line))
    for clock in ("clock", "processor"):
        share = medians["disk"][f"and read, {clock}"] / medians["loopback"][f"and read, {clock}"]
        print(f"goal {GOAL} by the {clock}: {share:.2f}, {'reached' if share >= GOAL else 'missed'}")


if __name__ == "__main__":
    main()
