"""Take the pictures of docs/guide/report.md: the report of a run, light, dark and on a phone.

python docs/screenshots.py          # a run of the demo's log, made for it: a minute on two cores; needs Chromium
python docs/screenshots.py RUN      # of another run

Writes docs/images/report_light.png, report_dark.png and report_phone.png, each below 300 kB.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests" / "support")]

from fae.cli.main import main as fae  # noqa: E402

from chromium import BROWSER, browser  # noqa: E402

PICTURES = {"light": (1200, 1400, False), "dark": (1200, 1400, True), "phone": (390, 1700, False)}
"""Width and height of each picture, and whether its theme is dark."""
MOST_BYTES = 300_000


def take_pictures(run: Path, out: Path) -> list[Path]:
    """Draw the report of a run and take its pictures.

    Parameters
    ----------
    run
        Folder of a run.
    out
        Folder of the pictures.

    Returns
    -------
    list of Path
        The pictures.
    """
    pictures = []
    with tempfile.TemporaryDirectory() as folder, browser() as window:
        page = Path(folder) / "report.html"
        assert fae(["report", str(run), "--out", str(page)]) == 0
        for name, (width, height, dark) in PICTURES.items():
            window.open(page, width=width, dark=dark)
            picture = out / f"report_{name}.png"
            window.screenshot(picture, height=height)
            assert not window.console, window.console
            assert picture.stat().st_size < MOST_BYTES, f"{picture} has {picture.stat().st_size} bytes"
            pictures.append(picture)
    return pictures


@contextlib.contextmanager
def example_run() -> Iterator[Path]:
    """Make a run of the demo's log by paths that do not name the folder they are in; it is gone after the block."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        assert fae(["demo", "--out", "runs/demo"]) == 0
        assert fae(["run", "runs/demo/demo.toml", "--out", "runs/criteo", "--set", "train.learning_rate=0.05"]) == 0
        yield Path("runs/criteo")


def main() -> int:
    """Take the pictures of the run that is named, or of one made for it."""
    if BROWSER is None or len(sys.argv) > 2:
        print(f"{__doc__}\nChromium was {'not ' * (BROWSER is None)}found", file=sys.stderr)
        return 2
    out = ROOT / "docs" / "images"
    with contextlib.nullcontext(Path(sys.argv[1])) if len(sys.argv) == 2 else example_run() as run:
        for picture in take_pictures(run, out):
            print(f"{picture.relative_to(ROOT)}: {picture.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
