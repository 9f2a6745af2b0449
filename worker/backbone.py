"""The backbone that a job names, on the device and in the arithmetic of this worker's settings."""

from typing import cast

from app.core.settings import BackboneSettings
from models.backbone import Backbone, Device
from models.backbone_source import load_backbone


def load_for_job(source: str, settings: BackboneSettings) -> Backbone:
    """Load it.

    Raises:
        BackboneUnavailable: not on this machine.
    """
    return load_backbone(
        source,
        device=cast("Device", settings.device),
        precision=settings.precision,
        offline=settings.offline,
    )
