"""The demo's graph in ComfyUI's API form: stock nodes, the pack's, and the demo's loader."""

OFF = "off"
PROMPTS = [
    "pink background, long teal hair, dark glasses, smiling, navy clothes",
    "yellow background, dark skin, short black hair, beard, smiling, green clothes",
    "blue background, light skin, short red hair, glasses, frowning, cream clothes",
    "white background, long blond hair, hat, smiling, red clothes",
]
SETTINGS = {
    "alpha 0.9": ("CirculationControl", 0.9),
    OFF: None,
    "alpha 1.05": ("CirculationControl", 1.05),
    "alpha 1.2": ("CirculationControl", 1.2),
    "adaptive 1.2, alpha alone": ("CirculationAdaptive", 1.2),
}
ADAPTIVE = dict(adapt_alpha=True, adapt_beta=False, formula="deviation", eta_over="image")
COMPARED = (OFF, "alpha 1.2")  # on the stability sheet
IMAGES = 2  # of each prompt


def build(prompts, seed, steps, beta):
    """One sampler for each setting and prompt, all with the same seed; the first prompt is measured."""
    graph = {
        "model": node("CirculationDemoLoader"),
        "negative": node("CLIPTextEncode", clip=["model", 1], text=""),
        "latent": node("EmptyLatentImage", width=128, height=128, batch_size=IMAGES),
    }
    for p, prompt in enumerate(prompts):
        graph[f"prompt {p}"] = node("CLIPTextEncode", clip=["model", 1], text=prompt)
    for name, setting in SETTINGS.items():
        model = ["model", 0]
        if setting:
            kind, alpha = setting
            graph[name] = node(
                kind, model=model, alpha=alpha, beta=beta, start_percent=0.0, end_percent=1.0, blocks="all",
                **(ADAPTIVE if kind == "CirculationAdaptive" else {}),
            )  # fmt: skip
            model = [name, 0]
        probe, measured = f"{name} probe", name in COMPARED
        if measured:
            where = dict(every_n_steps=1, blocks="all", branches="both")
            graph[probe] = node("StabilityProbe", model=model, measure_in="value space", label=name, **where)
        for p in range(len(prompts)):
            sampler = f"{name} sampler {p}"
            graph[sampler] = node(
                "KSampler", model=[probe, 0] if measured and p == 0 else model, positive=[f"prompt {p}", 0], negative=["negative", 0],
                latent_image=["latent", 0], seed=seed, steps=steps, cfg=1.5, sampler_name="dpmpp_2m", scheduler="karras", denoise=1.0,
            )  # fmt: skip
            graph[f"{name} decode {p}"] = node("VAEDecode", samples=[sampler, 0], vae=["model", 2])
            graph[f"{name} save {p}"] = node("SaveImage", images=[f"{name} decode {p}", 0], filename_prefix=f"avatars/{name}")
        if measured:
            sampled = [f"{name} sampler 0", 0]
            graph[f"{name} readout"] = node("StabilityReadout", stability=[probe, 1], plot="sheet", measure="energy", after=sampled)
    records = {f"stability_{number}": [f"{name} readout", 4] for number, name in enumerate(COMPARED, 1)}
    graph["sheet"] = node("StabilityCompare", **records)
    return graph


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}
