"""Makes the pictures of the README and the tutorial: python docs/images/make.py [NAME ...]

terminal: trains the sample in a terminal, recorded as an animated SVG. report and demo: take
screenshots of the newest report and of the demo, which is exported if need be, with a headless
Chromium, light and dark. tutorial: the same for the tutorial, by its commands in a copy of the
project. Runs and exports stay where the commands leave them.
"""

import html
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from fcntl import ioctl
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.browser import Browser  # noqa: E402
from benchmarks.demo import serving  # noqa: E402
from tests.helpers import pages  # noqa: E402

HERE = Path(__file__).resolve().parent
NAME = "jax_mnist"
COMMAND = "python train.py -c config.json"
COLUMNS, ROWS, LINE, CHARACTER = 114, 17, 17, 7.23  # characters; pixels of a line, of a character
PAUSE, END = 0.4, 4  # seconds: the longest wait that is shown, and how long the end is
SPEED = 2  # times as fast as it was
WINDOW = (1180, 720)
COLOURS = 96  # of a picture
SEVEN = ([(0.27, 0.25), (0.5, 0.24), (0.72, 0.25), (0.62, 0.45), (0.52, 0.65), (0.46, 0.82)],)
STYLES = {"0": "", "1": "b", "2": "d", "31": "r", "32": "g", "33": "y"}
PAGE = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<title>{title}</title>
<style>
text {{ font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #d6dae0;
  white-space: pre }}
.b {{ font-weight: bold; fill: #fff }} .d {{ fill: #7d8590 }} .r {{ fill: #ff7b72 }}
.g {{ fill: #56d364 }} .y {{ fill: #e3b341 }}
.lines {{ animation: lines {seconds:.1f}s step-end infinite }}
.bars {{ animation: bars {seconds:.1f}s step-end infinite }}
@keyframes lines {{ {lines_moves} }}
@keyframes bars {{ {bars_moves} }}
@media (prefers-reduced-motion) {{
  .lines {{ animation: none; transform: translateY({lines_end}px) }}
  .bars {{ animation: none; transform: translateY({bars_end}px) }}
}}
</style>
<rect width="100%" height="100%" rx="8" fill="#0d1117"/>
<svg x="12" y="10" width="{inner}" height="{above}"><g class="lines">
{lines}
</g></svg>
<svg x="12" y="{bar_top}" width="{inner}" height="{line}"><g class="bars">
{bars}
</g></svg>
</svg>
"""


def main(*wanted):
    """Makes the pictures that are wanted; by default all."""
    wanted = wanted or ("terminal", "report", "demo", "tutorial")
    if "terminal" in wanted:
        (HERE / "terminal.svg").write_text(draw_recording(*record(COMMAND)), encoding="utf-8")
    if "report" in wanted:
        take_screenshots("report", max(ROOT.glob("saved/MNIST_Sample/*/report.html")))
    if "demo" in wanted:
        if not (ROOT / "inference" / NAME).exists():
            command = ["inference/convert_tflite.py", "--name", NAME, "-w", "latest"]
            subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
        with serving(NAME) as address:
            take_screenshots("demo", address, draw_seven)
    if "tutorial" in wanted:
        with tempfile.TemporaryDirectory() as folder:
            follow_tutorial(pages.make_project(Path(folder) / "project", "docs/tutorial.md"))
    for path in sorted(HERE.iterdir()):
        print(f"{path.stat().st_size:8,} bytes  {path.name}")


def follow_tutorial(project):
    """Runs the tutorial's commands and takes screenshots of the report and the demo."""

    def script(*words, cwd):
        return subprocess.run([sys.executable, *words], cwd=cwd, capture_output=True, text=True)

    for command in pages.commands("docs/tutorial.md"):
        if not command.line.startswith("pip "):
            pages.check_command(command, project, script)
    take_screenshots("tutorial-report", max(project.glob("saved/*/*/report.html")), dark=(False,))
    with serving(project / "inference" / "shapes") as address:
        picture = project / "pictures" / "triangle" / "2.png"
        choose = lambda page: page.choose("input[type=file]", picture)  # noqa: E731
        take_screenshots("tutorial-demo", address, choose, dark=(False,))


def take_screenshots(name, address, prepare=None, dark=(False, True)):
    """Writes name-light.png and name-dark.png of a page, or of a file."""
    address = address.as_uri() if isinstance(address, Path) else address
    with Browser() as page:
        for is_dark in dark:
            page.look(*WINDOW, dark=is_dark)
            page.open(address)
            if prepare:
                prepare(page)
                page.wait("document.querySelector('.best')?.textContent")
                time.sleep(0.3)  # until the bars have grown
            path = HERE / f"{name}-{'dark' if is_dark else 'light'}.png"
            page.screenshot(path)
            with Image.open(path) as image:
                small = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
            small.save(path, optimize=True)


def draw_seven(page):
    """Draws a 7 on the demo's sheet."""
    left, top, width, height = page.box(".paper")
    for stroke in SEVEN:
        page.stroke([(left + x * width, top + y * height) for x, y in stroke], pause=0.03)


def record(command):
    """Runs a command in a terminal; returns what it wrote: the lines, and the last, unfinished one.

    Returns:
        lines: [(seconds, text)] with escape sequences of colours.
        bars: the same of each state of the last line.
    """
    lines, bars, ours = [(0, f"\033[32m$\033[0m {command}")], [(0, "")], None
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    environment.pop("NO_COLOR", None)
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", ROWS, COLUMNS, 0, 0))
    words = [sys.executable, *command.split()[1:]]
    with subprocess.Popen(words, cwd=ROOT, stdout=theirs, stderr=theirs, env=environment) as child:
        os.close(theirs)
        now, last, current = 0.0, time.monotonic(), ""
        while (data := _read(ours)) != b"":
            now, last = now + min(time.monotonic() - last, PAUSE), time.monotonic()
            *done, current = (current + data.decode(errors="replace")).split("\n")
            lines += [(now, _settled(one)) for one in done]
            if bars[-1][1] != _settled(current):
                bars.append((now, _settled(current)))
    os.close(ours)
    if child.returncode:
        raise SystemExit(f"{command} failed with {child.returncode}")
    return [(when, text) for when, text in lines if text], bars


def _read(terminal):
    """Returns what comes within a tenth of a second, b"" at the end."""
    data, until = b"", time.monotonic() + 0.1
    while not data or select.select([terminal], [], [], max(0, until - time.monotonic()))[0]:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # what Linux says at the end of a terminal
            chunk = b""
        if not chunk:
            break
        data += chunk
    return data


def _settled(text):
    """Returns what a line shows after its carriage returns."""
    parts = [part for part in text.rstrip("\r").split("\r") if part.strip()]
    return parts[-1].rstrip() if parts else ""


def draw_recording(lines, bars):
    """Returns an animated SVG: two strips of text that jump up by whole lines."""
    seconds = lines[-1][0] + END
    above = (ROWS - 1) * LINE
    lines_moves, lines_end = _moves(lines, seconds, above, start=1)
    bars_moves, bars_end = _moves(bars, seconds, 0)
    inner = COLUMNS * CHARACTER
    return PAGE.format(
        title=html.escape(COMMAND), width=round(inner + 24), height=above + LINE + 20,
        inner=round(inner), above=above, line=LINE, bar_top=10 + above,
        seconds=seconds / SPEED,
        lines=_strip(lines), bars=_strip(bars), lines_moves=lines_moves, bars_moves=bars_moves,
        lines_end=lines_end, bars_end=bars_end,
    )  # fmt: skip


def _moves(strip, seconds, below, start=0):
    """Returns the keyframes that show each line of a strip from its time on, and the last place."""
    places = {f"{100 * when / seconds:.2f}": below - (i + start) * LINE
              for i, (when, _) in enumerate(strip)}  # fmt: skip
    frames = [f"{percent}% {{transform:translateY({y}px)}}" for percent, y in places.items()]
    return "\n".join(frames), list(places.values())[-1]


def _strip(strip):
    return "\n".join(
        f'<text y="{index * LINE + 13}">{_spans(text[: 3 * COLUMNS])}</text>'
        for index, (_, text) in enumerate(strip)
        if text
    )


def _spans(text):
    """Returns the text as XML, its colours as classes."""
    plain, *coloured = re.split(r"\033\[(\d+)m", text)
    spans = [html.escape(plain)]
    for code, part in zip(coloured[::2], coloured[1::2], strict=True):
        style, part = STYLES.get(code, ""), html.escape(part)
        spans.append(f'<tspan class="{style}">{part}</tspan>' if style and part else part)
    return "".join(spans)


if __name__ == "__main__":
    main(*sys.argv[1:])
