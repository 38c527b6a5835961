"""The demo's graph in ComfyUI's API form: stock nodes, the pack's, and the demo's loader."""

PROMPTS = [
    "pink background, long teal hair, dark glasses, smiling, navy clothes",
    "yellow background, dark skin, short black hair, beard, smiling, green clothes",
    "blue background, light skin, short red hair, glasses, frowning, cream clothes",
    "white background, long blond hair, hat, smiling, red clothes",
]
ALPHAS = "0.9, 1.05, 1.2"
IMAGES = 2  # of each prompt


def build(prompts, seed, steps, beta):
    """A sweep with the same seed for all settings and prompts, on one sheet; the stability of the first prompt is measured."""
    where = dict(blocks="all", branches="both")
    graph = {
        "model": node("CirculationDemoLoader"),
        "negative": node("CLIPTextEncode", clip=["model", 1], text=""),
        "latent": node("EmptyLatentImage", width=128, height=128, batch_size=IMAGES),
        "sweep": node("CirculationSweep", model=["model", 0], alpha=ALPHAS, beta=str(beta), start_percent=0.0, end_percent=1.0, **where),
        "probe": node("StabilityProbe", model=["sweep", 0], measure_in="value space", every_n_steps=1, **where),
        "readout": node("StabilityReadout", stability=["probe", 1], plot="sheet", measure="energy", after=["sampler 0", 0]),
    }
    for p, prompt in enumerate(prompts):
        graph[f"prompt {p}"] = node("CLIPTextEncode", clip=["model", 1], text=prompt)
        graph[f"sampler {p}"] = node(
            "KSampler", model=["sweep" if p else "probe", 0], positive=[f"prompt {p}", 0], negative=["negative", 0],
            latent_image=["latent", 0], seed=seed, steps=steps, cfg=1.5, sampler_name="dpmpp_2m", scheduler="karras", denoise=1.0,
        )  # fmt: skip
        graph[f"decode {p}"] = node("VAEDecode", samples=[f"sampler {p}", 0], vae=["model", 2])
    images = ["decode 0", 0]
    for p in range(1, len(prompts)):
        graph[f"images to {p}"] = node("ImageBatch", image1=images, image2=[f"decode {p}", 0])
        images = [f"images to {p}", 0]
    graph["sheet"] = node("ComparisonSheet", images=images, labels=["sweep", 1], stability=["readout", 4], cell=128)
    graph["curve"] = node("PreviewImage", images=["sheet", 1])
    graph["table"] = node("PreviewAny", source=["sheet", 2])
    return graph


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}
