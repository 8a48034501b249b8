"""What programs import before they do anything: loaded once, see ``programs``."""

import hydra
import lightning
import matplotlib.figure
import sklearn.datasets
import timm
import torchmetrics
import torchvision

import smm_lightning.benchmark.training
import smm_lightning.figures.trained
import smm_lightning.inference.export
import smm_lightning.inference.predict
import smm_lightning.training.assembly

__all__ = ["hydra", "lightning", "matplotlib", "sklearn", "smm_lightning"]
__all__ += ["timm", "torchmetrics", "torchvision"]
