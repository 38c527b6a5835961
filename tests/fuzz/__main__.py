"""`python3 -m tests.fuzz`: hostile values for every input of every node, and damaged record files, on a real server.

The server stays alive and its queue goes on, nothing is written outside ComfyUI's folders, and every refusal is in words.
"""

import argparse
from pathlib import Path

from tests.__main__ import run_module

parser = argparse.ArgumentParser(prog="python3 -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--inputs", type=int, default=2000)
parser.add_argument("--records", type=int, default=500)
parser.add_argument("--seed", type=int, default=0)

if __name__ == "__main__":
    options = parser.parse_args()
    run_module(Path(__file__).with_name("command.py"), [options.inputs, options.records, options.seed])
