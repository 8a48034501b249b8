"""A function of image batches through ``torch.compile``, with CUDA graphs on a GPU."""

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from smm_lightning.classifier import ReprogrammedClassifier

Images = Callable[[Tensor], Tensor]
# Cosine of a gradient with the right one, or ratio of their lengths. Sums in another order make
# the cosine 0.94 in bfloat16.
_LEAST_AGREEMENT = 0.5
_NEGLIGIBLE = 1e-3  # of the largest gradient


class Compiled:
    """Runs whole batches compiled and all others as they are.

    Every batch size would be compiled anew, which takes longer than a last, uneven batch.

    Args:
        function: (B, 3, s, s) to (B, source classes).
        sizes: B of whole batches.
    """

    def __init__(self, function: Images, sizes: set[int]) -> None:
        self.function = function
        self.sizes = sizes
        self._fast = torch.compile(function, dynamic=False, mode="reduce-overhead")

    def __call__(self, images: Tensor) -> Tensor:
        """See ``function``."""
        if len(images) not in self.sizes:
            return self.function(images)
        torch.compiler.cudagraph_mark_step_begin()
        return self._fast(images)

    def works_on(self, images: Tensor, parameters: Sequence[Tensor]) -> bool:
        """Compile forward and backward pass now; ``False`` and a warning if that fails.

        A compiler that is missing, fails, or computes something else (torch 2.11 did) must cost
        speed, not the run.

        Args:
            images: a batch to try it with.
            parameters: whose gradients must be those of the function as it is.
        """
        try:
            expected = _gradients(self.function(images), parameters)
            gradients = _gradients(self(images), parameters)
        except Exception as error:  # the compiler's stages have many of their own
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            agreement = _agreement(gradients, expected)
            if agreement >= _LEAST_AGREEMENT:
                return True
            reason = f"it computes other gradients (agreement {agreement:.2f})"
        logging.getLogger(__name__).warning(
            "torch.compile failed, training goes on without it (compiled=false): %s", reason
        )
        return False


def compiled_for_training(classifier: ReprogrammedClassifier, sizes: set[int]) -> Compiled | None:
    """Compile f_P(f_in(x)) before the first step, with noise that leaves no trace.

    Args:
        classifier: to train.
        sizes: of whole batches; the smallest is that of training.

    Returns:
        ``None`` where the compiler fails, or no gradient passes it.
    """
    parts = (classifier.input_transform, classifier.backbone)
    trained = [w for part in parts for group in part.parameter_groups().values() for w in group]
    if not trained:
        return None
    compiled = Compiled(classifier.source, sizes)
    side = classifier.input_size
    # The trial below changes weights; they are put back.
    state = {name: value.clone() for name, value in classifier.state_dict().items()}
    device = classifier.backbone.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        noise = torch.rand(min(sizes), 3, side, side, device=device)
        with torch.no_grad():
            for weights in trained:  # without a pattern, the mask has no gradient
                weights.add_(torch.rand_like(weights), alpha=0.1)
        works = compiled.works_on(noise, trained)
    classifier.load_state_dict(state)
    return compiled if works else None


def _gradients(logits: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    gradients = torch.autograd.grad(
        logits.float().logsumexp(1).mean(), parameters, allow_unused=True
    )
    # Copies, because the next run of a CUDA graph writes over its results.
    return [torch.zeros(1) if one is None else one.detach().clone() for one in gradients]


def _agreement(gradients: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Smallest cosine, or ratio of lengths, of gradients that are more than rounding errors.

    NaN where one is not a number.
    """
    largest = max(one.norm().item() for one in expected)
    counted = [
        pair
        for pair in zip(gradients, expected, strict=True)
        if pair[1].norm().item() > _NEGLIGIBLE * largest
    ]
    agreements = [torch.ones(())]
    for one, other in counted:
        ratio = (one.norm() / other.norm()).cpu()
        cosine = cosine_similarity(one.flatten(), other.flatten(), 0).cpu()
        agreements += [cosine, ratio, 1 / ratio]
    return torch.stack(agreements).min().item()  # which keeps NaN
