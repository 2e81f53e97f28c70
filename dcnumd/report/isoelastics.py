"""Lines of equal elasticity for the standard plot, computed by dclab where it is installed.

dclab takes seconds to import, so it is imported only when all conditions of a measurement are known, or in advance.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import warnings
from typing import Any, NamedTuple

import numpy as np

from dcnumd.errors import printable
from dcnumd.report.axes import is_width
from dcnumd.report.cloud import Isoline
from dcnumd.report.figures import Figures
from dcnumd.report.page import number
from dcnumd.report.request import PAIR

LUT = "LE-2D-FEM-19"
"""Identifier of the look-up table of dclab. Why this one: it is the default there."""
VISCOSITY_MODEL = "buyukurganci-2022"
"""Model for the viscosity of solutions of methyl cellulose, which depends on temperature and shear rate."""
MEDIA = frozenset(
    {"water", "cellcarrier", "cellcarrierb", "cellcarrier b"}
    | {f"{share}% mc-pbs" for share in ("0.49", "0.5", "0.50", "0.59", "0.6", "0.60", "0.83", "0.8", "0.80")}
)
"""Names of media whose viscosity dclab knows, in lower case."""
CHANNEL = "channel"
"""Region of the chip in which cells are deformed."""


class Conditions(NamedTuple):
    """What the elasticity depends on, besides area and deformation."""

    width_um: float
    flow_rate_ul_s: float
    medium: str
    temperature_c: float
    pixel_size_um: float


def load() -> None:
    """Import dclab in advance if it is installed."""
    # An error occurs again for each report, which tells it.
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if importlib.util.find_spec("dclab") is not None:
            _dclab()


def isolines(figures: Figures) -> tuple[tuple[Isoline, ...], str]:
    """Return the lines for the conditions of a measurement, and a sentence on what they are for, or why there are none.

    Without dclab, there are no lines and the sentence is empty.
    """
    if importlib.util.find_spec("dclab") is None:
        return (), ""
    conditions = _conditions(figures)
    if isinstance(conditions, str):
        return (), f"No isoelasticity lines: {conditions}."
    try:
        lines = compute(conditions)
    except OutOfRangeError:
        temperature = f"{number(conditions.temperature_c)} °C"
        return (), f"No isoelasticity lines: the viscosity of {conditions.medium} at {temperature} is not known."
    except Exception as error:  # noqa: BLE001 -- whatever goes wrong in another package, the report is made
        return (), f"No isoelasticity lines: dclab failed ({type(error).__name__}: {printable(str(error))})."
    return lines, (
        f"Isoelasticity lines: Young's modulus in kPa, from the look-up table {LUT} for a channel of "
        f"{number(conditions.width_um)} µm, {number(conditions.flow_rate_ul_s)} µL/s, {conditions.medium} at "
        f"{number(conditions.temperature_c)} °C, corrected for pixels of {number(conditions.pixel_size_um)} µm."
    )


class OutOfRangeError(ValueError):
    """The viscosity of the medium is not known under these conditions."""


def compute(conditions: Conditions) -> tuple[Isoline, ...]:
    """Return the isoelasticity lines of dclab for area and deformation as they are measured, that is, with pixelation.

    Raises
    ------
    OutOfRangeError
        If dclab has no viscosity for the conditions.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table, get_viscosity = _dclab()
        caught.clear()
        viscosity = get_viscosity(
            medium=conditions.medium,
            channel_width=conditions.width_um,
            flow_rate=conditions.flow_rate_ul_s,
            temperature=conditions.temperature_c,
            model=VISCOSITY_MODEL,
        )
        # dclab extrapolates beyond the temperatures of a model, and only warns of it.
        if caught or not np.isfinite(viscosity):
            raise OutOfRangeError
        lines = table.get(
            *PAIR,
            channel_width=conditions.width_um,
            lut_identifier=LUT,
            flow_rate=conditions.flow_rate_ul_s,
            viscosity=viscosity,
            add_px_err=True,
            px_um=conditions.pixel_size_um,
        )
    return tuple(Isoline(float(line[0, 2]), np.asarray(line[:, :2], np.float64)) for line in lines)


@functools.cache
def _dclab() -> tuple[Any, Any]:
    """Return the isoelasticity lines of dclab, and its function for viscosities."""
    from dclab import isoelastics  # noqa: PLC0415 -- the import takes seconds, see above
    from dclab.features.emodulus.viscosity import get_viscosity  # noqa: PLC0415

    return isoelastics.get_default(), get_viscosity


def _conditions(figures: Figures) -> Conditions | str:
    """Return the conditions of a measurement, or else the reason for which there are no lines."""
    temperature = figures.temperature_c
    if temperature is None:
        temperature = next((feature.median for feature in figures.features if feature.name == "temp"), None)
    width, flow_rate, pixel_size = figures.channel_width_um, figures.flow_rate_ul_s, figures.pixel_size_um
    known = {
        "width of the channel": is_width(width),
        "flow rate": flow_rate is not None and flow_rate > 0,
        "medium": bool(figures.medium),
        "temperature": temperature is not None,
        "pixel size": pixel_size is not None,
    }
    missing = [name for name, is_known in known.items() if not is_known]
    if missing:
        return f"the {' and the '.join(missing)} {'is' if len(missing) == 1 else 'are'} not known"
    if figures.chip_region and figures.chip_region.lower() != CHANNEL:
        return "cells are deformed in the channel, and this was not recorded there"
    if figures.medium.lower() not in MEDIA:
        return f"the viscosity of {printable(figures.medium)} is not known"
    assert width is not None
    assert flow_rate is not None
    assert temperature is not None
    assert pixel_size is not None
    return Conditions(width, flow_rate, figures.medium, temperature, pixel_size)
