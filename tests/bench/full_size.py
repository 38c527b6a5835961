"""Models at full size, of ComfyUI's own classes: what one step computes, counted without weights, numbers or a GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.module_tracker import ModuleTracker
from support import transformers

import comfy.ops
from comfy.ldm.flux.model import Flux, FluxParams
from comfy.ldm.lumina.model import NextDiT
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel
from comfy.ldm.wan.model import WanModel

UNET = dict(
    image_size=32, use_spatial_transformer=True, legacy=False, in_channels=4, out_channels=4, model_channels=320,
    use_temporal_attention=False, use_temporal_resblock=False,
)  # fmt: skip
SD15 = dict(
    UNET, num_res_blocks=[2] * 4, channel_mult=[1, 2, 4, 4], transformer_depth=[1] * 6 + [0] * 2,
    transformer_depth_output=[1] * 9 + [0] * 3, transformer_depth_middle=1, use_linear_in_transformer=False, context_dim=768, num_heads=8,
)  # fmt: skip
SDXL = dict(
    UNET, num_res_blocks=[2] * 3, channel_mult=[1, 2, 4], transformer_depth=[0, 0, 2, 2, 10, 10],
    transformer_depth_output=[0, 0, 0, 2, 2, 2, 10, 10, 10], transformer_depth_middle=10, use_linear_in_transformer=True, context_dim=2048,
    num_head_channels=64, adm_in_channels=2816, num_classes="sequential",
)  # fmt: skip
FLUX = transformers.fitting(FluxParams, dict(
    in_channels=16, out_channels=16, vec_in_dim=768, context_in_dim=4096, hidden_size=3072, mlp_ratio=4.0, num_heads=24, depth=19,
    depth_single_blocks=38, axes_dim=[16, 56, 56], theta=10000, patch_size=2, qkv_bias=True, guidance_embed=True,
    txt_ids_dims=[],
))  # fmt: skip
Z_IMAGE = dict(
    patch_size=2, in_channels=16, dim=3840, cap_feat_dim=2560, n_layers=30, n_refiner_layers=2, qk_norm=True, n_heads=30, n_kv_heads=30,
    axes_dims=[32, 48, 48], axes_lens=[1536, 512, 512], rope_theta=256.0, ffn_dim_multiplier=8 / 3, z_image_modulation=True,
    time_scale=1000.0, pad_tokens_multiple=32,
)  # fmt: skip
WAN_14B = dict(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40)


@dataclass(frozen=True)
class Model:
    """A network and one step's input. Its weights and activations are in half precision."""

    name: str
    network: Callable
    config: dict
    latent: tuple[int, ...]  # (channels, …, height, width)
    text: tuple[int, int]  # tokens, width
    circulated: set[str]  # names of modules whose attention, where queries and keys are the same tokens, a Circulation node changes
    rows: int = 2  # of the batch: positive and negative
    others: dict[str, tuple[int, ...]] = field(default_factory=dict)  # shapes of further inputs, for each row
    arguments: dict = field(default_factory=dict)


MODELS = (
    Model("SD1.5 512²", UNetModel, SD15, (4, 64, 64), (77, 768), {"attn1"}),
    Model("SDXL 1024²", UNetModel, SDXL, (4, 128, 128), (77, 2048), {"attn1"}, others={"y": (2816,)}),
    Model(
        "Flux 1024²",
        Flux,
        FLUX,
        (16, 128, 128),
        (512, 4096),
        {"double_blocks", "single_blocks"},
        rows=1,
        others={"y": (768,), "guidance": ()},
    ),
    Model("Z-Image 1024²", NextDiT, Z_IMAGE, (16, 128, 128), (256, 2560), {"layers"}, rows=1, arguments={"num_tokens": 256}),
    Model("Qwen-Image 1328²", QwenImageTransformer2DModel, {}, (16, 1, 166, 166), (256, 3584), {"transformer_blocks"}),
    Model("Wan 14B 480p, 81 frames", WanModel, WAN_14B, (16, 21, 60, 104), (512, 4096), {"self_attn"}),
    Model("Wan 14B 720p, 81 frames", WanModel, WAN_14B, (16, 21, 90, 160), (512, 4096), {"self_attn"}),
)


@dataclass(frozen=True)
class Attention:
    """The attentions of a step that are alike."""

    rows: int
    heads: int
    tokens: int
    keys: int
    head_dim: int
    circulated: bool

    @property
    def product(self) -> int:
        """FLOPs of q kᵀ."""
        return 2 * self.rows * self.heads * self.tokens * self.keys * self.head_dim

    @property
    def flops(self) -> int:
        """Of a plain call: the product with the values is as large."""
        return 2 * self.product

    @property
    def size_of_q(self) -> int:
        return self.rows * self.heads * self.tokens * self.head_dim


@dataclass
class Step:
    """What one step computes. FLOPs are twice the multiplications."""

    matmul: int  # FLOPs of linear layers
    convolution: int
    moved: int  # bytes that all else reads and writes, outside attention, with one kernel for each operation of PyTorch
    attentions: dict[Attention, int]  # and how often

    @property
    def flops(self) -> int:
        return self.matmul + self.convolution + sum(each.flops * times for each, times in self.attentions.items())

    @property
    def share(self) -> float:
        """Of the FLOPs, what circulated attentions have in the plain model."""
        return sum(each.flops * times for each, times in self.attentions.items() if each.circulated) / self.flops


def count(model: Model, dtype: torch.dtype = torch.float16) -> Step:
    """One step of a model on fake tensors, which have a device and a shape and no values: the operations are those of a GPU."""
    with FakeTensorMode(), torch.device("cuda"), torch.no_grad():
        network = model.network(**model.config, dtype=dtype, device="cuda", operations=comfy.ops.disable_weight_init)

        def given(*shape: int) -> torch.Tensor:
            return torch.empty(model.rows, *shape, dtype=dtype)

        others = {name: given(*shape) for name, shape in model.others.items()}
        with ModuleTracker() as modules, Operations() as operations:
            attentions = Attentions(modules, model.circulated)
            options = {"optimized_attention_override": attentions}
            network(given(*model.latent), given(), given(*model.text), **others, **model.arguments, transformer_options=options)
    return Step(operations.matmul, operations.convolution, operations.moved, dict(attentions.calls))


class Attentions:
    """Stands in the place of every attention of a network: notes it and computes nothing."""

    def __init__(self, modules: ModuleTracker, circulated: set[str]):
        self.modules, self.circulated = modules, circulated
        self.calls: Counter[Attention] = Counter()

    def __call__(self, backend, q, k, v, heads, *args, skip_reshape=False, skip_output_reshape=False, **kwargs):
        if not skip_reshape:
            q, k = (tensor.unflatten(-1, (heads, -1)).transpose(1, 2) for tensor in (q, k))
        rows, heads, tokens, head_dim = q.shape
        path = {part for name in self.modules.parents for part in name.split(".")}
        same_tokens = tokens == k.shape[2]
        self.calls[Attention(rows, heads, tokens, k.shape[2], head_dim, same_tokens and bool(path & self.circulated))] += 1
        return q.new_empty(rows, heads, tokens, head_dim) if skip_output_reshape else q.new_empty(rows, tokens, heads * head_dim)


class Operations(TorchDispatchMode):
    """Adds up what the operations of PyTorch compute, by its own formulas, and the bytes that the others move."""

    def __init__(self):
        super().__init__()
        self.matmul = self.convolution = self.moved = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        operation = func.overloadpacket
        if operation in flop_registry:
            flops = flop_registry[operation](*args, **(kwargs or {}), out_val=out)
            if operation is torch.ops.aten.convolution:
                self.convolution += flops
            else:
                self.matmul += flops
        elif moves(func):
            self.moved += sum(leaf.nbytes for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor))
        return out


def moves(func) -> bool:
    """Whether an operation reads or writes the values of its tensors: not a view, not memory taken, not a question about a tensor."""
    view = any(result.alias_info and not result.alias_info.is_write for result in func._schema.returns)
    name = func.overloadpacket.__name__
    return func.namespace == "aten" and not (view or name == "_unsafe_view" or "empty" in name)
