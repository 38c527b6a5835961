"""`python3 -m demo`: images with and without Circulation, from a real ComfyUI and one seed."""

import argparse
import json
from pathlib import Path

from .environment import prepare


def image_size(text):
    size = int(text)
    if size < 64 or size % 16:
        raise argparse.ArgumentTypeError("must be 64 or more and a multiple of 16")
    return size


parser = argparse.ArgumentParser(prog="python3 -m demo", description=__doc__)
parser.add_argument("--alpha", type=float, default=1.5, help="strength of the circulation; 1 is off (default: %(default)s)")
parser.add_argument("--beta", type=float, default=3.0, help="how far to go towards it; 0 is off (default: %(default)s)")
parser.add_argument("--steps", type=int, default=10, help="sampling steps (default: %(default)s)")
parser.add_argument("--seed", type=int, default=1, help="the same for both images (default: %(default)s)")
parser.add_argument("--size", type=image_size, default=192, help="width and height in pixels (default: %(default)s)")
parser.add_argument("--serve", action="store_true", help="leave ComfyUI running with the pack, for the browser")

if __name__ == "__main__":
    options = parser.parse_args()
    raise SystemExit(prepare().run(Path(__file__).with_name("run.py"), json.dumps(vars(options))))
