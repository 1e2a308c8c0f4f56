"""Open a page in headless Chromium: what its console says, and what it looks like.

python tests/support/chromium.py PAGE.html [PICTURE.png]     # exits 1 if the console says anything
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
_OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
]


def open_page(page: Path, *options: str) -> tuple[str, list[str]]:
    """Open a page in a fresh browser; returns the document after loading, and every line of its console."""
    assert BROWSER is not None
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [BROWSER, *_OPTIONS, f"--user-data-dir={profile}", *options, page.absolute().as_uri()],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
    # Refused resources, script errors and console.log alike; lines about the browser itself are not the page's.
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def main() -> int:
    """Check one page, and take its picture where a file for it is named."""
    if BROWSER is None or len(sys.argv) < 2:
        print(
            "usage: python tests/support/chromium.py PAGE.html [PICTURE.png]; Chromium must be installed",
            file=sys.stderr,
        )
        return 2
    size = "--window-size=1200,1500"
    _, console = open_page(Path(sys.argv[1]), "--dump-dom", size)
    if len(sys.argv) > 2:
        open_page(Path(sys.argv[1]), size, f"--screenshot={Path(sys.argv[2]).absolute()}")
    print("\n".join(console), end="\n" if console else "")
    return bool(console)


if __name__ == "__main__":
    sys.exit(main())
