"""A classifier in files and on the Hugging Face hub, and back."""

import inspect
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin, hf_hub_download
from torch import Tensor, nn
from typing_extensions import override

from smm_lightning.backbone import Backbone
from smm_lightning.classifier.exporting import write_export
from smm_lightning.classifier.model_card import TEMPLATE, card_values
from smm_lightning.classifier.parts import Pieces, TrustedParts
from smm_lightning.classifier.prompt_file import (
    FILE,
    Prompt,
    is_prompt,
    read_prompt,
    require_card,
    write_prompt,
)
from smm_lightning.errors import one_line, problem
from smm_lightning.files import at, write_atomically, writing

_BESIDE = ("config.json", "README.md")
_OURS = "library_name: smm-lightning"  # in every card of ours
_MODULES = {"method": "input_transform", "mapping": "label_mapping"}
_OF_HUB = inspect.signature(hf_hub_download).parameters.keys()


class Sharing(
    PyTorchModelHubMixin,
    library_name="smm-lightning",
    pipeline_tag="image-classification",
    tags=["visual-prompting", "visual-reprogramming"],
    paper_url="https://arxiv.org/abs/2406.03150",
    model_card_template=TEMPLATE,
):
    """What a :class:`ReprogrammedClassifier` has to do with files.

    A file holds what was learned, and names the frozen network by its checksum. A network that was
    handed to ``wrap`` is handed to ``from_pretrained`` again.
    """

    backbone: Backbone
    class_names: list[str]
    nodes: Mapping[str, Any]
    card: dict[str, Any]
    _loaded: Prompt | None = None

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
        for group in ("method", "mapping"):
            if "." in type(getattr(self, _MODULES[group])).__qualname__:
                what = f"a file cannot name the class of its {group}"
                hint = "Define it at the top of a module, not within a function or class."
                raise problem("prompt", what, nodes[group].get("_target_"), hint)
        weights = {name: value.detach().cpu() for name, value in module.state_dict().items()}
        return Prompt(
            nodes, self.class_names, self.backbone.sha256, weights, self._card_of(weights)
        )

    def _card_of(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """The card, unless it was loaded with other weights than these."""
        loaded = self._loaded
        if loaded is None or loaded.card != self.card:
            return dict(self.card)
        same = all(torch.equal(weights[k].float(), v.float()) for k, v in loaded.weights.items())
        return dict(self.card) if same else {}

    @classmethod
    def from_prompt(cls, prompt: Prompt, **options: Any) -> Self:
        """The classifier, in eval mode.

        Args:
            prompt: what was learned.
            options: ``backbone``, ``weights`` and ``trust`` of :meth:`from_pretrained`.

        Raises:
            UserError: See :meth:`before_training`; or if what was learned does not fit or answers
                with NaN.
        """
        classifier: Any = cls.before_training(prompt, **options)
        prompt.load_into(classifier)
        size = classifier.input_size
        if not classifier.probabilities(torch.full((1, 3, size, size), 0.5)).isfinite().all():
            raise problem("prompt", "its answers are NaN", hint="The file is damaged.")
        classifier._loaded = prompt
        kept: Self = classifier.eval()
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
        given: Any = backbone
        if isinstance(given, Sharing):
            hint = "Hand over its network, <it>.backbone."
            raise problem("backbone", "is a whole classifier", type(backbone).__name__, hint)
        if backbone is not None and weights is not None:
            raise problem("weights", "the network is there already, with its weights", weights)
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
        **hub: Any,
    ) -> Self:
        """A trained classifier, in eval mode, from files that run no code.

        Args:
            source: a ``.safetensors`` file, a checkpoint, the folder of a run or of
                ``save_pretrained``, or the name of a repository on the hub.
            backbone: the frozen network, instead of loading it: that of another classifier
                (``other.backbone``), which both then share, and which ``to`` moves for both; or the
                network that was wrapped.
            weights: a local file of the frozen weights, instead of their usual source.
            trust: see :class:`TrustedParts`.
            hub: ``revision``, ``cache_dir``, ``token``, ... of ``huggingface_hub.hf_hub_download``.

        Raises:
            UserError: If it is missing or damaged, or the frozen network is another one.
        """
        if unknown := hub.keys() - _OF_HUB:  # which nobody would look at where nothing is fetched
            raise problem("from_pretrained", "takes no such argument", sorted(unknown)[0])
        path = at(source)
        if not path.exists():
            path = _fetched(str(source), **hub)
        return cls.from_prompt(read_prompt(path), backbone=backbone, weights=weights, trust=trust)

    @override
    def save_pretrained(self, save_directory: str | Path, **more: Any) -> str | None:
        """Write what was learned and a model card into a folder.

        Args:
            save_directory: the folder; what was saved there before is replaced.
            more: as of ``huggingface_hub.ModelHubMixin.save_pretrained``; ``model_card_kwargs`` are
                further lines of the card.

        Raises:
            UserError: If nothing was fitted yet, a file could not say what this is built of, or the
                folder cannot be written or holds such files of somebody else.
        """
        folder = at(save_directory)
        if (folder / "last.ckpt").exists():
            what, hint = "is the folder of a run, which has weights of its own", "Use another one."
            raise problem("save_pretrained", what, str(folder), hint)
        _require_own(folder)
        require_card(self.card, "card")
        _ = self.prompt  # before a folder is made
        with writing("save_pretrained", folder):
            address: str | None = super().save_pretrained(folder, **more)
        return address

    @override
    def push_to_hub(self, repo_id: str, **more: Any) -> str:
        """Save into a repository on the hub; arguments as of ``huggingface_hub.ModelHubMixin``.

        Raises:
            UserError: If the hub refuses it or is not reached.
        """
        try:
            address: str = super().push_to_hub(repo_id, **more)
        except (OSError, ValueError) as error:  # of the hub's many, and of httpx
            what = f"cannot be pushed ({one_line(error)[:200]})"
            raise problem("push_to_hub", what, repo_id) from error
        return address

    @override
    def _save_pretrained(self, save_directory: Path) -> None:
        prompt = self.prompt
        write_prompt(prompt, save_directory / FILE)
        # For people and the hub, which counts by it who fetches; from_pretrained reads the other.
        told = json.dumps(prompt.facts, indent=2)
        write_atomically(save_directory / "config.json", told.encode())
        (save_directory / "README.md").unlink(missing_ok=True)  # of what was saved here before

    @override
    def generate_model_card(self, *_: Any, **more: Any) -> ModelCard:
        """Task, classes, frozen network and its checksum, how it was trained, accuracy.

        Args:
            more: further lines of the card, by their names.
        """
        module: Any = self
        card: ModelCard = ModelCard.from_template(
            self._hub_mixin_info.model_card_data,
            template_str=self._hub_mixin_info.model_card_template,
            paper_url=self._hub_mixin_info.paper_url,
            **card_values(module, more),
        )
        return card

    def export(self, path: str | Path) -> None:
        """Write the whole classifier: ``.pt2`` needs PyTorch alone, ``.onnx`` any other runtime.

        Raises:
            UserError: If the ending is another one, packages are missing, or the file cannot be
                written.
        """
        module: Any = self
        with writing("export", at(path)):
            write_export(module, at(path))

    def print_trainable_parameters(self) -> None:
        """How many numbers are trained, and how many there are, in the words of peft."""
        module: Any = self
        trained = module.facts()["params/trainable"]
        total = trained + self.backbone.frozen_count
        share = 100 * trained / total
        print(
            f"trainable params: {trained:,d} || all params: {total:,d} || trainable%: {share:.4f}"
        )


def _require_own(folder: Path) -> None:
    """What is replaced must have been saved here before.

    Raises:
        UserError: If it is of another program, or by hand.
    """
    there = [name for name in (FILE, *_BESIDE) if (folder / name).exists()]
    card = folder / "README.md"  # of a clone without its large files, too
    carded = card.is_file() and _OURS in card.read_text(errors="replace")
    if there and not carded and not is_prompt(folder / FILE):
        what = f"holds a {there[0]} that was not saved here by this program"
        raise problem("save_pretrained", what, str(folder), "Delete it, or use another folder.")


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
