"""`python3 -m tests.exact`: what lies between the two methods, and how much of the effect is rounding: the tables of docs/exact.md.

`rounding` measures random layers, `methods` the model of avatars, whose images it samples: about ten minutes on two cores.
"""

import argparse
from pathlib import Path

from tests.__main__ import run_module

parser = argparse.ArgumentParser(prog="python3 -m tests.exact", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("tables", nargs="*", choices=["rounding", "methods", []], help="both if none is named")

if __name__ == "__main__":
    options = parser.parse_args()
    run_module(Path(__file__).with_name("command.py"), options.tables or ["rounding", "methods"])
