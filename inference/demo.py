"""Serves a page that shows what an exported network says of a digit that is drawn, or of a picture.

python inference/demo.py --name jax_mnist
python inference/demo.py --name jax_mnist --port 8080 --no-browser
python inference/demo.py --name inference/jax_mnist/jax_mnist.int8.tflite
python inference/demo.py --name jax_mnist --static site    a folder for any web server: no Python

The page is served to this computer only (127.0.0.1), and needs no network. An export's ONNX and
TFLite files answer side by side, each in its own runtime and on one thread. Ctrl-C ends it.
"""

import argparse
import os
import sys
import warnings
import webbrowser
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `python FILE` looks beside FILE only

from PIL import Image

from inference.serving.exports import find_export
from inference.serving.page import Demo
from inference.serving.server import ADDRESS, listen
from inference.serving.static import write_static
from utils import command

PORT = 8028


@command
def main(argv=None):
    """Runs the command line; returns the exit code."""
    options = parse_arguments(argv)
    warnings.simplefilter("error", Image.DecompressionBombWarning)  # a small file of a huge image
    if options.static:
        size = write_static(find_export(options.name), options.static, options.ort)
        print(
            f"{options.static}: {size / 2**20:.1f} MiB, for any web server; here: "
            f"python -m http.server -b {ADDRESS} -d {options.static}"
        )
        return 0
    try:
        demo = Demo(options.name)
        with listen(demo, options.port) as server:
            address = f"http://{ADDRESS}:{server.server_port}/"
            print(f"{demo.title}: draw at {address} (Ctrl-C ends it)", flush=True)
            if options.browser and has_browser():
                webbrowser.open(address)
            server.serve_forever()
    except KeyboardInterrupt:
        print("\nThe demo has ended.")
    return 0


def parse_arguments(argv):
    """Returns the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--name", required=True, help="an export in inference/, the path of one, or a file of it"
    )
    parser.add_argument(
        "--port", type=_port, default=PORT, help=f"of the page ({PORT}); 0 for any that is free"
    )
    parser.add_argument(
        "--no-browser", action="store_false", dest="browser", help="do not open the page"
    )
    parser.add_argument(
        "--static", metavar="FOLDER",
        help="write the page there, with the ONNX file and a runtime for browsers, and end",
    )  # fmt: skip
    parser.add_argument(
        "--ort", metavar="FOLDER",
        help="onnxruntime-web's dist/, for --static; otherwise npm fetches it",
    )  # fmt: skip
    return parser.parse_args(argv)


def has_browser():
    """Whether there is a browser with a window; one in the terminal would block the demo."""
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    try:
        return bool((screen or sys.platform in ("win32", "darwin")) and webbrowser.get())
    except webbrowser.Error:
        return False


def _port(text):
    number = int(text)
    if not 0 <= number < 2**16:
        raise argparse.ArgumentTypeError(f"expected 0 to {2**16 - 1}, got {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
