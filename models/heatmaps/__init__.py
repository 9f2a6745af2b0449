"""Where in a photograph the evidence for a class is, and whether a map says more than chance."""

from models.heatmaps.choose import Heatmaps, heatmaps
from models.heatmaps.deletion import Deletion, deletion

__all__ = ["Deletion", "Heatmaps", "deletion", "heatmaps"]
