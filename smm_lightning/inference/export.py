"""``smm export <run or checkpoint>``: the trained prompt, or the whole model.

``prompt``  what was learned, as .safetensors: a few hundred kB, with adapter=full as large as the
            backbone; needs this package and the backbone
``folder``  the same with a model card, as the Hugging Face hub takes it
``torch``   the whole classifier through torch.export, as .pt2: needs PyTorch alone
``onnx``    the whole classifier as .onnx, for other runtimes
"""

import argparse
from pathlib import Path

from smm_lightning.classifier import ReprogrammedClassifier, read_prompt, write_prompt
from smm_lightning.classifier.exporting import write_export
from smm_lightning.errors import problem
from smm_lightning.files import at, writing
from smm_lightning.inference.options import add_options

NAMES = {
    "prompt": "model.safetensors",
    "folder": "pretrained",
    "torch": "model.pt2",
    "onnx": "model.onnx",
}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, help="folder of a run, or a checkpoint")
    parser.add_argument("--format", choices=NAMES, default="prompt")
    parser.add_argument("--output", type=Path, help="file or folder; default: beside the source")
    parser.add_argument("--half", action="store_true", help="prompt: float16, half the size")
    add_options(parser)
    options = parser.parse_args()
    folder = options.source if options.source.is_dir() else options.source.parent
    output = at(options.output or folder / NAMES[options.format])
    if options.half and options.format != "prompt":
        raise problem("--half", "is for --format prompt", options.format)
    ending = Path(NAMES[options.format]).suffix
    if ending and output.suffix != ending:
        raise problem("--output", f"must end with {ending}", str(output))
    prompt = read_prompt(options.source)
    with writing("--output", output):
        if options.format == "prompt":
            write_prompt(prompt, output, half=options.half)
        else:
            given = {"weights": options.weights, "trust": options.trust}
            classifier = ReprogrammedClassifier.from_prompt(prompt, **given)
            if options.format == "folder":
                classifier.save_pretrained(output)
            else:
                write_export(classifier, output)
    written = output.iterdir() if output.is_dir() else [output]
    print(f"{output} ({sum(file.stat().st_size for file in written) / 1e6:.2f} MB)")
