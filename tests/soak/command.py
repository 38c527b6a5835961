"""The soak itself; see `__main__.py`."""

import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.server import demo, started

CONTROL = dict(start_percent=0.0, end_percent=1.0, blocks="all")
ADAPTIVE = dict(CONTROL, adapt_alpha=True, adapt_beta=True, formula="deviation", eta_over="image")
MISHAPS = Path(__file__).resolve().parents[1] / "support" / "mishaps"
WARM_UP = 0.2  # the share of the runs after which nothing grows any more
GROWTH = 1.1  # of memory, from then on: the allocator keeps some of what it had


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def prompt(rule=None, probe=False, seed=1, steps=2, batch=1, sampler="euler", broken=None, fails=False):
    """An image by a stand-in checkpoint, in API form. `rule` are the inputs of a Circulation node, `broken` those of MishapAttention."""
    graph = {
        "load": node("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors"),
        "positive": node("CLIPTextEncode", clip=["load", 1], text="a harbour"),
        "negative": node("CLIPTextEncode", clip=["load", 1], text=""),
        "latent": node("EmptyLatentImage", width=128, height=128, batch_size=batch),
    }
    model = ["load", 0]
    if broken:
        graph["broken"] = node("MishapAttention", model=model, **broken)
        model = ["broken", 0]
    if rule:
        graph["rule"] = node("CirculationAdaptive" if "formula" in rule else "CirculationControl", model=model, **rule)
        model = ["rule", 0]
    if probe:
        graph["probe"] = node("StabilityProbe", model=model, measure_in="value space", every_n_steps=1, blocks="all")
        model = ["probe", 0]
        graph["readout"] = node("StabilityReadout", stability=["probe", 1], plot="curves", measure="energy", after=["sample", 0])
    graph["sample"] = node(
        "KSampler", model=model, positive=["positive", 0], negative=["negative", 0], latent_image=["latent", 0],
        seed=seed, steps=steps, cfg=4.0, sampler_name=sampler, scheduler="normal", denoise=1.0,
    )  # fmt: skip
    graph["decode"] = node("VAEDecode", samples=["sample", 0], vae=["load", 2])
    if fails:
        graph["fail"] = node("MishapFail", images=["decode", 0])
    graph["image"] = node("PreviewImage", images=["fail" if fails else "decode", 0])
    return graph


REFERENCES = {
    "plain": prompt(),
    "static": prompt(dict(CONTROL, alpha=1.2, beta=3.0)),
    "adaptive": prompt(dict(ADAPTIVE, alpha=1.2, beta=5.0), batch=2),
    "input space": prompt(dict(CONTROL, alpha=0.8, beta=3.0, rescale="input space (paper)")),
    "probed": prompt(dict(CONTROL, alpha=1.2, beta=3.0), probe=True),
}


def references(server):
    """The bytes of each reference's images, sampled anew."""
    server.post("/free", {"unload_models": True, "free_memory": True})
    images = {name: [server.image(image) for image in server.run(graph)["image"]["images"]] for name, graph in REFERENCES.items()}
    assert images["static"] == images["probed"], "a probe changed the image"
    assert images["static"] != images["plain"], "Circulation changed nothing"
    return images


def state(server, nonce):
    """What the server's process holds, once nothing is left to do."""
    server.post("/free", {"unload_models": True, "free_memory": True})
    return json.loads(server.run({"state": node("MishapState", nonce=nonce)})["state"]["state"][0])


def one_run(server, random):
    """Queue something, let something happen to it, and wait until the queue is empty. Says what happened."""
    kind = random.choice(["well", "well", "interrupt", "interrupt", "memory", "attention", "node", "clear", "two clients"])
    rule = random.choice([None, dict(CONTROL, alpha=1.3, beta=3.0), dict(ADAPTIVE, alpha=1.2, beta=5.0)])
    graph = prompt(
        rule, probe=random.random() < 0.5, seed=random.randrange(2**32), steps=random.randint(2, 6), batch=random.randint(1, 3),
        sampler=random.choice(["euler", "heun", "dpmpp_sde", "uni_pc"]), fails=kind == "node",
        broken=dict(call=random.randint(1, 60), memory=kind == "memory") if kind in ("memory", "attention") else None,
    )  # fmt: skip
    clients = ["one", "two"] if kind == "two clients" else ["one"]
    for client in clients:
        server.post("/prompt", {"prompt": graph, "client_id": client})
    if kind in ("interrupt", "clear"):
        time.sleep(random.random())  # so that it is hit anywhere, also before it begins
        server.post("/queue", {"clear": True})
        server.post("/interrupt", {})
    while any(server.get("/queue").values()):
        server.check_alive()
        time.sleep(0.02)
    return kind


def soak(server, runs, minutes, seed):
    """Raises AssertionError that says what was left behind. Returns what is worth telling."""
    generator, happened, end = random.Random(seed), Counter(), time.monotonic() + 60 * minutes
    before, early = references(server), None
    for number in range(runs):
        if time.monotonic() > end:
            break
        happened[one_run(server, generator)] += 1
        if number + 1 == max(1, int(runs * WARM_UP)):
            early = state(server, -1)
    after, late = references(server), state(server, -2)
    assert after == before, "the images of the reference set have changed"
    assert late["ours"] == 0, f"{late['ours']} objects of a run are still there"
    assert late["tensors"] <= early["tensors"] and late["files"] <= early["files"] + 2, (early, late)
    assert runs < 100 or late["memory"] <= GROWTH * early["memory"], (early, late)  # a few runs only fill the allocator's pools
    return before, happened, early, late


def server_with_mishaps(base):
    return started(base, kind="sd15", packs=[MISHAPS])


def main(runs, minutes, seed):
    with tempfile.TemporaryDirectory() as folder:
        with server_with_mishaps(Path(folder, "one")) as server:
            before, happened, early, late = soak(server, runs, minutes, seed)
        with server_with_mishaps(Path(folder, "two")) as server:
            assert references(server) == before, "a fresh server makes other images"
    print(f"{sum(happened.values())} runs: {', '.join(f'{count} {kind}' for kind, count in happened.most_common())}.")
    print(f"after a fifth of them: {early}\nat the end:            {late}")
    print("The reference images are the same bytes before, after and on a fresh server.")


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
    except demo.ServerError as error:
        sys.exit(str(error))
