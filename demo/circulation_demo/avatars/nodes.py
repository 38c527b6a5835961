from comfy_api.latest import ComfyExtension, io

from .factors import vocabulary
from .loader import load


class LoadAvatarModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CirculationDemoLoader",
            display_name="Load Avatar Model (demo)",
            category="Circulation/demo",
            description=f"A small model of pixel avatars, 128×128. Its prompts are made of: {vocabulary()}.",
            inputs=[],
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls):
        return io.NodeOutput(*load())


class AvatarExtension(ComfyExtension):
    async def get_node_list(self):
        return [LoadAvatarModel]
