"""`python3 -m tests.digests`: what the pack computes, bit for bit, as digests to compare one version of its code with another.

`write FILE` computes all cases and writes their digests; `compare FILE` computes them again and lists those that differ. It works
through the nodes alone, so that the same cases run on code that is laid out in another way. The numbers hold for one machine, one
torch and one ComfyUI, so a file is not kept: write it with the older code, then compare with the newer.
"""

import argparse
from pathlib import Path

from tests.__main__ import run_module

parser = argparse.ArgumentParser(prog="python3 -m tests.digests", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("command", choices=["write", "compare"])
parser.add_argument("file", type=Path)
parser.add_argument("--only", default="", help="the cases whose names contain this")

if __name__ == "__main__":
    options = parser.parse_args()
    script = Path(__file__).with_name("command.py")
    run_module(script, [options.command, options.file.resolve(), options.only])  # it runs in another directory
