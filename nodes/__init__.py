from comfy_api.latest import ComfyExtension

from .circulation import CirculationAdaptive, CirculationControl, CirculationSchedule
from .model_blocks import ModelBlocks
from .sheet import ComparisonSheet
from .stability import LoadStability, SaveStability, StabilityCompare, StabilityProbe, StabilityReadout
from .sweep import CirculationGrid, CirculationGridCell, CirculationGridRows, CirculationSweep


class CirculationExtension(ComfyExtension):
    async def get_node_list(self):
        return [
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
