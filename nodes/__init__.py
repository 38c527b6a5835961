from comfy_api.latest import ComfyExtension, io

from .circulation import CirculationAdaptive, CirculationControl, CirculationSchedule
from .engine.comfy.events import tell_refusals
from .model_blocks import ModelBlocks
from .sheet import ComparisonSheet
from .stability import LoadStability, SaveStability, StabilityCompare, StabilityProbe, StabilityReadout
from .sweep import CirculationGrid, CirculationGridCell, CirculationGridRows, CirculationSweep


class CirculationExtension(ComfyExtension):
    async def get_node_list(self):
        nodes: list[type[io.ComfyNode]] = [
            CirculationControl,
            CirculationAdaptive,
            CirculationSchedule,
            CirculationSweep,
            StabilityProbe,
            StabilityReadout,
            StabilityCompare,
            SaveStability,
            LoadStability,
            ModelBlocks,
            ComparisonSheet,
            CirculationGrid,
            CirculationGridCell,
            CirculationGridRows,
        ]
        tell_refusals({node.define_schema().node_id: node for node in nodes if "validate_inputs" in vars(node)})
        return nodes
