"""The whole classifier as a file: through ``torch.export``, or as ONNX."""

import copy
import io
import json
import logging
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from smm_lightning.classifier.export_archive import FACTS, looked_at
from smm_lightning.errors import from_extra, problem
from smm_lightning.files import write_atomically
from smm_lightning.method import use_kernel

if TYPE_CHECKING:
    from smm_lightning.classifier.reprogrammed import ReprogrammedClassifier


def write_export(classifier: "ReprogrammedClassifier", path: Path) -> None:
    """Images (any B, 3, input_size, input_size) in [0, 1] to target logits, in float32.

    Args:
        classifier: fitted, on any device.
        path: of a ``.pt2`` or ``.onnx``.

    Raises:
        UserError: If the ending is another one, or the packages for it are missing.
        OSError: If the file cannot be written.
    """
    if path.suffix not in _WRITERS:
        raise problem("export", f"must end with {' or '.join(_WRITERS)}", str(path))
    if not classifier.fitted:
        hint = "refit() gives it one; so does a training."
        raise problem("export", "there is no label mapping or no temperature yet", hint=hint)
    plain = copy.deepcopy(classifier).cpu().float().eval()  # other runtimes lack bfloat16
    use_kernel(plain, fast=False)
    plain.backbone.use_plain_layers()
    write_atomically(path, _WRITERS[path.suffix](plain))


def _facts_of(classifier: "ReprogrammedClassifier") -> str:
    """What a program needs to use an exported model, as JSON."""
    facts = {
        "input_size": classifier.input_size,
        "class_names": classifier.class_names,
        "decoding": classifier.nodes["decoding"],
    }
    return json.dumps(facts, indent=2)


def _torch(classifier: "ReprogrammedClassifier") -> bytes:
    content = io.BytesIO()  # on a full disk PyTorch's own writer ends the process
    torch.export.save(_exported(classifier), content, extra_files={FACTS: _facts_of(classifier)})
    try:
        looked_at(content.getvalue())
    except ValueError as error:
        print(f"note: `smm predict` will refuse this file ({error})", file=sys.stderr)
    return content.getvalue()


def _onnx(classifier: "ReprogrammedClassifier") -> bytes:
    """With input ``images``, output ``logits``, and facts as metadata."""
    with from_extra("onnx", "an .onnx file"):
        import onnxscript  # noqa: F401 - PyTorch's exporter needs it
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own, about itself
        program = torch.onnx.export(_exported(classifier), **names, verbose=False)
    assert program is not None
    program.model.metadata_props[FACTS] = _facts_of(classifier)
    content: bytes = program.model_proto.SerializeToString()
    return content


_WRITERS = {".pt2": _torch, ".onnx": _onnx}


def _exported(classifier: "ReprogrammedClassifier") -> torch.export.ExportedProgram:
    module = _Whole(classifier).eval()
    for weight in [*module.parameters(), *module.buffers()]:
        weight.data = weight.data.clone(memory_format=torch.contiguous_format)  # no views
    size = classifier.input_size
    images = torch.rand(2, 3, size, size)
    batch = {0: torch.export.Dim("batch")}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(module, (images,), dynamic_shapes=(batch,))


class _Whole(nn.Module):
    """With the network as a part like any other: an export must hold the frozen weights, too."""

    def __init__(self, classifier: "ReprogrammedClassifier") -> None:
        super().__init__()
        self.classifier = classifier
        self.body = classifier.backbone.body
        self.head = classifier.backbone.head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(images)
        return logits
