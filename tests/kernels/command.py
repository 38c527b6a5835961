"""Compiles the fused kernel for GPUs that need not be there, in the prepared environment: see `__main__.py`."""

import os
import re
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "nodes"))  # the engine alone, without ComfyUI

import triton
from engine.method.fast import fused_kernel
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
# KiB of shared memory that a block can have, and threads that a multiprocessor can have at once, by compute capability
# (CUDA C++ Programming Guide, table "Technical Specifications per Compute Capability")
SHARED = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
THREADS = {80: 2048, 86: 1536, 89: 1536, 90: 2048, 100: 2048, 120: 1536}
REGISTERS, RESERVED = 65536, 1024  # of a multiprocessor; bytes of shared memory that each block takes besides its own
COLUMNS = "sm  head dtype range | queries keys warps stages | registers spills shared KiB  blocks/SM  mma"


def compiled(capability, head_size, dtype, in_range, tiles):
    """The kernel as Triton compiles it at a call: integers are not specialised there, tensors begin at multiples of 16 bytes.

    With a number for alpha where all keys are the tokens', with one for each head where they are not.
    """
    constants = fused_kernel.constants(head_size, tiles, in_range, per_head=in_range)
    kernel = fused_kernel.circulated_attention
    types = dict.fromkeys(("q", "k", "v", "out"), f"*{dtype}") | {"alpha": "*fp32" if in_range else "fp32", "scale": "fp32"}
    types |= dict.fromkeys(fused_kernel.INTEGERS, "i32") | dict.fromkeys(constants, "constexpr")
    signature = {name: types[name] for name in kernel.arg_names}
    aligned = {(place,): [["tt.divisibility", 16]] for place, kind in enumerate(signature.values()) if kind.startswith("*")}
    source = ASTSource(kernel, signature, constants, aligned)
    return triton.compile(source, GPUTarget("cuda", capability, 32), fused_kernel.options(tiles))


def machine_code(binary, option):
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "kernel.cubin")
        file.write_bytes(binary)
        return subprocess.run([CUOBJDUMP, option, file], check=True, capture_output=True, text=True).stdout


def measure(capability, head_size, dtype, in_range, tiles):
    """One row of the table, and whether it fits without spills."""
    kernel = compiled(capability, head_size, dtype, in_range, tiles)
    usage, code = (machine_code(kernel.asm["cubin"], option) for option in ("-res-usage", "-sass"))
    registers, shared = int(re.search(r"REG:(\d+)", usage)[1]), kernel.metadata.shared
    spills = len(re.findall(r"\b(?:LDL|STL)\b", code))
    instruction = re.search(r"\b(HGMMA|HMMA|UTCHMMA|UTCMMA)\b", code)[1]
    threads = 32 * tiles.warps
    blocks = min(
        REGISTERS // (-(-registers // 8) * 8 * threads),
        (SHARED[capability] * 1024 + RESERVED) // (shared + RESERVED),
        THREADS[capability] // threads,
    )
    row = f"{capability:<3} {head_size:4} {dtype:5} {'part' if in_range else 'all':5} | "
    row += f"{tiles.queries:7} {tiles.keys:4} {tiles.warps:5} {tiles.stages:6} | "
    row += f"{registers:9} {spills:6} {shared / 1024:10.1f} {blocks:10}  {instruction}"
    fits = spills == 0 and blocks > 0
    return row if fits else row + "  DOES NOT DO", fits


def main(capabilities, head_sizes, tiles):
    capabilities, head_sizes = ([int(number) for number in numbers.split(",")] for numbers in (capabilities, head_sizes))
    others = [fused_kernel.Tiles(*map(int, numbers.split(","))) for numbers in tiles.split()]
    print(f"Triton {triton.__version__}", COLUMNS, sep="\n")
    all_fit = True
    for capability, head_size, dtype, in_range in product(capabilities, head_sizes, ("fp16", "bf16"), (False, True)):
        for choice in others or [fused_kernel.tiles_for(head_size, (capability // 10, capability % 10))]:
            row, fits = measure(capability, head_size, dtype, in_range, choice)
            print(row, flush=True)
            all_fit &= fits
    return 0 if all_fit else 1


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache  # whatever was compiled before, and nothing stays behind
        sys.exit(main(*sys.argv[1:]))
