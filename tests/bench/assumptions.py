"""What the cost model of whole steps assumes: all of its numbers that are not counted, each with its source. None was measured here."""

from dataclasses import dataclass, replace

FA2 = "FlashAttention-2, arXiv:2307.08691"
FA3 = "FlashAttention-3, arXiv:2407.08608, H100 SXM, half precision, no causal mask, 4096 tokens"
SAGE = "SageAttention2, arXiv:2411.10958"

# Sustained TFLOPS of attention, by the head size that a kernel is built for. Smaller heads are padded to it. LARGER is what takes any size.
Kernels = dict[float, float]
LARGER = float("inf")


@dataclass(frozen=True)
class Card:
    name: str
    capability: tuple[int, int]
    matmul: float  # sustained TFLOPS, half precision
    convolution: float  # the same
    bandwidth: float  # TB/s that element-wise operations reach
    attention: Kernels  # the backend that the model runs on
    unpadded: Kernels  # the same backend or PyTorch's, with values half as wide as queries and keys; the size is that of the queries
    fused: Kernels  # a plain attention in Triton; the fused kernel is taken to reach the same per product
    sources: dict[str, str]
    cudnn: int = 92400
    tries_cudnn_for_narrow: bool = True  # as ComfyUI 0.33 has PyTorch do; 0.3.75 on Windows alone
    exact: Kernels | None = None  # where `attention` is quantised: what the paper's method takes for both of its calls


A100 = Card(
    "A100",
    (8, 0),
    matmul=220,
    convolution=140,
    bandwidth=1.4,
    attention={64: 170, 128: 195, 256: 170, LARGER: 90},
    unpadded={128: 150, LARGER: 105},
    fused={64: 145, 128: 165},
    sources={
        "matmul, convolution": "assumed: 70 % and 45 % of the peak of 312 TFLOPS",
        "bandwidth": "assumed: 70 % of 2.0 TB/s (80 GB)",
        "attention": f"assumed; {FA2}, reports up to 73 % of the peak, 227 TFLOPS",
        "unpadded": "assumed: cuDNN at 0.82 of FlashAttention-2 (transformers#48163) to heads of 128, then memory-efficient",
        "fused": "assumed: 0.85 of FlashAttention-2",
    },
)
RTX_4090 = Card(
    "RTX 4090",
    (8, 9),
    matmul=150,
    convolution=110,
    bandwidth=1.2,
    attention={64: 140, 128: 150, 256: 120, LARGER: 66},
    unpadded={128: 140, LARGER: 85},
    fused={64: 126, 128: 135},
    sources={
        "matmul, convolution": "assumed: 91 % and 67 % of the peak of 165 TFLOPS (float32 sums)",
        "bandwidth": "assumed: 1.0 TB/s and a cache of 72 MB",
        "attention": "assumed: FlashAttention-2 at 73 to 91 % of the peak",
        "unpadded": "assumed: cuDNN as fast as FlashAttention-2 on Ada (transformers#48163) to heads of 128, then memory-efficient",
        "fused": "assumed: 0.90 of FlashAttention-2",
    },
)
H100 = Card(
    "H100",
    (9, 0),
    matmul=600,
    convolution=330,
    bandwidth=2.6,
    attention={64: 321, 128: 368, 256: 323, LARGER: 180},
    unpadded={128: 580, 256: 581, LARGER: 180},
    fused={64: 400, 128: 389},
    sources={
        "matmul, convolution": "assumed: 61 % and 33 % of the peak of 989 TFLOPS",
        "bandwidth": "assumed: 78 % of 3.35 TB/s",
        "attention": f"FlashAttention-2, which ComfyUI 0.33 has PyTorch try first, in {FA3}",
        "unpadded": f"assumed: cuDNN as fast as with equal sizes at 256 (in {FA3}), 5 % slower at 128; 256 needs one newer than 9.22",
        "fused": f"Triton in {FA3}",
    },
)
H100_CUDNN = replace(
    H100,
    name="H100, ComfyUI 0.3.75",
    attention={64: 408, 128: 609, 256: 581, LARGER: 180},
    tries_cudnn_for_narrow=False,
    sources={"attention": f"cuDNN, which PyTorch's own order has first, in {FA3}; it is given padded values", "else": "as H100"},
)
RTX_4090_SAGE = replace(
    RTX_4090,
    name="RTX 4090, SageAttention 2",
    attention={**RTX_4090.attention, 64: 270, 128: 300},
    exact=RTX_4090.attention,
    sources={
        "attention": f"assumed: twice FlashAttention-2 with quantisation counted in ({SAGE}, reports three times); no heads above 128",
        "else": "as RTX 4090",
    },
)
CARDS = (A100, RTX_4090, H100, H100_CUDNN, RTX_4090_SAGE)


# What becomes of values in a call with doubled heads; the fused kernel has none
PADDED, UNPADDED, FUSED = "padded", "unpadded", "fused"


@dataclass(frozen=True)
class Method:
    name: str
    keeps_plain: bool  # the model's own call is needed too
    passes: dict[str, int]  # tensors of the size of q that are read or written outside attention, as tests/gpu/test_ceilings.py counts them
    values: str | None = None  # PADDED, UNPADDED, FUSED, or as the pack decides
    eta: bool = False  # three d×d products for η


ONE_PASS = {PADDED: 12, UNPADDED: 7, FUSED: 1}
METHODS = (
    Method("paper, beta 3", True, {PADDED: 22, UNPADDED: 18}),
    Method("adaptive", True, {PADDED: 30, UNPADDED: 24}, eta=True),
    Method("one pass", False, ONE_PASS),
    Method("one pass, padded", False, ONE_PASS, PADDED),
    Method("one pass, unpadded", False, ONE_PASS, UNPADDED),
    Method("one pass, fused", False, ONE_PASS, FUSED),
)
