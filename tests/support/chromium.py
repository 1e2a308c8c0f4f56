"""Pages in headless Chromium: what the console says, what a script finds in the page, what it looks like.

python tests/support/chromium.py PAGE.html [PICTURE.png [WIDTH]]     # exits 1 if the console says anything

The browser is driven through its own protocol over a pipe, so width and theme are those of a phone or a dark desktop,
and scripts run beside the page's content security policy.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
    "about:blank",
)
_PATIENCE = 60.0
"""Seconds that the browser may take for one answer."""
_TALLEST = 16_000
"""Pixels of a picture; Chromium takes no taller one."""


class Browser:
    """One browser with one tab.

    Attributes
    ----------
    console
        What the console said since the last `open`: messages of scripts, errors, requests that were refused.
    requests
        Addresses that the page asked of the network or the disk since the last `open`, itself included.
    """

    def __init__(self, process: subprocess.Popen[bytes], to_browser: int, from_browser: int) -> None:
        self.console: list[str] = []
        self.requests: list[str] = []
        self._process, self._to, self._from = process, to_browser, from_browser
        self._buffer, self._number, self._session = b"", 0, ""
        self._loaded = False
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._send(f"{domain}.enable")

    def open(self, page: Path, *, width: int = 1200, height: int = 900, dark: bool = False, media: str = "") -> None:
        """Open a page in a window of that size and theme, and wait until it is loaded.

        Parameters
        ----------
        media
            ``"print"`` to see it as on paper.
        """
        self._send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._send("Emulation.setEmulatedMedia", media=media, features=[theme])
        self.console.clear()
        self.requests.clear()
        self._loaded = False
        self._send("Page.navigate", url=page.absolute().as_uri())
        end = time.monotonic() + _PATIENCE
        while not self._loaded:
            self._read(end)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        found = self._send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str, *, code: int) -> None:
        """Press one key, as on a keyboard; `code` is its Windows key code."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self._send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def screenshot(self, picture: Path, *, height: int | None = None) -> None:
        """Take a picture of the page: all of it, or its first `height` pixels."""
        width, full = self.evaluate("[document.documentElement.clientWidth, document.documentElement.scrollHeight]")
        area = {"x": 0, "y": 0, "width": width, "height": min(height or full, full, _TALLEST), "scale": 1}
        found = self._send("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=area)
        picture.write_bytes(base64.b64decode(found["data"]))

    def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + _PATIENCE
        while True:
            answer = self._read(end)
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return dict(answer["result"])

    def _read(self, end: float) -> dict[str, Any]:
        """The next message of the browser; events are kept."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(0.0, end - time.monotonic()))
            part = os.read(self._from, 1 << 16) if ready else b""
            assert part, f"Chromium gave no answer (status {self._process.poll()})"
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        self._keep(message.get("method", ""), message.get("params", {}))
        return message

    def _keep(self, event: str, facts: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Runtime.consoleAPICalled":
            self.console.append(" ".join(str(each.get("value", each)) for each in facts["args"]))
        elif event == "Runtime.exceptionThrown":
            self.console.append(str(facts["exceptionDetails"].get("text")))
        elif event == "Log.entryAdded":
            self.console.append(str(facts["entry"]["text"]))
        elif event == "Network.requestWillBeSent" and not facts["request"]["url"].startswith("data:"):
            self.requests.append(facts["request"]["url"])


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Start a browser with a profile of its own; it ends with the block."""
    assert BROWSER is not None
    read_commands, to_browser = os.pipe()
    from_browser, write_answers = os.pipe()
    # The browser reads commands from descriptor 3 and answers on 4; moved up first, so that neither is in the way.
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (read_commands, write_answers)]
    os.close(read_commands)
    os.close(write_answers)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [BROWSER, f"--user-data-dir={profile}", *_OPTIONS],
            pass_fds=(3, 4), preexec_fn=lambda: [os.dup2(end, place) for end, place in zip(ends, (3, 4), strict=True)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in ends:
            os.close(end)
        try:
            yield Browser(process, to_browser, from_browser)
        finally:
            os.close(to_browser)  # without its pipe the browser ends
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(from_browser)


def main() -> int:
    """Check one page, and take its picture where a file for it is named."""
    if BROWSER is None or len(sys.argv) < 2:
        print(
            "usage: python tests/support/chromium.py PAGE.html [PICTURE.png [WIDTH]]; Chromium must be installed",
            file=sys.stderr,
        )
        return 2
    with browser() as window:
        window.open(Path(sys.argv[1]), width=int(sys.argv[3]) if len(sys.argv) > 3 else 1200)
        if len(sys.argv) > 2:
            window.screenshot(Path(sys.argv[2]))
        print("\n".join(window.console), end="\n" if window.console else "")
        return bool(window.console)


if __name__ == "__main__":
    sys.exit(main())
