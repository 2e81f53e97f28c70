"""Runs the network of a model alone: ``python network_driver.py MODEL DEVICE BATCH FRAMES HEIGHT WIDTH``.

It prints a line when the network is loaded, computes when it receives one, and prints another one then.
"""

from __future__ import annotations

import sys
import warnings

import torch


def main() -> None:
    """Run the network of the arguments."""
    model, device, *numbers = sys.argv[1:]
    batch, frames, height, width = map(int, numbers)
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        network = torch.jit.optimize_for_inference(torch.jit.load(model, map_location=device).eval())
        images = torch.randn(batch, 1, height, width, generator=torch.Generator().manual_seed(1)).to(device)
        for _ in range(2):
            network(images).cpu()
        print("loaded", flush=True)
        sys.stdin.readline()
        for _ in range(-(-frames // batch)):
            output = network(images)
        output.cpu()
        print("computed", flush=True)


if __name__ == "__main__":
    main()
