"""What figures are drawn from: finished runs that answer questions about their images."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from smm_lightning.classifier import Prompt, ReprogrammedClassifier, TrustedParts, read_prompt
from smm_lightning.dataset import ImageDataModule
from smm_lightning.dataset.subsets import Positions
from smm_lightning.device import best_device
from smm_lightning.errors import problem
from smm_lightning.mapping import add_pairs
from smm_lightning.report.runs import Run, differing, distinct
from smm_lightning.run.images import changed_images, require_noted_images
from smm_lightning.run.look import COLOURS, Look, look_of_name
from smm_lightning.run.settings import arguments


@dataclass(frozen=True)
class Answers:
    """What a classifier says about some images.

    Attributes:
        source_logits: (N, source classes), before the mapping.
        logits: (N, T) of the target classes.
        targets: (N,) true classes.
    """

    source_logits: Tensor
    logits: Tensor
    targets: Tensor

    @property
    def losses(self) -> Tensor:
        """Cross-entropy of each image (N,)."""
        return nn.functional.cross_entropy(self.logits, self.targets, reduction="none")

    @property
    def confidences(self) -> Tensor:
        """Of the true class (N,)."""
        return self.logits.softmax(1).gather(1, self.targets[:, None]).squeeze(1)


class TrainedRun:
    """A run with its result and its last weights, which are read when they are asked for.

    Training images are not augmented here. What asks for weights or images raises a
    :class:`UserError` if the checkpoint or the data cannot be read, or the images are others now.

    Args:
        run: finished.
        trust: see :class:`TrustedParts`.
    """

    def __init__(self, run: Run, trust: Collection[str] = ()) -> None:
        self.run = run
        self._trust = trust
        self.result = run.finished
        self.method = run.method
        self.device = torch.device(best_device())
        self._known: dict[tuple[str, bytes], Answers] = {}

    @cached_property
    def _prompt(self) -> Prompt:
        return read_prompt(self.run.folder)

    @cached_property
    @torch.inference_mode(mode=False)  # weights are replaced later
    def _states(self) -> tuple[ReprogrammedClassifier, dict[str, Tensor], dict[str, Tensor]]:
        """The classifier, in eval mode, and its weights before and after training."""
        torch.manual_seed(self.result["seed"])  # as a run does before it begins
        prompt = self._prompt
        classifier = ReprogrammedClassifier.before_training(prompt, trust=self._trust)
        before = {name: value.clone() for name, value in classifier.state_dict().items()}
        prompt.load_into(classifier)
        after = {name: value.clone() for name, value in classifier.state_dict().items()}
        return classifier.eval().to(self.device), before, after

    @property
    def classifier(self) -> ReprogrammedClassifier:
        """In eval mode, with the trained weights."""
        return self._states[0]

    @cached_property
    def _data(self) -> ImageDataModule:
        """Its images, without augmentation."""
        require_noted_images(self.result, str(self.run.folder))
        method = self.classifier.input_transform  # what cannot be read is said before images are
        node = {**self.result["config"]["dataset"], "augmentation": "none"}
        of_prompt = {"size": method.input_size, "augmented": method.augmented}
        parts = TrustedParts(self._trust)
        data: ImageDataModule = parts.build(
            "dataset", arguments(node), ImageDataModule, **of_prompt
        )
        data.setup()
        if changed := changed_images(self.result, data.taken):
            raise problem(str(self.run.folder), f"was trained with other images: {changed}")
        return data

    @property
    def class_names(self) -> list[str]:
        """Of the target classes."""
        return self._data.class_names

    @property
    def examples(self) -> str:
        """The split that single images are shown of: what is chosen by labels may not be test's.

        Under ``published`` without a ``val``, as in the paper, it is ``test``.
        """
        if "val" in self._data.image_counts:
            return "val"
        return "test" if self.run.card["protocol"] == "published" else "train"

    def drawn(self, split: str, count: int) -> Positions:
        """Positions of ``count`` images of a split: see :meth:`ImageDataModule.drawn`."""
        return self._data.drawn(split, count)

    def labels(self, split: str) -> NDArray[np.int64]:
        """True classes of all images of a split (N,)."""
        return self._data.labels(split)

    def images(self, split: str, positions: Positions) -> tuple[Tensor, Tensor]:
        """Images in [0, 1] and their classes."""
        images, targets = zip(*self._batches(split, positions), strict=True)
        return torch.cat(images), torch.cat(targets)

    def answers(self, split: str, positions: Positions) -> Answers:
        """Of the trained classifier about the images at ``positions``; asked once."""
        key = split, positions.tobytes()
        if key not in self._known:
            self._known[key] = self._answers(*self._source_logits(split, positions))
        return self._known[key]

    def first_answers(self, split: str, positions: Positions) -> Answers:
        """As before training: the prompt at its start, the mapping counted on all its images."""
        classifier, before, after = self._states
        classifier.load_state_dict(before)  # and back again below
        if not classifier.fitted:
            classifier.refit_unchecked(self._batches("train", None))
        answers = self._answers(*self._source_logits(split, positions))
        classifier.load_state_dict(after)
        return answers

    @torch.inference_mode()
    def counts(self, split: str) -> Tensor:
        """d[s, t] (S, T): how many images of class t are predicted as source class s."""
        backbone, transform = self.classifier.backbone, self.classifier.input_transform
        shape = len(backbone.class_names), len(self.class_names)
        counts = torch.zeros(shape, dtype=torch.int64, device=self.device)
        for images, targets in self._batches(split, None):
            add_pairs(counts, backbone(transform(images)).argmax(1), targets)
        return counts.cpu()

    @torch.inference_mode()
    def without_prompt(self, split: str, positions: Positions) -> tuple[Tensor, Tensor, Tensor]:
        """Source logits, features before the last layer, and classes of the bare images."""
        backbone, transform = self.classifier.backbone, self.classifier.input_transform
        batches = []
        for images, targets in self._batches(split, positions):
            seen = transform.bare(images)
            batches.append((backbone(seen), backbone.features(seen), targets))
        logits, features, targets = (torch.cat(part).cpu() for part in zip(*batches, strict=True))
        return logits, features, targets

    def _batches(self, split: str, positions: Positions | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Images in [0, 1] and their classes; ``None``: of a whole split."""
        for batch in self._data.plain_batches(split, self.device, positions):
            yield batch["image"], batch["target"]

    @torch.inference_mode()
    def _answers(self, source: Tensor, targets: Tensor) -> Answers:
        return Answers(source.cpu(), self.classifier.mapped(source).cpu(), targets.cpu())

    @torch.inference_mode()
    def _source_logits(self, split: str, positions: Positions) -> tuple[Tensor, Tensor]:
        pairs = [(self.classifier.source(x), t) for x, t in self._batches(split, positions)]
        return torch.cat([logits for logits, _ in pairs]), torch.cat([t for _, t in pairs])


@dataclass(frozen=True)
class Series:
    """Runs whose numbers are averaged, and how they are drawn.

    Attributes:
        name: their method, and what else tells them from other series of it.
        look: of the method, or with a label and a colour of their own.
        runs: finished.
    """

    name: str
    look: Look
    runs: list[Run]


@dataclass
class Group:
    """Runs on one dataset, with one backbone and one mapping, whose methods are compared.

    Attributes:
        runs: finished.
        limit: how many training images take part.
        numbers: of training images that were asked for.
        trust: see :class:`TrustedParts`.
    """

    runs: Sequence[Run]
    limit: int = 5000
    numbers: Sequence[int] | None = None
    trust: Collection[str] = ()

    @cached_property
    def trained(self) -> list[TrainedRun]:
        """For each method the run of the lowest seed; of several patch sizes the paper's, 8."""
        ordered = sorted(
            self.runs,
            key=lambda run: (run.value("method.patch_size") not in (None, 8), run.value("seed")),
        )
        methods = distinct(run.method for run in self.runs)
        chosen = (next(run for run in ordered if run.method == method) for method in methods)
        return [TrainedRun(run, self.trust) for run in chosen]

    @property
    def title(self) -> str:
        """Dataset, number of methods and of runs, for the head of a figure."""
        methods = len({run.method for run in self.runs})
        counted = [(methods, "method"), (len(self.runs), "run")]
        words = [f"{n} {word}{'s' if n > 1 else ''}" for n, word in counted]
        return ", ".join([str(self.runs[0].value("dataset.name")), *words])

    @property
    def title_of_trained(self) -> str:
        """As :attr:`title`, for a figure of :attr:`trained`."""
        methods = len(self.trained)
        dataset = self.runs[0].value("dataset.name")
        return f"{dataset}, {methods} method{'s' if methods > 1 else ''}, one run each"

    @property
    def keys_of_trained(self) -> list[str]:
        """Keys of the runs that :attr:`trained` has."""
        return [trained.run.key for trained in self.trained]

    @property
    def looks(self) -> dict[str, Look]:
        """By methods; one that has inherited the label of another one looks as its own name."""
        looks: dict[str, Look] = {}
        for run in self.runs:
            taken = {look.label for name, look in looks.items() if name != run.method}
            look = run.look
            looks[run.method] = look_of_name(run.method) if look.label in taken else look
        return looks

    def series(self, *along: str) -> list[Series]:
        """Runs of one method that differ in the seed alone, which may be averaged.

        Args:
            along: fields that they may differ in, too.
        """
        found: dict[tuple[str, ...], Series] = {}
        for method, look in self.looks.items():
            members = [run for run in self.runs if run.method == method]
            facts = [{n: v for n, v in r.protocol().items() if n not in along} for r in members]
            names = differing(facts)
            for run, of_run in zip(members, facts, strict=True):
                marks = [f"{n.removeprefix('method.')} {of_run.get(n)}" for n in names]
                key = (method, *marks)
                if key not in found:
                    colour = COLOURS[len(found) % len(COLOURS)] if marks else look.colour
                    drawn = replace(look, label=", ".join([look.label, *marks]), colour=colour)
                    found[key] = Series(", ".join(key), drawn, [])
                found[key].runs.append(run)
        return list(found.values())

    @property
    def bare(self) -> TrainedRun:
        """A run whose images are as large as the network's input, if there is one."""
        return next((t for t in self.trained if t.method != "pad"), self.trained[0])

    def require_same_images(self) -> None:
        """Methods are compared on the same training images.

        Raises:
            UserError: If runs were trained on others than the first of them.
        """
        first, *others = self.trained
        for trained in self.trained:
            require_noted_images(trained.result, str(trained.run.folder))
        for trained in others:
            digests = {one.result["images"]["train"]["digest"] for one in (trained, first)}
            if len(digests) > 1:
                folders = f"{first.run.folder.name}, {trained.run.folder.name}"
                hint = "Draw figures of runs with the same dataset settings."
                raise problem("figures", "runs with other training images", folders, hint)
