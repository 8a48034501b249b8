"""A training loop of one's own, and a file of what was learned."""

import torch
from digits import loaders, names

from smm_lightning import ReprogrammedClassifier

train, test = loaders()
model = ReprogrammedClassifier.wrap("efficientnet_lite0", names, image_size=64)
model.refit(train)  # which source class answers for which digit, and the temperature
optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
for images, targets in train:
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(images), targets).backward()
    optimizer.step()
model.save_pretrained("digits")  # 0.2 MB and a model card; from_pretrained("digits") is its inverse
