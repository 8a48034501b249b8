"""Ten tasks on one frozen network: it lies in memory once, each task adds 0.2 MB."""

from digits import loaders

from smm_lightning import ReprogrammedClassifier

shared = None
for digit in range(10):  # train ten classifiers: "is it this digit?"
    train, _ = loaders(of=lambda target, digit=digit: (target == digit).long(), train=128)
    model = ReprogrammedClassifier.wrap("efficientnet_lite0", ["no", "yes"], image_size=64)
    model.refit(train)
    model.save_pretrained(f"is_{digit}")

tasks = []
for digit in range(10):  # in the program that uses them
    tasks.append(ReprogrammedClassifier.from_pretrained(f"is_{digit}", backbone=shared))
    shared = tasks[0].backbone
