"""Each dataset of the paper with a few images, in the format that its real files have."""

import csv
import hashlib
import io
import json
import pickle

import numpy as np
from hydra.utils import instantiate
from PIL import Image

from smm_lightning.run.prepare import known_datasets, node_of

CLASSES = 3
TRAIN, TEST, VAL = 4, 2, 1  # images a class
COOP_LAYOUTS = ("coop", "torchvision", "ilm_images", "ilm_lmdb")


def pixels(number, size=(40, 30)):
    return np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)


def encoded(number, kind="JPEG", mode="RGB", size=(40, 30)):
    content = io.BytesIO()
    Image.fromarray(pixels(number, size)).convert(mode).save(content, kind)
    return content.getvalue()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return hashlib.md5(content).hexdigest()


def node(name, root):
    """The source's node out of the dataset's file."""
    return node_of(known_datasets()[name], root)["source"]


def source(name, root, **changes):
    """The source of a dataset of the paper."""
    return instantiate({**node(name, root), **changes}, _convert_="all")


def make(name, root, patch, layout="coop"):
    """Write the miniature of dataset ``name`` below ``root``; ``patch`` mends checksums."""
    if "split" in node(name, root):
        make_coop(name, root, layout)
    else:
        {"cifar10": make_cifar, "cifar100": make_cifar, "svhn": make_svhn, "gtsrb": make_gtsrb}[
            name
        ](name, root, patch)


def make_cifar(name, root, patch):
    from torchvision.datasets import CIFAR10, CIFAR100

    kind, labels, names, classes = {
        "cifar10": (CIFAR10, "labels", "label_names", 10),
        "cifar100": (CIFAR100, "fine_labels", "fine_label_names", 100),
    }[name]
    folder = root / name / kind.base_folder

    def batch(count, start):
        numbers = range(start, start + count)
        data = np.stack([pixels(n, (32, 32)).transpose(2, 0, 1).reshape(-1) for n in numbers])
        return {"data": data, labels: [n % classes for n in numbers]}

    for field, count in (("train_list", 2 * classes), ("test_list", classes)):
        listed = getattr(kind, field)
        share = count // len(listed)
        sums = [
            [file, write(folder / file, pickle.dumps(batch(share, number * share)))]
            for number, (file, _) in enumerate(listed)
        ]
        patch.setattr(kind, field, sums)
    meta = {names: [f"class {n}" for n in range(classes)]}
    checksum = write(folder / kind.meta["filename"], pickle.dumps(meta))
    patch.setattr(kind, "meta", {**kind.meta, "md5": checksum})


def make_svhn(name, root, patch):
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    sums = dict(SVHN.split_list)
    for split, count in (("train", 20), ("test", 10)):
        content = io.BytesIO()
        images = np.stack([pixels(n, (32, 32)) for n in range(count)], axis=-1)
        answers = np.array([[n % 10 or 10] for n in range(count)], dtype=np.uint8)  # 0 is 10
        savemat(content, {"X": images, "y": answers})
        url, file, _ = sums[split][:3]
        sums[split] = [url, file, write(root / "svhn" / file, content.getvalue())]
    patch.setattr(SVHN, "split_list", sums)


def make_gtsrb(name, root, patch=None, training="GTSRB/Final_Training/Images", images=TRAIN):
    base = root / "gtsrb"
    for label in range(CLASSES):
        folder = base / training / f"{label:05d}"
        for number in range(images):
            name = f"{number // 2:05d}_{number:05d}.ppm"
            write(folder / name, encoded(label * 100 + number, "PPM"))
        (folder / f"GT-{label:05d}.csv").write_text("Filename;Width;Height;ClassId\n")
    with (base / "GT-final_test.csv").open("w", newline="") as file:
        rows = csv.writer(file, delimiter=";")
        rows.writerow(["Filename", "Width", "Height", "ClassId"])
        for number in range(TEST * CLASSES):
            rows.writerow([f"{number:05d}.ppm", 40, 30, number % CLASSES])
            image = base / "GTSRB/Final_Test/Images" / f"{number:05d}.ppm"
            write(image, encoded(1000 + number, "PPM", size=(15 + number, 20)))


def coop_rows():
    """The content of a split file: parts with [path, label, class name]."""
    counts = {"train": TRAIN, "val": VAL, "test": TEST}
    return {
        part: [
            [f"kind_{label}/{part}_{number}.jpg", label, f"kind {label}"]
            for label in range(CLASSES)
            for number in range(count)
        ]
        for part, count in counts.items()
    }


def make_coop(name, root, layout="coop"):
    facts = node(name, root)
    rows = coop_rows()
    own = root / name
    home = root / facts["folders"][0].split("/")[0]
    folder = {
        "coop": root / facts["folders"][0],
        "torchvision": root / facts["folders"][-1],
        "ilm_images": own / "images",
        "ilm_lmdb": None,
    }[layout]
    split = own / "split.json" if layout.startswith("ilm") else home / facts["split"]
    write(split, json.dumps(rows).encode())
    for part, listed in rows.items():
        files = [encoded(len(part) * 100 + n) for n in range(len(listed))]
        if folder is not None:
            for (path, _, _), content in zip(listed, files, strict=True):
                write(folder / path, content)
        elif part != "val":  # ILM-VP writes two
            labels = [label for _, label, _ in listed]
            make_lmdb(own / f"{part}.lmdb", list(zip(files, labels, strict=True)))


def make_lmdb(path, records, **replaced):
    """Pickled (image file, label) per key; ``replaced`` puts raw bytes under a key instead."""
    import lmdb

    path.parent.mkdir(parents=True, exist_ok=True)
    keys = [f"{number}".encode() for number in range(len(records))]
    entries = {key: pickle.dumps(record) for key, record in zip(keys, records, strict=True)}
    entries |= {b"__keys__": pickle.dumps(keys), b"__len__": pickle.dumps(len(keys))}
    entries |= {key.encode(): content for key, content in replaced.items()}
    with lmdb.open(str(path), subdir=False, map_size=1 << 24) as environment:  # noqa: SIM117
        with environment.begin(write=True) as transaction:
            for key, content in entries.items():
                transaction.put(key, content)
