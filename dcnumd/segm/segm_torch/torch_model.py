"""Networks in the memory of a worker, ready to compute; they stay there from file to file.

Only workers use this module, and programs that call a segmenter themselves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dcnumd.errors import ModelError, WorkerError
from dcnumd.segm.segm_torch.cards import CardRunner
from dcnumd.segm.segm_torch.compiled import CompiledNetwork
from dcnumd.segm.segm_torch.model_file import ModelFile, find_model, read_model
from dcnumd.segm.segm_torch.model_memory import BATCH, KEPT_BYTES, network_bytes
from dcnumd.segm.segm_torch.model_meta import EAGER, JIT, OPENVINO, Wiring
from dcnumd.segm.segm_torch.torch_setup import load_openvino, load_torch
from dcnumd.segm.segm_torch.ways import raise_problem

Inference = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
"""Computes the output of a network for a batch."""

DEFAULT_BATCH = BATCH
"""Number of frames in each batch for models that name none, as in dcnum."""

OUT_OF_MEMORY = ("can't allocate memory", "out of memory")
"""Parts of messages of torch when memory is exhausted."""
FORCE_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
"""Name of the environment variable with which `torch.load` runs no code of a pickle."""


@dataclasses.dataclass(frozen=True, slots=True)
class Network:
    """A network that is ready to compute."""

    model: ModelFile
    wiring: Wiring
    batch_size: int
    """Number of frames that it needs in each batch; 0 for any."""
    infer: Inference
    runner: CardRunner | None = None
    """Runs it on a graphics card; None if it runs on the processor."""

    @property
    def size(self) -> int:
        """Approximate size in memory [bytes]."""
        return network_bytes(self.model.size)

    def run(
        self, number: int, batch_size: int, prepare: Callable[[int, int], npt.NDArray[Any]]
    ) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Yield the number of the first frame of each batch, and the output.

        Parameters
        ----------
        number
            Number of frames.
        batch_size
            Number of frames in a batch; on a card, its memory decides.
        prepare
            Returns the input of the network for the frames ``start … stop - 1``.

        Warnings of torch are not dropped, see `without_warnings`.

        Raises
        ------
        WorkerError
            The network failed.
        """
        if self.runner is not None:
            yield from self.runner.run(number, prepare)
            return
        for start in range(0, number, batch_size):
            stop = min(start + batch_size, number)
            batch = prepare(start, stop)
            if stop - start < self.batch_size:
                filling = np.zeros((self.batch_size - len(batch), *batch.shape[1:]), batch.dtype)
                batch = np.concatenate([batch, filling])
            yield start, self.infer(batch)[: stop - start]


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
            self._make_room(network_bytes(model.size))
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
    raise_problem(model, wiring)
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
        with without_warnings(), _without_logs(), torch.inference_mode():
            loaded = _load(torch, model, wiring, io.BytesIO(content))
            processor = _prepare(torch, model, wiring, loaded)
            runner = None
            if isinstance(processor, TorchCard):
                is_filled = wiring.backend not in {JIT, EAGER}
                runner = CardRunner(processor, model.meta.batch_size, is_filled=is_filled)
    except ModelError:
        raise
    except Exception as error:
        # the loaders of torch raise errors of many kinds for files that they cannot use
        if _is_lost_card(error):
            raise WorkerError(f"{model.file_name}: the card cannot be used: {last_line(error)}", "card_lost") from error
        raise ModelError(
            f"{model.path}: torch {torch.__version__} cannot load the network: {last_line(error)}", "model_unsupported"
        ) from error
    return Network(model, wiring, batch_size, processor.infer, runner)


def _load(torch: Any, model: ModelFile, wiring: Wiring, content: io.BytesIO) -> Any:
    """Return the stored program, as torch's loader for its format gives it; both loaders create no other objects."""
    if model.meta.file_format == "ExportedProgram":
        with _only_weights():
            return torch.export.load(content)
    loaded = torch.jit.load(content, map_location=wiring.device)
    loaded.eval()
    return torch.jit.optimize_for_inference(loaded)


def _prepare(torch: Any, model: ModelFile, wiring: Wiring, loaded: Any) -> TorchProcessor:
    """Return what runs a loaded program with a backend."""
    if wiring.backend == OPENVINO:
        return _for_openvino(torch, model, wiring, loaded)
    if wiring.backend == JIT:
        module = loaded
    elif wiring.backend == EAGER:
        module = loaded.module()
    else:
        module = CompiledNetwork(torch, loaded.module(), wiring.backend)
    kind = TorchProcessor if wiring.device == "cpu" else TorchCard
    return kind(torch, model, wiring.device, module)


class TorchProcessor:
    """Runs a network of torch, by default on the processor.

    Parameters
    ----------
    torch
        The imported package.
    model
        The model.
    device
        Where the network is.
    module
        The network: a function of a tensor.
    """

    def __init__(self, torch: Any, model: ModelFile, device: str, module: Callable[[Any], Any]) -> None:
        self._torch = torch
        self._model = model
        self._device = device
        self._module = module

    def infer(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the output for a batch.

        Raises
        ------
        WorkerError
            The network failed.
        """
        return self.fetch(self.launch(batch))

    def launch(self, batch: npt.NDArray[Any]) -> Any:
        """Start to compute the output for a batch, and return it, possibly before it is computed."""
        with self._computing(batch.shape):
            output = self._module(self._copied(batch))
        if not isinstance(output, self._torch.Tensor):
            raise WorkerError(
                f"{self._model.file_name}: the output of the network is {type(output).__name__}, expected a tensor",
                "model_failed",
            )
        # one frame less, and a part of the masks would be left out
        if output.shape[:1] != batch.shape[:1]:
            raise WorkerError(
                f"{self._model.file_name}: the output of the network has shape {tuple(output.shape)} "
                f"for an input of shape {batch.shape}, expected as many frames",
                "model_failed",
            )
        return output

    def fetch(self, handle: Any) -> npt.NDArray[Any]:
        """Return the output as an array, when it is computed."""
        with self._computing(handle.shape):
            array: npt.NDArray[Any] = handle.cpu().numpy()
        return array

    def _copied(self, batch: npt.NDArray[Any]) -> Any:
        return self._torch.tensor(batch)

    @contextlib.contextmanager
    def _computing(self, shape: Sequence[int]) -> Iterator[None]:
        with _errors_of(self._model, shape), self._torch.inference_mode():
            yield


class TorchCard(TorchProcessor):
    """Runs a network of torch on a graphics card, see `cards.Card`."""

    def __init__(self, torch: Any, model: ModelFile, device: str, module: Callable[[Any], Any]) -> None:
        super().__init__(torch, model, device, module)
        self._bytes_at_start = int(torch.cuda.memory_allocated(device))

    def _copied(self, batch: npt.NDArray[Any]) -> Any:
        # from pinned memory, a card copies while it computes
        return self._torch.tensor(batch).pin_memory().to(self._device, non_blocking=True)

    def bytes_used(self) -> int:
        """Return the largest memory that batches took so far [bytes]."""
        return int(self._torch.cuda.max_memory_allocated(self._device)) - self._bytes_at_start

    def bytes_free(self) -> int:
        """Return the memory that is free, or that earlier batches took [bytes]."""
        cuda, device = self._torch.cuda, self._device
        kept = int(cuda.memory_reserved(device)) - int(cuda.memory_allocated(device))
        return int(cuda.mem_get_info(device)[0]) + kept

    def release(self) -> None:
        """Free the memory of earlier batches."""
        self._torch.cuda.empty_cache()


def _for_openvino(torch: Any, model: ModelFile, wiring: Wiring, loaded: Any) -> TorchProcessor:
    """Return what runs an exported program with openvino."""
    openvino = load_openvino()
    shape = model.meta.image_shape or ()
    example = torch.randint(low=100, high=200, size=(DEFAULT_BATCH, *shape), dtype=torch.uint8)
    converted = openvino.convert_model(loaded, example_input=(example,))
    compiled = openvino.Core().compile_model(
        converted,
        "CPU",
        config={
            openvino.properties.hint.enable_hyper_threading(): False,
            openvino.properties.inference_num_threads(): 1,
        },
    )

    def run(batch: Any) -> Any:
        return torch.from_numpy(next(iter(compiled(batch.numpy()).values())))

    return TorchProcessor(torch, model, wiring.device, run)


@contextlib.contextmanager
def _only_weights() -> Iterator[None]:
    """Have torch unpickle nothing but tensors and plain values; the loader of exported programs would take anything."""
    before = os.environ.get(FORCE_WEIGHTS_ONLY)
    os.environ[FORCE_WEIGHTS_ONLY] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[FORCE_WEIGHTS_ONLY]
        else:
            os.environ[FORCE_WEIGHTS_ONLY] = before


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Drop warnings of torch, which are for authors of models."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _without_logs() -> Iterator[None]:
    """Drop logs of torch, which has a traceback for each format that it tries; the last error is raised."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _errors_of(model: ModelFile, shape: Sequence[int]) -> Iterator[None]:
    """Raise errors of a network as errors that name the model and the shape of its input."""
    try:
        yield
    except Exception as error:
        # a network may raise anything
        cause = last_line(error)
        if isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY):
            raise WorkerError(f"{model.file_name}: not enough memory for the network: {cause}", "memory") from error
        if _is_lost_card(error):
            raise WorkerError(f"{model.file_name}: the card failed: {cause}", "card_lost") from error
        raise WorkerError(
            f"{model.file_name}: the network failed for an input of shape {tuple(shape)}: {cause}", "model_failed"
        ) from error


def _is_lost_card(error: Exception) -> bool:
    """Return whether an error means that a card cannot be used any more."""
    return any(words in str(error) for words in ("CUDA error", "CUDA driver error", "No CUDA GPUs are available"))


def last_line(error: Exception) -> str:
    """Return the last line of an error; those of TorchScript begin with a traceback of the network."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'without a message'}"
