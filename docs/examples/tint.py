"""A method from outside the package: one colour is added to every image."""

import torch

from smm_lightning import InputTransform


class Tint(InputTransform):
    def __init__(self, image_size, mean, std):
        super().__init__(image_size, mean, std)
        self.colour = torch.nn.Parameter(torch.zeros(3, 1, 1))

    def forward(self, images):
        return self.normalize(images) + self.colour

    def mask(self, images):  # for pictures
        return torch.ones_like(images)

    def parameter_groups(self):
        return {"pattern": [self.colour]}
