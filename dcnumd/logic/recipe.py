"""The recipe of a plan: all settings on which the events of a frame depend, apart from images."""

from __future__ import annotations

import json
from typing import Any

from dcnumd.logic.plan import Plan


def recipe_of(plan: Plan) -> str:
    """Return the recipe as text; with equal recipes, equal frames and backgrounds have equal events."""
    settings = plan.job.settings
    parts: dict[str, Any] = {
        "pipeline": str(plan.pipeline_id),
        "background": plan.background.get_ppid_code(),
        "background keywords": sorted(plan.background_kwargs.items()),
        "segmenter": plan.segmenter.get_ppid_code(),
        "segmenter keywords": sorted(settings.segmenter_kwargs.items()),
        "mask keywords": sorted(settings.mask_kwargs.items()),
        "model": plan.segmenter.describe_model(settings.segmenter_kwargs),
        "pixel size": plan.data.pixel_size,
        "features": plan.features.names,
        "size": plan.gate.size_thresh_mask,
        "limits": sorted(plan.gate.box_gates.items()),
        "frame": plan.frame_shape,
    }
    return json.dumps(parts, default=repr)
