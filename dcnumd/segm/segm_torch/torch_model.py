"""Networks in the memory of a worker, ready to compute; they stay there from file to file.

Only workers use this module, and programs that call a segmenter themselves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy.typing as npt

from dcnumd.errors import ModelError, WorkerError
from dcnumd.meta.extras import lacking
from dcnumd.segm.segm_torch.model_file import ModelFile, find_model, read_model
from dcnumd.segm.segm_torch.model_meta import Wiring
from dcnumd.segm.segm_torch.torch_setup import load_openvino, load_torch

Inference = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
"""Computes the output of a network for a batch."""

EAGER = "torch.eager"
JIT = "torch.jit"
OPENVINO = "openvino"
DEFAULT_BATCH = 10
"""Number of frames in each batch for models that name none, as in dcnum."""

KEPT_BYTES = 2**29
"""Memory of a worker for networks [bytes]; the one that was not used for the longest time goes first."""
BYTES_PER_FILE_BYTE = 4
"""Memory of a network, in sizes of its file: weights, a copy of them in the layout for the processor, and the code."""


@dataclasses.dataclass(frozen=True, slots=True)
class Network:
    """A network that is ready to compute."""

    model: ModelFile
    wiring: Wiring
    batch_size: int
    """Number of frames that it needs in each batch; 0 for any."""
    infer: Inference

    @property
    def size(self) -> int:
        """Approximate size in memory [bytes]."""
        return BYTES_PER_FILE_BYTE * self.model.size


class NetworkCache:
    """The networks that were used last, up to a limit of memory.

    Parameters
    ----------
    limit
        Memory for networks [bytes]; the one in use stays in any case.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._networks: dict[tuple[str, Wiring], Network] = {}

    def get(self, model_file: str | os.PathLike[str], backend: str | None, device: str | None) -> Network:
        """Return a network, loaded if it is not in memory.

        Parameters
        ----------
        model_file
            Path or name of the model file.
        backend, device
            How to run it; None for the first way that the model names.

        Raises
        ------
        ModelError
            The file cannot be used, or not in this way.
        """
        model = read_model(find_model(model_file))
        wiring = model.wiring(backend, device)
        key = model.md5, wiring
        if key in self._networks:
            # moves to the end, where those are that were used last
            network = self._networks.pop(key)
        else:
            self._make_room(BYTES_PER_FILE_BYTE * model.size)
            network = load_network(model, wiring)
        self._networks[key] = network
        return network

    def _make_room(self, size: int) -> None:
        while self._networks and size + sum(network.size for network in self._networks.values()) > self._limit:
            del self._networks[next(iter(self._networks))]

    def __len__(self) -> int:
        return len(self._networks)


networks = NetworkCache(KEPT_BYTES)
"""The networks of this process."""


def load_network(model: ModelFile, wiring: Wiring) -> Network:
    """Load a network from its file.

    Raises
    ------
    ModelError
        The file cannot be used, or not in this way.
    """
    content = model.read_network()
    try:
        torch = load_torch()
    except ImportError as error:
        raise ModelError(f"torch cannot be imported: {error}", "model_unsupported") from error
    batch_size = model.meta.batch_size
    if not batch_size and wiring.backend != JIT:
        # another number would be refused, or compiled for
        batch_size = DEFAULT_BATCH
    try:
        with _without_warnings(), torch.inference_mode():
            loaded = _load(torch, model, wiring, io.BytesIO(content))
            infer = _prepare(torch, model, wiring, loaded)
    except ModelError:
        raise
    except Exception as error:
        # the loaders of torch raise errors of many kinds for files that they cannot use
        raise ModelError(
            f"{model.path}: torch {torch.__version__} cannot load the network: {last_line(error)}", "model_unsupported"
        ) from error
    return Network(model, wiring, batch_size, infer)


def _load(torch: Any, model: ModelFile, wiring: Wiring, content: io.BytesIO) -> Any:
    """Return the stored program, as torch's loader for its format gives it; both loaders run no Python code."""
    if model.meta.file_format == "ExportedProgram":
        return torch.export.load(content)
    if wiring.backend != JIT:
        raise ModelError(
            f"{model.path}: the network is TorchScript, which only the backend {JIT!r} runs, not {wiring.backend!r}",
            "model_unsupported",
        )
    loaded = torch.jit.load(content, map_location=wiring.device)
    loaded.eval()
    return torch.jit.optimize_for_inference(loaded)


def _prepare(torch: Any, model: ModelFile, wiring: Wiring, loaded: Any) -> Inference:
    """Return the function that runs a loaded program with a backend."""
    if model.meta.file_format == "ExportedProgram" and wiring.backend == JIT:
        raise ModelError(
            f"{model.path}: the network is an exported program, which the backend {JIT!r} does not run",
            "model_unsupported",
        )
    if wiring.backend == OPENVINO:
        return _for_openvino(torch, model, wiring, loaded)
    if wiring.backend == JIT:
        module = loaded
    elif wiring.backend == EAGER:
        module = loaded.module()
    else:
        module = torch.compile(loaded.module(), fullgraph=True, dynamic=False, backend=wiring.backend)
    device = torch.device(wiring.device)

    def infer(batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        with _errors_of(model, batch), _without_warnings(), torch.inference_mode():
            output: npt.NDArray[Any] = module(torch.tensor(batch, device=device)).cpu().numpy()
        return output

    return infer


def _for_openvino(torch: Any, model: ModelFile, wiring: Wiring, loaded: Any) -> Inference:
    """Return the function that runs an exported program with openvino."""
    if missing := lacking("openvino"):
        raise ModelError(f"{model.path}: backend {OPENVINO!r}: {missing}", "model_unsupported")
    if wiring.device != "cpu" or model.meta.image_shape is None:
        raise ModelError(
            f"{model.path}: the backend {OPENVINO!r} runs on the device 'cpu', not {wiring.device!r}, "
            "and only models that name the shape of frames",
            "model_unsupported",
        )
    openvino = load_openvino()
    example = torch.randint(low=100, high=200, size=(DEFAULT_BATCH, *model.meta.image_shape), dtype=torch.uint8)
    converted = openvino.convert_model(loaded, example_input=(example,))
    compiled = openvino.Core().compile_model(
        converted,
        "CPU",
        config={
            openvino.properties.hint.enable_hyper_threading(): False,
            openvino.properties.inference_num_threads(): 1,
        },
    )

    def infer(batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        with _errors_of(model, batch):
            output: npt.NDArray[Any] = next(iter(compiled(batch).values()))
        return output

    return infer


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Drop warnings of torch, which are for authors of models."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _errors_of(model: ModelFile, batch: npt.NDArray[Any]) -> Iterator[None]:
    """Raise errors of a network as errors that name the model and the shape of its input."""
    try:
        yield
    except Exception as error:
        # a network may raise anything
        cause = last_line(error)
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            raise WorkerError(f"{model.file_name}: not enough memory for the network: {cause}", "memory") from error
        raise WorkerError(
            f"{model.file_name}: the network failed for an input of shape {batch.shape}: {cause}", "model_failed"
        ) from error


def last_line(error: Exception) -> str:
    """Return the last line of an error; those of TorchScript begin with a traceback of the network."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'without a message'}"
