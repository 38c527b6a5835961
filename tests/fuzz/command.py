"""The fuzz itself; see `__main__.py`."""

import json
import os
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from soak.command import node, server_with_mishaps
from support.server import demo

GOLDEN = sorted((Path(__file__).resolve().parents[1] / "golden").glob("record-format-1-*.safetensors"))
LONG = 20_000

# What one input may be given: as a widget's value, or through a link, which no widget checks
TEXTS = [
    "", " ", "\n", "all", "all " * LONG, "x" * LONG, "input." * LONG, "!" * LONG, "input.99999999999999999999", "0%-1e9%", "١٢٣%-40%",
    "输入", "\ud800", "\x00", "\x1b[31m", "\u202eall", "$\\frac{$", "{}[]()", "%s %d {0}", "\\", "input.4; rm -rf /", "😀" * 200,
    "../../../etc/passwd", "/etc/passwd", "a/../../b", "C:\\x", "con", "~", ".", "..", "/dev/zero", "//host/share", "%year%/%x%",
]  # fmt: skip
GRIDS = [
    "[]", "{}", "{\"grid\": []}", "{\"grid\": [[1e999]]}", "{\"grid\": [[NaN]]}", "{\"grid\": [[-1]]}", "{\"grid\": [[true]]}",
    "{\"grid\": [[1], [1, 1]]}", "[" * LONG, json.dumps({"grid": [[1] * 1000] * 1000}), "{\"grid\": \"x\"}", "{\"grid\": [[1]], \"x\": 1}",
    "\ufeff{\"grid\": [[1]]}", "9" * 5000,
]  # fmt: skip
NUMBERS = [0, 1, -1, 1.05, 1e308, -1e308, 1e-320, 2**63, -(2**63), 10**400, 0.1 + 0.2, -0.0]
ODD = [None, True, False, [], {}, [1], [[0, 0], [1, 1]], ["load", 0], ["nowhere", 0], {"__value__": [1, 2]}, [None] * 50, "1", "NaN", "1e3"]

# A graph for each node: the model is a small checkpoint's, and something at the end makes ComfyUI run it
BASE = {
    "load": node("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors"),
    "schedule": node("CirculationSchedule", grid='{"grid": [[1, 1], [1, 0.5]]}'),
    "control": node("CirculationControl", model=["load", 0], alpha=1.05, beta=3.0, start_percent=0.0, end_percent=1.0, blocks="all",
                    branches="both", rescale="value space", schedule=["schedule", 0], tokens="image"),
    "sweep": node("CirculationSweep", model=["load", 0], alpha="1.05, 1.1:1.2:0.1", beta="3", start_percent=0.0, end_percent=1.0,
                  blocks="all", method="one pass", branches="both", rescale="off", schedule=["schedule", 0], tokens="all", baseline=True),
    "swept": node("ModelBlocks", model=["sweep", 0]),
    "adaptive": node("CirculationAdaptive", model=["control", 0], alpha=1.2, beta=5.0, start_percent=0.0, end_percent=1.0, blocks="all",
                     adapt_alpha=True, adapt_beta=True, formula="deviation", eta_over="image", branches="both", rescale="off",
                     tokens="all"),
    "probe": node("StabilityProbe", model=["adaptive", 0], measure_in="value space", every_n_steps=1, blocks="all", branches="both",
                  label="a label", tokens="image"),
    "blocks": node("ModelBlocks", model=["probe", 0]),
    "file": node("LoadStability", file="record.safetensors"),
    "readout": node("StabilityReadout", stability=["file", 0], plot="curves", measure="energy", run=0),
    "compare": node("StabilityCompare", stability_1=["readout", 4], stability_2=["file", 0]),
    "save": node("SaveStability", stability=["readout", 4], filename_prefix="stability/fuzz"),
    "picture": node("EmptyImage", width=64, height=64, batch_size=4, color=0),
    "sheet": node("ComparisonSheet", images=["picture", 0], labels="a label", stability=["readout", 4], scores=["score", 0], cell=128,
                  frame_changes=True, sort_columns=True, difference_row=True, threshold=0.1),
    "score": node("MishapValue", json="0.5"),
    "text": node("CLIPTextEncode", clip=["load", 1], text="a street musician"),
    "latent": node("EmptyLatentImage", width=64, height=64, batch_size=1),
    "grid": node("CirculationGrid", model=["load", 0], positive=["text", 0], negative=["text", 0], latent=["latent", 0], vae=["load", 2],
                 alpha="1.05", beta="3", seed=1, seeds=1, steps=1, cfg=1.0, sampler_name="euler", scheduler="normal", denoise=1.0,
                 start_percent=0.0, end_percent=1.0, blocks="all", method="paper", branches="both", rescale="off", tokens="all",
                 schedule=["schedule", 0], baseline=True, cell=128, frame_changes=True, sort_columns=True, difference_row=True,
                 threshold=0.1),
}  # fmt: skip
OURS = [name for name in BASE if name not in ("load", "picture", "score", "text", "latent")]

IN_WORDS = ("ValueError", "FileNotFoundError")
# Raised by ComfyUI before our node is asked, or in words of ours as another kind of error
NOT_OURS = ("This is not a diffusion model",)


def hostile(random):
    return random.choice(random.choice([TEXTS, GRIDS, NUMBERS, ODD]))


def mutated(random):
    """The graph with one input of one of our nodes changed, and what was changed."""
    graph = json.loads(json.dumps(BASE))
    name = random.choice(OURS)
    key = random.choice(list(graph[name]["inputs"]))
    value = hostile(random)
    if random.random() < 0.4:
        graph["value"] = node("MishapValue", json=json.dumps(value))
        graph[name]["inputs"][key] = ["value", 0]
    else:
        graph[name]["inputs"][key] = value
    return graph, f"{name}.{key} = {json.dumps(value)[:60]}"


def damaged(random, record: bytes) -> bytes:
    """A record file with some of its bytes, its length or its header's words changed."""
    data = bytearray(record)
    how = random.choice(["flip", "flip", "cut", "header", "number"])
    if how == "cut":
        return bytes(data[: random.randrange(len(data))])
    if how == "flip":
        for _ in range(random.randint(1, 8)):
            data[random.randrange(len(data))] = random.randrange(256)
        return bytes(data)
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    if how == "number":
        infos = json.loads(header["__metadata__"]["runs"])
        key = random.choice(list(infos[0]))
        infos[0][key] = random.choice([None, float("nan"), float("inf"), -1, 10**30, "x", "\ud800", [], {}, [None], [[1]], True])
        header["__metadata__"]["runs"] = json.dumps(infos)
    else:
        key = random.choice([k for k in header if k != "__metadata__"])
        lies = ["F16", "BOOL", "F8_E4M3", [10**9], [1, 1], [0, 4], [], "x"]
        header[key][random.choice(["dtype", "shape", "data_offsets"])] = random.choice(lies)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data[8 + size :])


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not any(p.endswith(("-journal", ".pyc")) for p in path.parts)}


def answer(server, graph) -> tuple[str, str]:
    """What came of a graph: its kind, and the words of a refusal."""
    try:
        prompt_id = server.queue(graph)
    except demo.ServerError as error:
        return "refused at validation", str(error)
    while not (entry := server.get(f"/history/{prompt_id}").get(prompt_id)):
        server.check_alive()
        if not any(server.get("/queue").values()) and not server.get(f"/history/{prompt_id}"):
            raise AssertionError("the queue lost a prompt")
    json.dumps(entry["outputs"], allow_nan=False)  # raises ValueError: what is no JSON breaks the browser's whole history
    for event, data in entry["status"]["messages"]:
        if event == "execution_error":
            kind, message = data["exception_type"].rpartition(".")[2], data["exception_message"]
            if data["node_type"] in {BASE[name]["class_type"] for name in OURS} and any(demo.PACK in line for line in data["traceback"]):
                assert kind in IN_WORDS or message.startswith(NOT_OURS), f"{data['node_type']}: {kind}: {message[:300]}"
                assert len(message) < 2000, f"{data['node_type']}: a message of {len(message)} characters"
            return "refused at the node", message
    return "ran", ""


def fuzz(server, base: Path, inputs: int, records: int, seed: int) -> Counter:
    """Raises AssertionError that names the input at which something went wrong."""
    generator, faults = random.Random(seed), []
    came: Counter = Counter()
    record = base / "input" / "record.safetensors"
    record.write_bytes(GOLDEN[0].read_bytes())
    outside = files_of(base.parent) - files_of_folder(base)
    assert answer(server, BASE)[0] == "ran"
    for number in range(inputs + records):
        if number < inputs:
            graph, what = mutated(generator)
        else:
            source = generator.choice(GOLDEN)
            record.write_bytes(damaged(generator, source.read_bytes()))
            graph, what = {name: BASE[name] for name in ("file", "readout", "compare", "save")}, f"record {number}"
        try:
            kind, _ = answer(server, graph)
            came[kind] += 1
        except (AssertionError, ValueError) as error:
            faults.append(f"{what}: {error}")
        if number % 100 == 0:
            server.post("/history", {"clear": True})
    record.write_bytes(GOLDEN[0].read_bytes())
    assert answer(server, BASE)[0] == "ran", "the queue does not go on"
    written = files_of(base.parent) - files_of_folder(base) - outside
    assert not written, f"written outside: {sorted(written)[:10]}"
    assert not faults, f"{len(faults)} faults, such as\n" + "\n".join(faults[:20])
    return came


def files_of_folder(base: Path) -> set[str]:
    """What may be written: ComfyUI's output, temp and user folders, and its log and database."""
    allowed = ("output", "temp", "user", "server.log", "comfy.db", "input", "models")
    return {name for name in files_of(base.parent) if name.startswith(tuple(f"{base.name}{os.sep}{part}" for part in allowed))}


def main(inputs, records, seed):
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, "base")
        with server_with_mishaps(base) as server:
            came = fuzz(server, base, inputs, records, seed)
    print(f"{sum(came.values())} inputs: {', '.join(f'{count} {kind}' for kind, count in came.most_common())}.")


if __name__ == "__main__":
    try:
        main(*map(int, sys.argv[1:]))
    except (AssertionError, demo.ServerError) as error:
        sys.exit(str(error))
