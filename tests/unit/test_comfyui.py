"""What the pack relies on in ComfyUI, in one table, and whether the installed ComfyUI has it.

The first thing to run after an update of ComfyUI: `python3 -m tests tests/unit/test_comfyui.py` lists what is gone.
What is private to the front end is tried in the browser tier.
"""

import ast
import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from operator import attrgetter
from pathlib import Path

import folder_paths
from circulation_demo.inprocess import COMFY
from comfy.ldm.modules.attention import wrap_attn
from comfy_execution.graph_utils import GraphBuilder
from support.host import COMFYUI, ROOT, comfyui_is_at_least, engine

NODES = ROOT / "nodes"
LAYER = NODES / "engine" / "comfy"
families = engine("families.table")


@dataclass(frozen=True, kw_only=True)
class Use:
    """Something that ComfyUI has in the versions from `since` up to before `until`."""

    since: str = "0.3.75"
    until: str = "999"

    @property
    def demanded(self) -> bool:
        return comfyui_is_at_least(self.since) and not comfyui_is_at_least(self.until)


@dataclass(frozen=True)
class Name(Use):
    """What can be imported; a function or class that takes these arguments first, in this order, and those by name."""

    path: str
    first: tuple[str, ...] = ()
    by_name: tuple[str, ...] = ()

    def gone(self) -> str | None:
        try:
            found = resolve(self.path)
        except (ImportError, AttributeError):
            return self.path
        if not (self.first or self.by_name):
            return None
        takes = inspect.signature(found).parameters
        missing = [name for name in self.by_name if name not in takes]
        start = tuple(name for name in takes if name != "self")[: len(self.first)]
        if not missing and start == self.first:
            return None
        return f"{self.path}({', '.join([*self.first, *missing])}): it takes ({', '.join(takes)})"


@dataclass(frozen=True)
class Code(Use):
    """Texts in the source of a module: keys of dictionaries, attributes that objects get, the order in a tuple."""

    module: str
    texts: tuple[str, ...]

    def gone(self) -> str | None:
        try:
            missing = [text for text in self.texts if text not in source(self.module)]
        except ImportError:
            return self.module
        return f"in {self.module}: {'; '.join(missing)}" if missing else None


@dataclass(frozen=True)
class Behaviour(Use):
    words: str
    holds: Callable[[], object]

    def gone(self) -> str | None:
        return None if self.holds() else self.words


def resolve(path):
    module, *attributes = path.split(":") if ":" in path else path.rsplit(".", 1)
    found = importlib.import_module(module)
    return attrgetter(*attributes)(found) if attributes else found


@cache
def source(module):
    """Of a module that need not be imported: ComfyUI's server starts things when it is."""
    # ComfyUI's own, where a folder of the tests has its name
    spec = PathFinder.find_spec(module, [str(COMFY)]) if "." not in module else importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ImportError(module)
    return Path(spec.origin).read_text(encoding="utf-8").replace("'", '"')


def key(name):
    return f'"{name}"'


def hands_calls_over():
    """An override is given the function without its decorator, and the arguments as they came."""
    given = []

    @wrap_attn
    def backend(*args, **kwargs):
        raise AssertionError

    options = {"optimized_attention_override": lambda *args, **kwargs: given.append((args, kwargs))}
    backend(1, 2, 3, 4, mask=5, transformer_options=options)
    (((function, *args), kwargs),) = given
    inside = kwargs.pop("_inside_attn_wrapper")
    return function is backend.__wrapped__ and args == [1, 2, 3, 4] and inside and kwargs == {"mask": 5, "transformer_options": options}


IO = "comfy_api.latest:io."
ATTENTION = "comfy.ldm.modules.attention"
CALL = ("q", "k", "v", "heads", "mask", "attn_precision", "skip_reshape", "skip_output_reshape")  # the order of positional arguments
UNET = "comfy.ldm.modules.diffusionmodules.openaimodel"
TABLE = [
    # --- nodes/*.py
    Name("comfy_api.latest:ComfyExtension.get_node_list"),
    Name(IO + "Schema", by_name=("node_id", "display_name", "category", "inputs", "outputs", "hidden", "description", "is_output_node")),
    Name(IO + "Schema", by_name=("not_idempotent", "is_input_list", "enable_expand", "is_deprecated")),
    Name(IO + "Schema", by_name=("is_dev_only",), since="0.33.0"),
    Name(IO + "Schema", by_name=("search_aliases",), since="0.11.0"),
    *(Name(f"{IO}{name}") for name in ("ComfyNode", "NodeOutput", "Custom", "Latent", "Image", "Hidden.prompt", "Hidden.unique_id")),
    *(Name(f"{IO}{kind}.Input", by_name=("tooltip", "optional")) for kind in ("Boolean", "Combo", "Float", "Int", "MultiType", "String")),
    *(Name(f"{IO}{kind}.Input", by_name=("advanced",), since="0.10.0") for kind in ("Boolean", "Combo", "Float", "Int", "String")),
    Name(IO + "Model.Input", by_name=("tooltip",)),
    Name(IO + "ClipVision.Input", by_name=("tooltip", "optional")),
    Name(IO + "Float.Input", by_name=("force_input",)),
    Name("comfy.clip_vision:ClipVisionModel.encode_image", ("image",)),
    Code("comfy.clip_vision", ('outputs["image_embeds"] = ',)),
    *(Name(f"{IO}{kind}.Input", by_name=("tooltip", "extra_dict")) for kind in ("ClipVision", "Conditioning", "Latent", "Model", "Vae")),
    *(Name(f"{IO}{kind}.Output", by_name=("display_name", "tooltip", "is_output_list")) for kind in ("Image", "Model", "String")),
    Name(IO + "NodeOutput", by_name=("ui", "expand")),
    Code("execution", (key("rawLink"),)),
    Name(IO + "ComfyNode.hidden"),
    Name("comfy_api.latest:ui.PreviewImage", ("image",), by_name=("cls",)),
    Name("comfy_api.latest:ui.PreviewImage.as_dict"),
    Name("comfy_api.latest:ui.PreviewText", ("value",)),
    # --- comfy/files.py
    Name("folder_paths.get_input_directory"),
    Name("folder_paths.get_output_directory"),
    Name("folder_paths.get_save_image_path", ("filename_prefix", "output_dir")),
    Code("folder_paths", ("return full_output_folder, filename, counter, subfolder, filename_prefix",)),
    # --- comfy/pictures.py
    Name("folder_paths.get_temp_directory"),
    Name("comfy.cli_args:args.disable_metadata"),
    Name("comfy.model_management.throw_exception_if_processing_interrupted"),
    Code("comfy_api.latest._io", ("self.hidden.append(Hidden.prompt)", "self.hidden.append(Hidden.extra_pnginfo)")),
    # --- comfy/grid.py
    Name("comfy_execution.graph_utils:GraphBuilder.node", ("class_type", "id")),
    Name("comfy_execution.graph_utils:GraphBuilder.finalize"),
    Name("comfy.samplers:KSampler.SAMPLERS"),
    Name("comfy.samplers:KSampler.SCHEDULERS"),
    Name("comfy.utils.ProgressBar", ("total", "node_id")),
    Name("nodes:KSampler.sample", ("model", "seed", "steps", "cfg", "sampler_name", "scheduler"), ("positive", "negative", "denoise")),
    Name("nodes:KSampler.sample", by_name=("latent_image",)),
    Name("nodes:VAEDecode.decode", ("vae", "samples")),
    # --- comfy/prompt.py, comfy/run_info.py
    Name("comfy_execution.utils.get_executing_context"),
    Name("comfy_execution.utils:ExecutionContext", ("prompt_id", "node_id", "list_index")),
    Behaviour(
        'nodes that "7" expands into have ids such as "7.0.0.2"',
        lambda: re.fullmatch(r"7\.0\.0\.\w+", GraphBuilder(GraphBuilder.alloc_prefix("7", 0, 0)).node("KSampler").id),
    ),
    Name("comfyui_version.__version__"),
    Name("comfy_execution.graph_utils.is_link", ("obj",)),
    # --- comfy/events.py
    Code("server", ("PromptServer.instance = self", "self.client_id", "self.prompt_queue", "def send_sync(self, event, data, sid=None)")),
    Code("server", ("self.prompt_queue.put((number, prompt_id, prompt, extra_data, ", key("extra_data"))),
    Code("execution", ("def get_current_queue_volatile(self)", "return (running, queued)")),
    Code("execution", (key("extra_pnginfo"),)),
    Code("server", ("def add_on_prompt_handler(self, handler)", "json_data = self.trigger_on_prompt(json_data)", key("client_id"))),
    # --- comfy/attention_call.py
    *(Name(f"{ATTENTION}.attention_{name}", CALL) for name in ("basic", "pytorch", "split", "sage", "flash", "xformers")),
    Name(ATTENTION + ".attention_sub_quad", ("query", "key", "value", *CALL[3:])),
    Name(ATTENTION + ".REGISTERED_ATTENTION_FUNCTIONS"),
    Code(ATTENTION, tuple(f'register_attention_function("{name}"' for name in ("pytorch", "sub_quad", "split"))),
    Code(ATTENTION, tuple(f'register_attention_function("{name}"' for name in ("sage", "flash", "xformers"))),
    Code(ATTENTION, ('register_attention_function("sage3"',), since="0.8.0"),
    Code(ATTENTION, ('register_attention_function("comfy_kitchen_int8"',), since="0.32.0"),
    Code(ATTENTION, (key("optimized_attention_override"), key("_inside_attn_wrapper"))),
    Name(ATTENTION + ".optimized_attention"),
    Name(ATTENTION + ".AttentionTensorContainer", ("tensor",), since="0.32.0"),
    Code(ATTENTION, ('if hasattr(optimized_attention_override, "container_function"):',), since="0.32.0"),
    Behaviour("attention functions that hand their calls to the override of transformer_options", hands_calls_over),
    # --- comfy/model.py
    Name("comfy.model_patcher:ModelPatcher.clone"),
    Code("comfy.model_patcher", ("self.model = ",)),
    Code("comfy.model_base", ("self.model_config = ", "self.diffusion_model = ")),
    # --- comfy/patch.py
    Name("comfy.model_patcher:ModelPatcher.set_attachments", ("key", "attachment")),
    Name("comfy.model_patcher:ModelPatcher.get_attachment", ("key",)),
    Name("comfy.model_patcher:ModelPatcher.add_wrapper_with_key", ("wrapper_type", "key", "wrapper")),
    Name("comfy.model_patcher:ModelPatcher.remove_wrappers_with_key", ("wrapper_type", "key")),
    Name("comfy.model_patcher:ModelPatcher.get_model_object", ("name",)),
    Name("comfy.model_patcher:ModelPatcher.add_object_patch", ("name", "obj")),
    Code("comfy.model_patcher", ("self.object_patches = {}",)),
    Name("comfy.model_sampling:ModelSamplingDiscrete.percent_to_sigma", ("percent",)),
    Name("comfy.patcher_extension.add_wrapper_with_key", ("wrapper_type", "key", "wrapper", "transformer_options")),
    Name("comfy.patcher_extension.copy_nested_dicts", ("input_dict",)),
    Code("comfy.model_patcher", ("self.object_patches_backup = {}",)),
    Name("comfy.patcher_extension:WrapperExecutor", ("original", "class_obj", "wrappers", "idx")),
    Code("comfy.patcher_extension", ("self.class_obj = ",)),
    *(Name(f"comfy.patcher_extension:WrappersMP.{name}") for name in ("OUTER_SAMPLE", "PREDICT_NOISE", "CALC_COND_BATCH", "APPLY_MODEL")),
    Name(
        "comfy.samplers:CFGGuider.outer_sample",
        ("noise", "latent_image", "sampler", "sigmas", "denoise_mask", "callback", "disable_pbar", "seed"),
    ),
    Name("comfy.samplers:CFGGuider.predict_noise", ("x", "timestep")),
    Name("comfy.samplers:_calc_cond_batch", ("model", "conds", "x_in", "timestep", "model_options")),
    Name("comfy.model_base:BaseModel._apply_model", ("x", "t", "c_concat", "c_crossattn", "control", "transformer_options")),
    Code("comfy.samplers", tuple(f"self.{name} = " for name in ("model_patcher", "original_conds", "cfg", "sampler_function"))),
    # the options are a copy for each run
    Code("comfy.samplers", ("self.model_options = comfy.model_patcher.create_model_options_clone(self.model_options)",)),
    Code("comfy.samplers", ('transformer_options["cond_or_uncond"] = ', 'transformer_options["uuids"] = ', key("transformer_options"))),
    Code("comfy.sampler_helpers", ('["uuid"] = uuid.uuid4()',)),
    Code("nodes", (key("positive"), key("negative"))),
    Code("comfy_api.torch_helpers.torch_compile", (key("torch_compile_kwargs"), key("fullgraph"), ".model_options[TORCH_COMPILE_KWARGS]")),
    Code(ATTENTION, (key("patches"), key("patches_replace"), key("attn1_patch"), key("attn2_patch"), key("block"), key("block_index"))),
    Code(UNET, tuple(f'transformer_options["block"] = ("{stage}", ' for stage in ("input", "middle", "output"))),
    Code("comfy.ldm.flux.model", (key("dit"), '("double_block", i) in blocks_replace', key("original_block"), key("transformer_options"))),
    Code("comfy.ldm.flux.model", ('transformer_options["block_type"] = "double"', 'transformer_options["block_type"] = "single"')),
    Code("comfy.ldm.flux.model", ('transformer_options["block_index"] = i',)),
    Code("comfy.ldm.krea2.model", ('transformer_options["img_slice"] = [txtlen, ',), since="0.26.0"),
    Code("comfy.ldm.lightricks.av_model", (key("run_vx"), key("stg_skip_self_attn")), since="0.33.0"),
    # --- families/unet.py
    Name(f"{UNET}.UNetModel"),
    Code(UNET, ("self.input_blocks = ", "self.middle_block = ", "self.output_blocks = ")),
    Name(ATTENTION + ".SpatialTransformer"),
    Name(ATTENTION + ".SpatialVideoTransformer"),
    Code(ATTENTION, ("self.transformer_blocks = ", "self.n_heads = ", "self.d_head = ", "self.disable_self_attn = ")),
    # --- families/table.py: each network, its lists of blocks, and what says where the image is
    *(Name(path, since=row.since) for path, row in (families.TRANSFORMERS | families.REFUSED).items()),
    Code("comfy.model_base", (*(f'out["{name}"] = ' for name in ("ref_latents", "ref_latent", "reference_latent", "image_cond")),)),
    Code("comfy.model_base", ('out["latent_shapes"] = ',), since="0.8.0"),
    Code("comfy.ldm.hidream_o1.conditioning", ('out["ref_patches"] = ',), since="0.22.0"),
    *(
        Code(f"comfy.ldm.cascade.{stage}", tuple(f"self.{what} = " for what in (f"{side}_blocks", f"{side}_repeat_mappers")))
        for stage in ("stage_b", "stage_c")
        for side in ("down", "up")
    ),
    Code("comfy.ldm.cascade.common", ("self.attention = ", "self.self_attn = ")),
    Code("comfy.text_encoders.llama", ("self.layers = ",), since="0.22.0"),
    Code("comfy.ldm.flux.layers", ("self.flipped_img_txt = ",), until="0.14.0"),
    Code("comfy.ldm.lumina.model", ("self.pad_tokens_multiple = ",)),
    Code("comfy.ldm.wan.model", ("self.ref_conv = ",)),
    Code("comfy.ldm.modules.diffusionmodules.mmdit", ("self.x_block_self_attn = ",)),
    Code("comfy.ldm.cosmos.model", ("self.patch_spatial = ", "self.patch_temporal = ")),
    Code("comfy.ldm.cosmos.predict2", ("self.patch_spatial = ", "self.patch_temporal = ")),
    # --- demo and tests
    Name("nodes.load_custom_node", ("module_path",)),
    Name("nodes.NODE_CLASS_MAPPINGS"),
    Name(IO + "ComfyNode.PREPARE_CLASS_CLONE"),
    Name("comfy_api.latest._io.V3Data", since="0.4.0"),
    Name(ATTENTION + ".SDP_BATCH_LIMIT"),
    Name("comfy.model_base:BaseModel.memory_required"),
]


def test_comfyui_has_what_we_use():
    gone = [gone for use in TABLE if use.demanded and (gone := use.gone())]
    assert not gone, f"ComfyUI {COMFYUI} no longer has\n  " + "\n  ".join(gone)


def test_the_lists_of_blocks_are_where_the_table_of_families_says():
    gone = [
        f"{path}.{stage.modules}"
        for path, row in families.TRANSFORMERS.items()
        if comfyui_is_at_least(row.since)
        for stage in row.stages
        if isinstance(stage.modules, str)
        if not any(f"self.{stage.modules.split('.')[0]} = " in source(base.__module__) for base in resolve(path).__mro__[:-1])
    ]
    assert not gone, gone


# The table is complete, and one layer alone knows ComfyUI

MODULES = {path.stem for path in Path(folder_paths.base_path).iterdir() if path.suffix == ".py" or path.is_dir()}  # of ComfyUI


@cache
def parsed(file):
    return ast.parse(file.read_text(encoding="utf-8"))


def imported(file):
    """What a file imports of ComfyUI: {name in the file: path of it}."""
    names = {}
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return {name: path for name, path in names.items() if path.partition(".")[0] in MODULES}


def used(file):
    """The longest dotted paths of what a file uses of ComfyUI."""
    names = imported(file)
    inner = {id(node.value) for node in ast.walk(parsed(file)) if isinstance(node, ast.Attribute)}
    for node in ast.walk(parsed(file)):
        attributes, root = [], node
        while isinstance(root, ast.Attribute):
            attributes.append(root.attr)
            root = root.value
        if isinstance(root, ast.Name) and root.id in names and id(node) not in inner:
            yield ".".join([names[root.id], *reversed(attributes)])


def strings(file):
    """The texts in a file that are no docstrings."""
    nodes = list(ast.walk(parsed(file)))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings}


def part_of(path, name):
    return f"{name}.".startswith(f"{path}.")


FILES = sorted(NODES.rglob("*.py"))


def test_the_table_has_every_name_that_we_import():
    known = {use.path.replace(":", ".") for use in TABLE if isinstance(use, Name)}
    unknown = {path for file in FILES for path in used(file) if not any(part_of(path, name) or part_of(name, path) for name in known)}
    assert unknown == set()


def comfyui_keys():
    """What keys.py says of ComfyUI's names."""
    constants = {name: value for name, value in vars(engine("comfy.keys")).items() if name.isupper()}
    return {name: value for name, value in constants.items() if not value.startswith("circulation")}


def test_the_table_has_every_key_that_we_look_up():
    texts = " ".join(text for use in TABLE if isinstance(use, Code) for text in use.texts)
    assert {value for value in comfyui_keys().values() if key(value.format("double")) not in texts} == set()


def test_only_one_layer_of_the_engine_imports_comfyui():
    engine_files = [file for file in FILES if file.is_relative_to(NODES / "engine") and not file.is_relative_to(LAYER)]
    assert {file.name: names for file in engine_files if (names := imported(file))} == {}
    node_files = [file for file in FILES if file.parent == NODES]
    assert {path.partition(".")[0] for file in node_files for path in imported(file).values()} == {"comfy_api"}


def test_only_one_layer_of_the_engine_knows_comfyuis_keys():
    """But for words that mean other things too, and the names of classes, by which families tell models apart."""
    keys = set(comfyui_keys().values()) - {"block", "negative", "positive"}
    elsewhere = [file for file in FILES if not file.is_relative_to(LAYER)]
    assert {file.name: known for file in elsewhere if (known := strings(file) & keys)} == {}
    named = {file.relative_to(NODES).as_posix() for file in elsewhere if any(text.startswith("comfy.") for text in strings(file))}
    assert named == {"engine/families/table.py", "engine/families/unet.py"}
