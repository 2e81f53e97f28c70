"""The fluorescence of a measurement: which peaks and traces there are, and whether the result has them."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping

from dcnumd.meta.features import PEAKS
from dcnumd.report.result_file import ResultData
from dcnumd.report.wording import listed

NUMBERS = (1, 2, 3)
"""Numbers of the channels of fluorescence that the file format knows."""
PEAK = re.compile(rf"fl([1-3])_({'|'.join(PEAKS)})")
TRACE = re.compile(r"fl([1-3])_(raw|median)")
MAXIMUM = re.compile(r"fl[1-3]_max(_ctc)?")


@dataclasses.dataclass(frozen=True, slots=True)
class Channel:
    """One channel of fluorescence.

    Attributes
    ----------
    number
        Number of the channel, 1 to 3.
    name
        Name that the instrument gave it, such as ``525/50``; empty if not stored.
    laser_nm
        Wavelength of its laser [nm].
    peaks, traces
        Names of the features of its peaks, such as ``fl1_max``, and of its traces, in the result or in the measurement.
    in_result
        Whether the result itself has one of these features.
    """

    number: int
    name: str
    laser_nm: float | None
    peaks: tuple[str, ...]
    traces: tuple[str, ...]
    in_result: bool


def channels_of(data: ResultData) -> tuple[Channel, ...]:
    """Return the channels of which there are peaks or traces, or that the attributes of the result name."""
    own = data.stored_names("events"), data.stored_names("events/trace")
    source = data.source_names("events"), data.source_names("events/trace")
    channels = []
    for number in NUMBERS:
        mine, all_of_it = (
            (_of_channel(PEAK, number, peaks), _of_channel(TRACE, number, traces))
            for peaks, traces in (own, (own[0] | source[0], own[1] | source[1]))
        )
        name = str(data.meta.get(f"fluorescence:channel {number} name", ""))
        if any(all_of_it) or name:
            channels.append(Channel(number, name, _laser(data.meta, number), *all_of_it, in_result=any(mine)))
    return tuple(channels)


def in_words(channel: Channel) -> str:
    """Return what there is of a channel, such as ``peaks (maximum, width), traces (raw)``."""
    parts = []
    if channel.name:
        parts.append(channel.name)
    if channel.laser_nm:
        parts.append(f"laser {channel.laser_nm:g} nm")
    if channel.peaks:
        parts.append(f"peaks ({', '.join(PEAKS[name.partition('_')[2]][1] for name in channel.peaks)})")
    if channel.traces:
        parts.append(f"traces ({', '.join(name.partition('_')[2] for name in channel.traces)})")
    return ", ".join(parts)


def told(channels: tuple[Channel, ...], events: int) -> str:
    """Return a sentence that says whether the result has the fluorescence of the measurement; empty without any.

    Parameters
    ----------
    channels
        The channels, see `channels_of`.
    events
        Number of events, whose peaks are plotted.
    """
    if not channels:
        return ""
    lost = [channel for channel in channels if not channel.in_result]
    if not lost:
        return "The result has the fluorescence of its events."
    names = listed([f"channel {channel.number}" for channel in lost])
    if not any(channel.peaks or channel.traces for channel in lost):
        return (
            f"The measurement was recorded with fluorescence ({names}). The result has none, because dcnum does not "
            "keep it, and none was found in the measurement."
        )
    text = f"The fluorescence of {names} is in the measurement only: dcnum does not keep it in its results."
    if events and any(channel.peaks for channel in lost):
        text += " The plots take the peak of each event from its frame in the measurement."
    return text


def is_maximum(feature: str) -> bool:
    """Return whether a feature is the maximum of a peak, which is plotted on a logarithmic axis."""
    return MAXIMUM.fullmatch(feature) is not None


def is_peak(feature: str) -> bool:
    """Return whether a feature describes a peak of fluorescence."""
    return PEAK.fullmatch(feature) is not None


def _of_channel(pattern: re.Pattern[str], number: int, names: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(name for name in names if (match := pattern.fullmatch(name)) and int(match[1]) == number))


def _laser(meta: Mapping[str, object], number: int) -> float | None:
    value = meta.get(f"fluorescence:laser {number} lambda")
    return float(value) if isinstance(value, int | float) and math.isfinite(value) and value > 0 else None
