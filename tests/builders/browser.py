"""A headless Chromium that tests drive by the DevTools protocol over two pipes: no port and no client library.

`--virtual-time-budget` hangs on a busy machine; here every step waits for its own answer.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

#: Longest wait (s) for one answer; a machine that is busy is slow, not broken.
PATIENCE = 90
_WORDS = (
    "--headless", "--no-sandbox", "--disable-dev-shm-usage", "--disable-extensions", "--no-first-run",
    "--hide-scrollbars", "--force-color-profile=srgb", "--remote-debugging-pipe",
)  # fmt: skip
#: WebGL by the CPU, for pages that need it; without these there is none, as on a machine without a GPU.
WEBGL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


class NoAnswer(Exception):
    """The browser is silent."""


class Tab:
    """One page of a browser."""

    def __init__(self, to_browser: int, from_browser: int):
        self._out, self._in = to_browser, from_browser
        self._buffer, self._n = b"", 0
        self._session: str | None = None
        self.errors: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._n += 1
        message: dict[str, Any] = {"id": self._n, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._n:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        """The browser's next message; errors of the page are kept."""
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            some = os.read(self._in, 1 << 20) if ready else b""
            if not some:
                raise NoAnswer
            self._buffer += some
        line, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(line)
        if message.get("method") == "Runtime.exceptionThrown":
            thrown = message["params"]["exceptionDetails"]
            self.errors.append((thrown.get("exception") or {}).get("description") or thrown["text"])
        return message

    def open(self, page: Path) -> None:
        """Open a file and wait until it is loaded."""
        self.errors.clear()
        self.send("Page.navigate", url=page.resolve().as_uri())
        self.wait_for("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """Value of an expression, awaited if it is a promise."""
        answer = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.run(condition):
            assert time.monotonic() < end, f"never true: {condition}; {self.errors}"
            time.sleep(0.05)

    def show(self, width: int, *, height: int = 1000, dark: bool = False, media: str = "screen") -> None:
        """Set the size of the window (pixels), light or dark, and the medium."""
        size = {"width": width, "height": height}
        self.send("Emulation.setDeviceMetricsOverride", **size, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def picture(self, *, whole: bool = True) -> bytes:
        """PNG of the window, or of the whole page."""
        return base64.b64decode(self.send("Page.captureScreenshot", captureBeyondViewport=whole)["data"])


@contextlib.contextmanager
def browser(*more: str) -> Iterator[Tab]:
    """A tab of a browser that ends with this context; skips where there is no browser, or none that answers.

    Parameters
    ----------
    *more : str
        Further words of its command line, such as `WEBGL`.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium is installed")
    read_by_it, to_browser = os.pipe()
    from_browser, written_by_it = os.pipe()
    # the protocol is spoken on descriptors 3 and 4
    words = [program, *_WORDS, *(more or ("--disable-gpu",)), "about:blank"]
    shell = f'exec "$@" 3<&{read_by_it} 4>&{written_by_it}'
    process = subprocess.Popen(
        ["bash", "-c", shell, "bash", *words],
        pass_fds=(read_by_it, written_by_it), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for descriptor in (read_by_it, written_by_it):
        os.close(descriptor)
    try:
        try:
            tab = Tab(to_browser, from_browser)
        except (NoAnswer, BrokenPipeError):
            pytest.skip(f"chromium does not start here, or not in {PATIENCE} s")
        yield tab
    finally:
        process.kill()
        process.wait()
        for descriptor in (to_browser, from_browser):
            os.close(descriptor)


def axe() -> str:
    """The script of axe-core, as a package that is installed for the tests ships it; skips without it."""
    found = find_spec("axe_playwright_python")
    if found is None or not found.submodule_search_locations:
        pytest.skip("axe-core is not installed: pip install --no-deps -r envs/browser-tests.txt")
    return (Path(found.submodule_search_locations[0]) / "axe.min.js").read_text(encoding="utf-8")


def violations(tab: Tab, rules: Sequence[str] = ()) -> list[str]:
    """What axe-core, which the tab has run, finds wrong, by all rules or by some: rule, and its first element."""
    only = f", runOnly: {json.dumps([*rules])}" if rules else ""
    script = f"""axe.run(document, {{resultTypes: ["violations"]{only}}}).then(found => found.violations.map(
      rule => [rule.id, rule.nodes.length, rule.nodes[0].html.slice(0, 160), rule.nodes[0].failureSummary].join(" | ")))"""
    return tab.run(script)
