"""Draws the picture of the README: ``python -m benchmarks.picture`` writes docs/dcnumd.svg.

It simulates a measurement, processes it with ``dcnumd process``, and shows a frame, what was found in it, and all
events.
"""

from __future__ import annotations

import base64
import dataclasses
import pathlib
import struct
import subprocess
import sys
import tempfile
import zlib

import h5py
import hdf5plugin  # noqa: F401 -- registers Zstandard
import numpy as np
import numpy.typing as npt

from dcnumd.simulate.measurement import MeasurementSpec, write_measurement

TARGET = pathlib.Path(__file__).parents[1] / "docs" / "dcnumd.svg"
SPEC = MeasurementSpec(frames=3000, density=0.8, kinds=("bead", "cell"), seed=14)

FRAMES_SHOWN = 3
FRAME_SCALE = 1.5
WIDTH, HEIGHT = 860, 470
LEFT = 20
PLOT = (570, 90, 270, 320)
"""Left, top, width and height of the scatter plot [px]."""

INK, FAINT, ACCENT = "#1f2933", "#7b8794", "#0b8a5f"
FONT = "font-family='Helvetica, Arial, sans-serif'"


@dataclasses.dataclass(frozen=True)
class Panel:
    """One frame and the masks of the events in it."""

    number: int
    image: npt.NDArray[np.uint8]
    masks: list[npt.NDArray[np.bool_]]


def main() -> None:
    """Simulate, process, draw."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name).resolve()
        measurement = folder / "M001_data.rtdc"
        write_measurement(measurement, SPEC)
        command = [
            sys.executable,
            "-m",
            "dcnumd",
            "process",
            str(measurement),
            "--no-report",
            "--set",
            "output.basin_strategy=drain",
        ]
        subprocess.run(command, check=True)
        svg = draw(measurement, folder / "M001_data_dcn.rtdc")
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(svg, encoding="utf-8")


def draw(measurement: pathlib.Path, result: pathlib.Path) -> str:
    """Return the picture of a measurement and its result as SVG."""
    with h5py.File(measurement, "r", locking=False) as raw, h5py.File(result, "r", locking=False) as processed:
        events = processed["events"]
        panels = choose_panels(raw["events/image"], events["basinmap0"][:], events["mask"])
        area, deformation = events["area_um"][:], events["deform"][:]
        pphash = str(processed.attrs["pipeline:dcnum hash"])
        frames = len(raw["events/image"])
    parts = [
        (
            f"<svg xmlns='http://www.w3.org/2000/svg' xmlns:xlink='http://www.w3.org/1999/xlink' "
            f"viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' height='{HEIGHT}'>"
        ),
        f"<rect width='{WIDTH}' height='{HEIGHT}' rx='10' fill='#ffffff' stroke='#d9dee3'/>",
        text(LEFT, 36, "M001_data.rtdc", size=17, weight="bold"),
        text(LEFT, 58, f"{frames} frames as the instrument recorded them, contours as dcnumd found them", colour=FAINT),
        text(PLOT[0], 36, "M001_data_dcn.rtdc", size=17, weight="bold"),
        text(PLOT[0], 58, f"{len(area)} events, pipeline {pphash[:7]}", colour=FAINT),
    ]
    for index, panel in enumerate(panels):
        parts += draw_panel(panel, 80 + index * (80 * FRAME_SCALE + 8))
    parts += draw_scatter(area, deformation)
    return "\n".join([*parts, "</svg>", ""])


def choose_panels(images: h5py.Dataset, frame_of_event: npt.NDArray[np.int64], masks: h5py.Dataset) -> list[Panel]:
    """Return the first frames with two events or more."""
    frames, counts = np.unique(frame_of_event, return_counts=True)
    chosen = frames[counts >= 2][:FRAMES_SHOWN]
    return [
        Panel(int(frame), images[frame], [masks[event] != 0 for event in np.flatnonzero(frame_of_event == frame)])
        for frame in chosen
    ]


def draw_panel(panel: Panel, top: float) -> list[str]:
    """Draw a frame with the contours on it."""
    height, width = panel.image.shape
    parts = [
        (
            f"<image x='{LEFT}' y='{top}' width='{width * FRAME_SCALE}' height='{height * FRAME_SCALE}' "
            f"xlink:href='data:image/png;base64,{base64.b64encode(png(panel.image)).decode()}'/>"
        ),
        f"<g transform='translate({LEFT},{top}) scale({FRAME_SCALE})' fill='none' stroke='#39ff9c' stroke-width='0.9'>",
    ]
    parts += [f"<path d='{outline(mask)}'/>" for mask in panel.masks]
    parts.append("</g>")
    label = text(
        LEFT + width * FRAME_SCALE - 6, top + height * FRAME_SCALE - 6, f"frame {panel.number}", colour="#ffffff"
    )
    parts.append(label.replace("<text", "<text text-anchor='end'"))
    return parts


def outline(mask: npt.NDArray[np.bool_]) -> str:
    """Return the edges between mask and background as an SVG path."""
    padded = np.pad(mask, 1)
    horizontal = np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])
    vertical = np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])
    steps = [f"M{x} {y}h1" for y, x in horizontal] + [f"M{x} {y}v1" for y, x in vertical]
    return "".join(steps)


def draw_scatter(area: npt.NDArray[np.float64], deformation: npt.NDArray[np.float64]) -> list[str]:
    """Draw deformation over area."""
    left, top, width, height = PLOT
    area_range, deformation_range = (
        (0.0, float(np.quantile(area, 0.995))),
        (0.0, float(np.quantile(deformation, 0.995))),
    )
    parts = [f"<rect x='{left}' y='{top}' width='{width}' height='{height}' fill='#f7f9fa' stroke='{FAINT}'/>"]
    x = left + (area - area_range[0]) / (area_range[1] - area_range[0]) * width
    y = top + height - (deformation - deformation_range[0]) / (deformation_range[1] - deformation_range[0]) * height
    shown = (x >= left) & (x <= left + width) & (y >= top) & (y <= top + height)
    dots = "".join(f"M{cx:.0f} {cy:.0f}h0" for cx, cy in zip(x[shown], y[shown], strict=True))
    style = f"stroke='{ACCENT}' stroke-opacity='0.45' stroke-width='3' stroke-linecap='round'"
    parts.append(f"<path d='{dots}' {style}/>")
    parts.append(text(left, top + height + 16, f"{area_range[0]:.0f}", colour=FAINT))
    parts.append(text(left + width - 30, top + height + 16, f"{area_range[1]:.0f}", colour=FAINT))
    parts.append(text(left + width / 2 - 30, top + height + 32, "area [µm²]"))
    parts.append(text(left, top - 8, f"deformation, 0 to {deformation_range[1]:.2f}"))
    return parts


def text(x: float, y: float, content: str, *, size: int = 13, colour: str = INK, weight: str = "normal") -> str:
    """Return a line of text."""
    return f"<text x='{x}' y='{y}' {FONT} font-size='{size}' font-weight='{weight}' fill='{colour}'>{content}</text>"


def png(image: npt.NDArray[np.uint8]) -> bytes:
    """Return a greyscale image (y, x) as PNG (ISO/IEC 15948)."""
    height, width = image.shape
    rows = b"".join(b"\0" + row.tobytes() for row in image)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    blocks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in blocks
    )


if __name__ == "__main__":
    main()
