from comfy_api.latest import ComfyExtension

from .circulation import CirculationAdaptive, CirculationControl


class CirculationExtension(ComfyExtension):
    async def get_node_list(self):
        return [CirculationControl, CirculationAdaptive]
