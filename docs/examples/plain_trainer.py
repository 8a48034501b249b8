"""Lightning's own trainer, with any loaders: refits, metrics, checkpoints that go on."""

import lightning
import torch
from digits import loaders, names

from smm_lightning import (
    Group,
    GroupedOptimizer,
    ReprogrammedClassifier,
    ReprogrammingModule,
    Training,
)

train, test = loaders()
model = ReprogrammedClassifier.wrap("efficientnet_lite0", names, image_size=64)
model.print_trainable_parameters()

rates = {"pattern": Group(lr=0.01), "mask_generator": Group(lr=0.001)}
module = ReprogrammingModule(model, Training(GroupedOptimizer(torch.optim.Adam, rates)))
trainer = lightning.Trainer(max_epochs=2, gradient_clip_val=1.0)
trainer.fit(module, train, test)
print(f"{100 * trainer.callback_metrics['val/acc']:.1f} % after 2 epochs")

again = ReprogrammedClassifier.from_pretrained(trainer.checkpoint_callback.best_model_path)
again.save_pretrained("digits")
