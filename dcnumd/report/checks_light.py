"""The checks of a report that judge the light: flicker, drift, brightness, saturation."""

from __future__ import annotations

import numpy as np

from dcnumd.config.values import ReportLimits
from dcnumd.report.check import Check, Observations, above, unknown
from dcnumd.report.wording import percent, short

BLACK, WHITE = 10.0, 250.0
"""Brightness below or above which a background shows nothing [grey levels]."""
MOSTLY_SATURATED = 0.5
"""Share of saturated pixels above which the images are useless."""


def flicker(seen: Observations, limits: ReportLimits) -> Check:
    """Warn of a brightness that varies from frame to frame."""
    value, most = seen.flicker, limits.max_flicker
    if value is None:
        return unknown("flicker", most, "grey levels", "Whether the light flickers is not known: too few frames.")
    text = f"The light is steady: {value:.2f} grey levels from frame to frame."
    if value > most:
        text = (
            f"The light flickers by {value:.2f} grey levels from frame to frame, more than {short(most)}. Check the "
            "lamp and its trigger; keep the offset correction of the background on."
        )
    return above("flicker", value, most, "grey levels", text)


def background_drift(seen: Observations, limits: ReportLimits) -> Check:
    """Warn of a background whose brightness changed during the recording."""
    values, most = np.array(seen.background, np.float64), limits.max_background_drift
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return unknown("background_drift", most, "grey levels", "Whether the background drifts is not known.")
    drift = float(values.max() - values.min())
    text = f"The background is steady: its brightness changed by {drift:.1f} grey levels."
    if drift > most:
        text = (
            f"The background's brightness changed by {drift:.1f} grey levels, more than {short(most)}. Let the light "
            "warm up, check the focus, and look for dirt that settles in the channel."
        )
    return above("background_drift", drift, most, "grey levels", text)


def too_dark(seen: Observations, limits: ReportLimits) -> Check:
    """Warn of a background that is too dark."""
    value, least = _brightness(seen), limits.min_brightness
    if value is None:
        return unknown("too_dark", least, "grey levels", "Whether the images are too dark is not known.")
    if value >= least:
        text = f"The background is bright enough: {value:.0f} grey levels."
        return Check("too_dark", "ok", value, least, "grey levels", text)
    if value < BLACK:
        text = (
            f"The images are black: the background has {value:.0f} of 255 grey levels. Check lamp, trigger and cables."
        )
        return Check("too_dark", "alarm", value, least, "grey levels", text)
    text = (
        f"The images are too dark: the background has {value:.0f} of 255 grey levels, expected at least "
        f"{short(least)}. Use more light, or flash for longer."
    )
    return Check("too_dark", "warning", value, least, "grey levels", text)


def too_bright(seen: Observations, limits: ReportLimits) -> Check:
    """Warn of a background that is too bright."""
    value, most = _brightness(seen), limits.max_brightness
    if value is None:
        return unknown("too_bright", most, "grey levels", "Whether the images are too bright is not known.")
    if value <= most:
        text = f"The background is not too bright: {value:.0f} grey levels."
        return Check("too_bright", "ok", value, most, "grey levels", text)
    if value > WHITE:
        text = f"The images are white: the background has {value:.0f} of 255 grey levels. Use less light."
        return Check("too_bright", "alarm", value, most, "grey levels", text)
    text = (
        f"The images are too bright: the background has {value:.0f} of 255 grey levels, expected at most "
        f"{short(most)}. Use less light, or flash for shorter."
    )
    return Check("too_bright", "warning", value, most, "grey levels", text)


def saturated(seen: Observations, limits: ReportLimits) -> Check:
    """Warn of many pixels with the largest value that can be stored."""
    share, most = seen.saturated, limits.max_saturated
    if share is None:
        return unknown("saturated", most, "1", "Whether pixels are saturated is not known: no images are reachable.")
    if share <= most:
        text = f"{percent(share)} of the pixels are saturated."
        return Check("saturated", "ok", share, most, "1", text)
    text = (
        f"{percent(share)} of the pixels are saturated (255), more than {percent(most)}; what is brighter is lost. "
        "Use less light, or lower the gain of the camera."
    )
    return Check("saturated", "alarm" if share > MOSTLY_SATURATED else "warning", share, most, "1", text)


def _brightness(seen: Observations) -> float | None:
    values = np.array(seen.background, np.float64)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else None
