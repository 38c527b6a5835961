"""`python3 -m demo`: avatars without and with Circulation, and how stable attention was, from a real ComfyUI."""

import argparse
import json

from .environment import prepare

parser = argparse.ArgumentParser(prog="python3 -m demo", description=__doc__)
EXAMPLE = "long teal hair, dark glasses, smiling"
parser.add_argument("--prompt", action="append", metavar="WORDS", help=f'such as "{EXAMPLE}"; may be given several times')
parser.add_argument("--beta", type=float, default=5.0, help="how far to follow the changed attention; 0 is off (default: %(default)s)")
parser.add_argument("--steps", type=int, default=20, help="sampling steps (default: %(default)s)")
parser.add_argument("--seed", type=int, default=1, help="the same for all settings (default: %(default)s)")
parser.add_argument("--serve", action="store_true", help="leave ComfyUI running with the pack and the avatar model, for the browser")

if __name__ == "__main__":
    options = parser.parse_args()
    raise SystemExit(prepare().run("-m", "circulation_demo.run", json.dumps(vars(options))))
