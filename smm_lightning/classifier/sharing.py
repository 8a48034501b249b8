"""A classifier in files and on the Hugging Face hub, and back."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin, hf_hub_download
from torch import Tensor, nn
from typing_extensions import override

from smm_lightning.backbone import FrozenBackbone
from smm_lightning.classifier.exporting import write_export
from smm_lightning.classifier.parts import Pieces, TrustedParts
from smm_lightning.classifier.prompt_file import FILE, Prompt, read_prompt, write_prompt
from smm_lightning.errors import one_line, problem
from smm_lightning.files import at, write_atomically
from smm_lightning.text import as_markdown

_TEMPLATE = Path(__file__).with_name("model_card.md").read_text(encoding="utf-8")


class Sharing(
    PyTorchModelHubMixin,
    library_name="smm-lightning",
    pipeline_tag="image-classification",
    tags=["visual-prompting", "visual-reprogramming"],
    paper_url="https://arxiv.org/abs/2406.03150",
    model_card_template=_TEMPLATE,
):
    """What a :class:`ReprogrammedClassifier` has to do with files.

    A file holds what was learned, and names the frozen network by its checksum. A network that was
    handed to ``wrap`` is handed to ``from_pretrained`` again.
    """

    backbone: FrozenBackbone
    class_names: list[str]
    nodes: Mapping[str, Any]
    card: dict[str, Any]

    @classmethod
    def build(
        cls, pieces: Pieces, class_names: list[str], network: nn.Module | None = None
    ) -> Self:
        """See :meth:`ReprogrammedClassifier.build`."""
        raise NotImplementedError

    @property
    def prompt(self) -> Prompt:
        """What was learned, apart from this classifier.

        Raises:
            UserError: If nothing was fitted yet, or a file could not say what this is built of.
        """
        module: Any = self
        if not module.fitted:
            hint = "refit() gives it one; so does a training."
            raise problem("prompt", "has no label mapping or no temperature yet", hint=hint)
        try:
            nodes = json.loads(json.dumps(dict(self.nodes)))
        except (TypeError, ValueError) as error:
            what = f"a file cannot say what this classifier is built of ({error})"
            raise problem("prompt", what, hint="Use plain values as arguments.") from error
        if not nodes:
            what = "a file cannot say what this classifier is built of"
            hint = "Build it by wrap(), by from_pretrained(), or by a run."
            raise problem("prompt", what, hint=hint)
        weights = {name: value.detach().cpu() for name, value in module.state_dict().items()}
        return Prompt(nodes, self.class_names, self.backbone.sha256, weights, dict(self.card))

    @classmethod
    def from_prompt(
        cls,
        prompt: Prompt,
        *,
        backbone: nn.Module | None = None,
        weights: str | None = None,
        trust: Collection[str] = (),
    ) -> Self:
        """The classifier, in eval mode; arguments as of :meth:`from_pretrained`."""
        classifier: Any = cls.before_training(
            prompt, backbone=backbone, weights=weights, trust=trust
        )
        load_learned(classifier, prompt.weights)
        size, device = classifier.input_size, classifier.backbone.device
        if not classifier.probabilities(torch.full((1, 3, size, size), 0.5)).isfinite().all():
            raise problem("prompt", "its answers are NaN", hint="The file is damaged.")
        kept: Self = classifier.eval().to(device)
        return kept

    @classmethod
    def before_training(
        cls,
        prompt: Prompt,
        *,
        backbone: nn.Module | None = None,
        weights: str | None = None,
        trust: Collection[str] = (),
    ) -> Self:
        """The classifier with the prompt that its method begins with; else as :meth:`from_prompt`.

        Raises:
            UserError: If a part cannot be built, or the frozen weights are others than in training.
        """
        others = {"weights": weights} if weights else {}
        pieces = TrustedParts(trust).pieces(prompt.parts, **others)
        classifier = cls.build(pieces, prompt.class_names, backbone)
        classifier.card = dict(prompt.card)
        if (sha256 := classifier.backbone.sha256) != prompt.backbone_sha256:
            hint = "Name the file that it was trained with: weights=<file>."
            what = "these frozen weights are not those that the prompt was trained for"
            raise problem("backbone", what, sha256[:12], hint)
        return classifier

    @classmethod
    @override
    def from_pretrained(  # type: ignore[override]
        cls,
        source: str | Path,
        *,
        backbone: nn.Module | None = None,
        weights: str | None = None,
        trust: Collection[str] = (),
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> Self:
        """A trained classifier, in eval mode, from files that run no code.

        Args:
            source: a ``.safetensors`` file, a checkpoint, the folder of a run or of
                ``save_pretrained``, or the name of a repository on the hub.
            backbone: the frozen network, instead of loading it: that of another classifier
                (``other.backbone``), which both then share, or the network that was wrapped.
            weights: a local file of the frozen weights, instead of their usual source.
            trust: see :class:`TrustedParts`.
            revision: of the repository on the hub.
            cache_dir: for what is fetched from there.
            force_download: fetch it again.
            local_files_only: use what was fetched before.
            token: of the hub.

        Raises:
            UserError: If it is missing or damaged, or the frozen network is another one.
        """
        return cls._from_pretrained(
            model_id=str(source),
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            backbone=backbone,
            weights=weights,
            trust=trust,
        )

    @classmethod
    @override
    def _from_pretrained(  # type: ignore[override]
        cls,
        *,
        model_id: str,
        backbone: nn.Module | None,
        weights: str | None,
        trust: Collection[str],
        **hub: Any,
    ) -> Self:
        path = at(model_id)
        if not path.exists():
            path = _fetched(model_id, **hub)
        return cls.from_prompt(read_prompt(path), backbone=backbone, weights=weights, trust=trust)

    @override
    def _save_pretrained(self, save_directory: Path) -> None:
        prompt = self.prompt
        write_prompt(prompt, save_directory / FILE)
        # For people and the hub, which counts by it who fetches; from_pretrained reads the other.
        facts = {"parts": prompt.parts, "class_names": prompt.class_names}
        told = {**facts, "backbone_sha256": prompt.backbone_sha256, "card": prompt.card}
        write_atomically(save_directory / "config.json", json.dumps(told, indent=2).encode())

    @override
    def generate_model_card(self, *_: Any, **more: Any) -> ModelCard:
        """Task, classes, frozen network and its checksum, how it was trained, accuracy.

        Args:
            more: further lines of the card, by their names.
        """
        module: Any = self
        kinds = {name: dict(self.nodes.get(name) or {}) for name in ("backbone", "method")}
        classes = {k: str(node.get("_target_")).rpartition(".")[2] for k, node in kinds.items()}
        chosen = [kinds["backbone"].get(name) for name in ("model", "depth")]
        network = " ".join([classes["backbone"], *(str(one) for one in chosen if one)])
        lines = {**self.card, **more}
        card: ModelCard = ModelCard.from_template(
            self._hub_mixin_info.model_card_data,
            template_str=self._hub_mixin_info.model_card_template,
            paper_url=self._hub_mixin_info.paper_url,
            classes=[as_markdown(name) for name in self.class_names],
            network=as_markdown(network),
            method=as_markdown(classes["method"]),
            own=classes["backbone"] == "OwnNetwork",
            image_size=self.backbone.image_size,
            input_size=module.input_size,
            sha256=self.backbone.sha256,
            lines={as_markdown(str(k)): as_markdown(_shown(v)) for k, v in lines.items()},
        )
        return card

    def export(self, path: str | Path) -> None:
        """Write the whole classifier: ``.pt2`` needs PyTorch alone, ``.onnx`` any other runtime.

        Raises:
            UserError: If the ending is another one, or packages are missing.
            OSError: If the file cannot be written.
        """
        module: Any = self
        write_export(module, at(path))

    def print_trainable_parameters(self) -> None:
        """How many numbers are trained, and how many there are, in the words of peft."""
        module: Any = self
        trained = module.facts()["params/trainable"]
        total = trained + self.backbone.parameter_count
        share = 100 * trained / total
        print(
            f"trainable params: {trained:,d} || all params: {total:,d} || trainable%: {share:.4f}"
        )


def _shown(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _fetched(repository: str, **hub: Any) -> Path:
    """The prompt file of a repository on the hub.

    Raises:
        UserError: If there is none, or no way to it.
    """
    try:
        return Path(hf_hub_download(repository, FILE, **hub))
    except (OSError, ValueError) as error:  # of the hub's many, and of httpx
        what = f"is no file or folder here, and not on the hub ({one_line(error)[:200]})"
        raise problem("from_pretrained", what, repository) from error


def load_learned(classifier: Any, weights: Mapping[str, Tensor]) -> None:
    """Give a classifier what was learned, in whatever precision it is stored.

    Args:
        classifier: whose ``state_dict`` has the same names.
        weights: by names.

    Raises:
        UserError: If they do not fit, or no classifier that can answer comes of them.
    """
    expected = classifier.state_dict()
    for name in weights.keys() & expected.keys():
        if weights[name].is_floating_point() != expected[name].is_floating_point():
            what = f"{name} must be of {expected[name].dtype}"
            raise problem("prompt", what, str(weights[name].dtype))
    try:
        classifier.load_state_dict(
            {k: v.to(expected[k].dtype) if k in expected else v for k, v in weights.items()}
        )
    except RuntimeError as error:
        reason = " ".join(str(error).splitlines()[-1].split())[:300]
        raise problem("prompt", f"its weights do not fit its parts ({reason})") from error
    if not classifier.fitted:
        hint = "It was written before the first epoch of its training."
        raise problem("prompt", "has no label mapping or no temperature yet", hint=hint)
