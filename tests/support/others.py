"""What other people's nodes do to a MODEL."""

import comfy.cldm.cldm
import comfy.controlnet
import comfy.sd
import comfy_extras.nodes_torch_compile
import torch

from .models import CONFIGS, fill
from .watch import KEY


def execute(node, *args, **kwargs):
    """The first output of a node class of ComfyUI's, old schema or new."""
    if hasattr(node, "execute"):
        out = node.execute(*args, **kwargs)
    else:
        out = getattr(node(), node.FUNCTION)(*args, **kwargs)
    return getattr(out, "result", out)[0]


def overwrite(model, backend):
    """As KJNodes' backend selectors do: the previous override and `func` are ignored."""
    model = model.clone()
    model.model_options["transformer_options"][KEY] = lambda func, *args, **kwargs: backend(*args, **kwargs)
    return model


def chain(model, sharper):
    """As well-behaved packs do: whatever was there before is called in the end. Scales the queries."""
    model = model.clone()
    options = model.model_options["transformer_options"]
    previous = options.get(KEY)

    def override(func, q, *args, **kwargs):
        if previous is not None:
            return previous(func, q * sharper, *args, **kwargs)
        return func(q * sharper, *args, **kwargs)

    options[KEY] = override
    return model


class Compiler:
    """A backend of torch.compile that counts its graphs and runs them as they are. One object is one compiler:
    code is shared by compiler."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs, **options):
        self.graphs += 1
        return graph.forward


def compiled(model, compiler):
    return execute(comfy_extras.nodes_torch_compile.TorchCompileModel, model, backend=compiler)


def lora(model, strength=0.5, seed=5):
    """A file's worth of LoRA for every attention projection of the model."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for key, weight in model.model.state_dict().items():
        if ".attn" in key and key.endswith("weight"):
            rows, columns = weight.shape[0], weight[0].numel()
            name = key.removesuffix(".weight")
            tensors[f"{name}.lora_up.weight"] = torch.randn(rows, 4, generator=generator) * strength / 2
            tensors[f"{name}.lora_down.weight"] = torch.randn(4, columns, generator=generator) / columns**0.5
    return tensors


def with_lora(model):
    return comfy.sd.load_lora_for_models(model, None, lora(model), 1.0, 1.0)[0]


def controlnet(name="sd15", size=16, seed=6):
    config = {key: value for key, value in CONFIGS[name][1].items() if not key.startswith("use_temporal")}
    config.pop("out_channels")
    network = comfy.cldm.cldm.ControlNet(hint_channels=3, num_heads=8, **config).eval().requires_grad_(False)
    fill(network, seed)
    control = comfy.controlnet.ControlNet(network, load_device=torch.device("cpu"))
    hint = torch.rand(1, 3, 8 * size, 8 * size, generator=torch.Generator().manual_seed(seed))
    return control.set_cond_hint(hint, strength=1.0)
