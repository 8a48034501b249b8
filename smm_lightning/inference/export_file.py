"""Reading exports: a program and what it says of itself."""

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pydantic
import torch
from torch import Tensor
from typing_extensions import TypedDict

from smm_lightning.classifier.export_archive import FACTS, looked_at
from smm_lightning.dataset.batch import checked_names
from smm_lightning.errors import from_extra, one_line, problem
from smm_lightning.files import read_file
from smm_lightning.ranges import ImageSize
from smm_lightning.text import parsed_json


class ExportFacts(TypedDict):
    """What an export says beside its graph.

    Attributes:
        input_size: side of its images, in pixels.
        class_names: of the T target classes.
        decoding: arguments of :class:`Decoding`.
    """

    input_size: ImageSize
    class_names: list[str]
    decoding: dict[str, bool | str | None]


_KNOWN = pydantic.TypeAdapter(ExportFacts)


def load_torch(path: Path, device: torch.device) -> tuple[Callable[[Tensor], Tensor], ExportFacts]:
    """Images (B, 3, input_size, input_size) to target logits (B, T), and the facts.

    Args:
        path: of a ``.pt2``.
        device: to compute on.

    Raises:
        UserError: If it is damaged, or holds what no export of this program does.
    """
    with _in_a_line(path):
        content, text = looked_at(read_file(path))
        facts = _facts(text)
        logging.getLogger("torch.export").setLevel(logging.ERROR)  # what is wrong is said below
        network = torch.export.load(io.BytesIO(content)).module().to(device)

        @torch.inference_mode()
        def logits(images: Tensor) -> Tensor:
            answers: Tensor = network(images.to(device))
            return answers

        _require_agreement(logits, facts)
    return logits, facts


def load_onnx(path: Path) -> tuple[Callable[[Tensor], Tensor], ExportFacts]:
    """As :func:`load_torch`, of an ``.onnx``, on the CPU.

    Raises:
        UserError: If it is damaged, or holds what no export of this program does.
    """
    with from_extra("onnx", str(path)):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong is said below
    with _in_a_line(path):
        # From memory: a graph that lies in a folder may name other files there.
        session = onnxruntime.InferenceSession(
            read_file(path), options, providers=["CPUExecutionProvider"]
        )
        facts = _facts(session.get_modelmeta().custom_metadata_map[FACTS])

        def logits(images: Tensor) -> Tensor:
            (answers,) = session.run(["logits"], {"images": images.numpy()})
            return torch.from_numpy(answers)

        _require_agreement(logits, facts)
    return logits, facts


@contextmanager
def _in_a_line(path: Path) -> Iterator[None]:
    """Say what is wrong with a file."""
    try:
        yield
    except Exception as error:  # each library has its own
        what = f"is no export of this program ({one_line(error)[:300]})"
        raise problem(str(path), what) from error


def _facts(content: str | bytes) -> ExportFacts:
    facts = _KNOWN.validate_python(parsed_json(content), strict=True)
    return {**facts, "class_names": checked_names(facts["class_names"])}


def _require_agreement(logits: Callable[[Tensor], Tensor], facts: ExportFacts) -> None:
    """The graph takes images of this size, and answers for so many classes."""
    size, classes = facts["input_size"], len(facts["class_names"])
    answers = logits(torch.full((2, 3, size, size), 0.5))
    if tuple(answers.shape) != (2, classes):
        what = f"its graph answers for {answers.shape[-1:]} classes, and {classes} have names"
        raise ValueError(what)
    if not answers.isfinite().all():
        raise ValueError("its graph answers with NaN or infinity")
