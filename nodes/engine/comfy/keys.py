"""Names that ComfyUI looks up in dictionaries, and ours beside them. A test compares the former with the installed ComfyUI."""

# What we leave on a MODEL, and in the options of one run
ATTACHMENT = "circulation"
WRAPPER = "circulation"
FORWARD = "circulation_forward"
MARK = "circulation_mark"

# Of a guider's model_options
TRANSFORMER_OPTIONS = "transformer_options"
COMPILE_OPTIONS = "torch_compile_kwargs"
ONE_GRAPH = "fullgraph"  # of these

# Of transformer_options
ATTENTION_OVERRIDE = "optimized_attention_override"
INSIDE_OVERRIDE = "_inside_attn_wrapper"  # an argument of attention calls
CONTAINER_FUNCTION = "container_function"  # an attribute of backends and overrides that take q, k and v in containers
PATCHES = "patches"
SELF_ATTENTION_PATCH = "attn1_patch"
CROSS_ATTENTION_PATCH = "attn2_patch"
REPLACEMENTS = "patches_replace"
TRANSFORMER_SLOTS = "dit"
SLOT = "{}_block"  # of a kind of block
ORIGINAL_BLOCK = "original_block"
CONDITIONS = "cond_or_uncond"
PROMPTS = "uuids"
UNET_BLOCK = "block"
BLOCK_KIND = "block_type"
BLOCK_INDEX = "block_index"
IMAGE_RANGE = "img_slice"
LEAVES_SELF_ATTENTION_OUT = "stg_skip_self_attn"
RUNS_VIDEO = "run_vx"

# Of a guider's conditions
POSITIVE_PROMPTS = "positive"
NEGATIVE_PROMPTS = "negative"
PROMPT_ID = "uuid"
