"""``smm export <run or checkpoint>``: the trained prompt, or the whole model.

``prompt``  what was learned, as .safetensors: a few hundred kB; needs this package and the backbone
``torch``   the whole classifier through torch.export, as .pt2: needs PyTorch alone
``onnx``    the whole classifier as .onnx, for other runtimes
"""

import argparse
import io
import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from smm_lightning.classifier import ReprogrammedClassifier
from smm_lightning.errors import from_extra, problem
from smm_lightning.files import write_atomically, writing
from smm_lightning.inference.export_archive import FACTS, looked_at
from smm_lightning.inference.prompt_file import (
    Prompt,
    add_options,
    read_prompt,
    rebuild,
    write_prompt,
)

SUFFIXES = {"prompt": ".safetensors", "torch": ".pt2", "onnx": ".onnx"}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, help="folder of a run, or a checkpoint")
    parser.add_argument("--format", choices=SUFFIXES, default="prompt")
    parser.add_argument("--output", type=Path, help="the file; default: beside the source")
    parser.add_argument("--half", action="store_true", help="prompt: float16, half the size")
    add_options(parser)
    options = parser.parse_args()
    folder = options.source if options.source.is_dir() else options.source.parent
    output = options.output or folder / f"model{SUFFIXES[options.format]}"
    if options.half and options.format != "prompt":
        raise problem("--half", "is for --format prompt", options.format)
    prompt = read_prompt(options.source)
    with writing("--output", output):
        _write(prompt, output, options)
    print(f"{output} ({output.stat().st_size / 1e6:.2f} MB)")


def _write(prompt: Prompt, output: Path, options: argparse.Namespace) -> None:
    if options.format == "prompt":
        write_prompt(prompt, output, half=options.half)
        return
    # Both tracers want plain layers; what is left out is speed, or a faster gradient.
    plain = {"fast_stem": False, "channels_last": False}
    speed = {name: value for name, value in plain.items() if name in prompt.parts["backbone"]}
    classifier = rebuild(prompt, options.weights, options.trust, **speed)
    export = export_torch if options.format == "torch" else export_onnx
    write_atomically(output, export(classifier, prompt.parts["decoding"]))


def facts_of(classifier: ReprogrammedClassifier, decoding: dict[str, Any]) -> str:
    """What a program needs to use an exported model, as JSON."""
    facts = {"input_size": classifier.input_size, "class_names": classifier.class_names}
    return json.dumps({**facts, "decoding": decoding}, indent=2)


def export_torch(classifier: ReprogrammedClassifier, decoding: dict[str, Any]) -> bytes:
    """Images (any B, 3, input_size, input_size) in [0, 1] to target logits, as one program.

    Args:
        classifier: in eval mode, on a CPU.
        decoding: from image files to RGB; see ``dataset.Decoding``.

    Returns:
        The content of a ``.pt2``.
    """
    content = io.BytesIO()  # on a full disk PyTorch's own writer ends the process
    files = {FACTS: facts_of(classifier, decoding)}
    torch.export.save(_exported(classifier), content, extra_files=files)
    try:
        looked_at(content.getvalue())
    except ValueError as error:
        print(f"note: `smm predict` will refuse this file ({error})", file=sys.stderr)
    return content.getvalue()


def export_onnx(classifier: ReprogrammedClassifier, decoding: dict[str, Any]) -> bytes:
    """As :func:`export_torch`, with input ``images``, output ``logits`` and facts as metadata.

    Returns:
        The content of an ``.onnx``.

    Raises:
        UserError: If the packages for it are missing.
    """
    with from_extra("onnx", "--format onnx"):
        import onnxscript  # noqa: F401 - PyTorch's exporter needs it
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own, about itself
        program = torch.onnx.export(_exported(classifier), **names, verbose=False)
    assert program is not None
    program.model.metadata_props[FACTS] = facts_of(classifier, decoding)
    content: bytes = program.model_proto.SerializeToString()
    return content


def _exported(classifier: ReprogrammedClassifier) -> torch.export.ExportedProgram:
    module = _Whole(classifier).eval()
    for weight in [*module.parameters(), *module.buffers()]:
        weight.data = weight.data.clone(memory_format=torch.contiguous_format)  # no views
    size = classifier.input_size
    images = torch.rand(2, 3, size, size)
    batch = {0: torch.export.Dim("batch")}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(module, (images,), dynamic_shapes=(batch,))


class _Whole(torch.nn.Module):
    """With the network as a part like any other: an export must hold the frozen weights, too."""

    def __init__(self, classifier: ReprogrammedClassifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.body = classifier.backbone.body
        self.head = classifier.backbone.head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(images)
        return logits
