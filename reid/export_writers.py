"""Writes a part of a network as a file of one runtime."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from reid.backend import require
from reid.errors import ReidError
from reid.export_parts import Part
from reid.exported_folder import Runtime
from reid.quiet import openvino

#: Smallest, usual and largest batch of a TensorRT engine.
ENGINE_BATCHES = (1, 16, 64)

#: Writes a part into a folder.
Writer = Callable[[Part, Path], None]


class ExportError(ReidError):
    """A part can't be written, or the exported network does not compute what torch does."""


@contextmanager
def _tracing() -> Iterator[None]:
    """Without gradients, torch's fused transformer layer (one opaque step no exporter knows) and deprecations."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # Exporters warn of what torch will drop one day, which is theirs to act on.
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def write_openvino(part: Part, folder: Path, *, half: bool = True) -> None:
    """Write `.xml` and `.bin`, for any batch size; weights in half precision, or as they are."""
    with _tracing():
        shape = [-1, *part.example.shape[1:]]
        model = openvino.convert_model(part.module, example_input=part.example, input=shape)
    openvino.save_model(model, folder / f"{part.name}.xml", compress_to_fp16=half)


def write_onnx(part: Part, folder: Path) -> None:
    """Write one `.onnx` file: float32, any batch size, the opset that torch's exporter recommends.

    Raises:
        EmbedderError: `onnx` or `onnxscript` is not installed.
    """
    for module in ("onnx", "onnxscript"):
        require(module, "ONNX export")
    with _tracing():
        batch = ({0: torch.export.Dim("batch")},)
        # Strict, since len() of a tensor is a constant otherwise, and so the batch.
        program = torch.export.export(part.module, (part.example,), dynamic_shapes=batch, strict=True)
        made = torch.onnx.export(
            program, (part.example,), input_names=[part.input], output_names=list(part.outputs), verbose=False
        )
    if made is None:
        raise ExportError(f"{part.name}: torch made no ONNX program")
    made.save(folder / f"{part.name}.onnx", external_data=False)


def write_tensorrt(part: Part, folder: Path) -> None:
    """Write an `.engine` for the GPU at hand, by way of ONNX; batches of 1 to 64.

    No test runs this: it needs TensorRT 10 and an NVIDIA GPU. The parity check after every export does the testing
    on the machine that has both.

    Raises:
        ExportError: no GPU, or TensorRT can't build the engine.
        EmbedderError: `tensorrt`, `onnx` or `onnxscript` is not installed.
    """
    tensorrt = require("tensorrt", "TensorRT export")
    if not torch.cuda.is_available():
        raise ExportError("TensorRT export needs an NVIDIA GPU, and torch sees none")
    write_onnx(part, folder)
    source = folder / f"{part.name}.onnx"
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(source)):
        raise ExportError(f"{part.name}: TensorRT can't read its ONNX file: {parser.get_error(0)}")
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape(part.input, *((batch, *part.example.shape[1:]) for batch in ENGINE_BATCHES))
    config.add_optimization_profile(profile)
    # TensorFloat-32 alone moves the tokens by about the parity check's limit.
    config.clear_flag(tensorrt.BuilderFlag.TF32)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ExportError(f"{part.name}: TensorRT can't build an engine of it")
    (folder / f"{part.name}.engine").write_bytes(bytes(engine))
    source.unlink()


WRITERS: Mapping[Runtime, Writer] = {
    Runtime.OPENVINO: write_openvino,
    Runtime.ONNX: write_onnx,
    Runtime.TENSORRT: write_tensorrt,
}
