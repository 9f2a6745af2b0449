"""The image tower as a graph, from which other libraries take it over."""

import torch
from torch.export import Dim, ExportedProgram, export

from models.backbone import Backbone


def exported_tower(backbone: Backbone) -> ExportedProgram:
    """Return the tower, from pixels to L2-normalised features, for any number of images."""
    size = backbone.pixels.size
    # Two images: torch.export takes a size of one for a constant.
    example = torch.zeros(2, 3, size, size, dtype=torch.uint8)
    with torch.no_grad():
        return export(backbone.image, (example,), dynamic_shapes=({0: Dim("b")},), strict=False)
