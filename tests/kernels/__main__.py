"""`python3 -m tests.kernels`: what the fused kernel takes of a GPU, read from its machine code. Compiles it; needs no GPU.

Registers, spilled registers, shared memory, and how many programs fit on a multiprocessor, for each head size, dtype and compute
capability. The exit status is 1 if any of the tiles that the pack has chosen spills or does not fit. NOTES.md says what was tried.
"""

import argparse
from pathlib import Path

from tests.__main__ import run_module

parser = argparse.ArgumentParser(prog="python3 -m tests.kernels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--sm", default="80,89,90,120", help="compute capabilities (default: %(default)s)")
parser.add_argument("--heads", default="32,40,64,80,96,128", help="head sizes (default: %(default)s)")
parser.add_argument("--tiles", default="", help="others than the chosen: queries,keys,warps,stages[,registers]; several with spaces")

if __name__ == "__main__":
    options = parser.parse_args()
    run_module(Path(__file__).with_name("command.py"), [options.sm, options.heads, options.tiles])
