"""The device pipeline gives the pixels of the published one, which works on PIL images."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional as published

from smm_lightning.dataset import ImageDataModule, ImageFolder
from smm_lightning.dataset.augmentation import PRESETS, crop_indices, random_bits
from smm_lightning.dataset.resampling import resize
from smm_lightning.dataset.sources import Source
from smm_lightning.dataset.splits import ArraySplit, Splits

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SEED, EPOCH = 5, 0


def test_transforms(image, size):
    """The order of SMM instancewise_vp.py: RGB comes after resizing."""
    pipeline = transforms.Compose(
        [
            transforms.Resize((size, size)),
            transforms.Lambda(lambda x: x.convert("RGB")),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    return pipeline(image)


test_transforms.__test__ = False


def train_transforms(image, size, top, left, mirrored):
    """The same with the random choices given."""
    large = transforms.Resize((size + 32, size + 32))(image)
    crop = published.crop(large, top, left, size, size)
    crop = published.hflip(crop) if mirrored else crop
    return published.normalize(published.to_tensor(crop.convert("RGB")), MEAN, STD)


def normalized(images):
    return published.normalize(images, MEAN, STD)


class Noise(Source):
    """Small images of one size, kept as they are in the cache."""

    name = "noise"

    def __init__(self, image_size):
        self.image_size = image_size
        shape = (6, image_size, image_size, 3)
        self.pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        self.pixels[0], self.pixels[1] = 0, 255

    def load(self):
        splits = [ArraySplit(f"noise/{n}", self.pixels, [0, 1] * 3) for n in ("train", "test")]
        return Splits(*splits, None, ["a", "b"])


def compare(data, original, size):
    """Both pipelines over all images: bitwise, so within one grey level and exactly."""
    for batch in data.test_dataloader():
        made = normalized(data.on_after_batch_transfer(batch, 0)["image"])
        for image, index in zip(made, batch["index"], strict=True):
            expected = test_transforms(original("test", int(index)), size)
            torch.testing.assert_close(image, expected, rtol=0, atol=0)
    for batch in data.train_dataloader():
        made = normalized(data.on_after_batch_transfer(batch, 0)["image"])
        for image, index in zip(made, batch["index"], strict=True):
            draws = [int(random_bits(SEED, EPOCH, index[None], stream)) for stream in range(3)]
            top, left, mirrored = draws[0] % 33, draws[1] % 33, draws[2] & 1
            expected = train_transforms(original("train", int(index)), size, top, left, mirrored)
            torch.testing.assert_close(image, expected, rtol=0, atol=0)


@pytest.mark.parametrize(("native", "size"), [(32, 224), (32, 128), (32, 384), (8, 128), (32, 20)])
def test_small_images_are_resized_on_the_device_as_by_pil(native, size, tmp_path):
    source = Noise(native)
    options = {"batch_size": 3, "augmentation": "paper", "seed": SEED, "image_cache": tmp_path}
    data = ImageDataModule(source, size=size, **options)
    data.setup()
    assert data._caches["train"].images.shape[1:] == (native, native, 3)
    compare(data, lambda _, index: Image.fromarray(source.pixels[index]), size)


# Modes whose pixels are the published ones, and those that become RGB before they are resized here
# and after it there (docs/DEVIATIONS.md).
AS_PUBLISHED = ("RGB", "L")
RGB_FIRST = ("1", "P", "RGBA", "LA", "CMYK", "YCbCr")


@pytest.mark.parametrize("mode", AS_PUBLISHED + RGB_FIRST)
@pytest.mark.parametrize("shape", [(40, 30), (500, 375)])
def test_files_are_resized_in_the_cache_as_by_pil(mode, shape, tmp_path):
    kind = {"CMYK": "jpg", "YCbCr": "tif"}.get(mode, "png")
    generator = np.random.default_rng(0)
    for split, name, number in itertools.product(("train", "test"), "ab", range(2)):
        pixels = generator.integers(0, 256, (*shape[::-1], 3), dtype=np.uint8)
        file = tmp_path / "images" / split / name / f"{number}.{kind}"
        file.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(pixels).convert(mode)
        if mode in ("RGBA", "LA"):
            image.putalpha(Image.fromarray(pixels[..., 0]))
        image.save(file)
    source = ImageFolder(str(tmp_path / "images"), exif=False, background=None)
    options = {
        "batch_size": 3,
        "augmentation": "paper",
        "seed": SEED,
        "image_cache": tmp_path / "image_cache",
    }
    data = ImageDataModule(source, size=64, **options)
    data.setup()
    opened = {
        part: [Image.open(split.root / name) for name in split.names]
        for part, split in source.load().parts().items()
    }
    assert {image.mode for image in opened["train"]} == {mode}
    compare(data, lambda split, index: opened[split][index].convert("RGB"), 64)
    if mode in AS_PUBLISHED:
        compare(data, lambda split, index: opened[split][index], 64)
    else:
        with pytest.raises(AssertionError, match=r"not equal"):
            compare(data, lambda split, index: opened[split][index], 64)


@pytest.mark.parametrize("source", [1, 5, 32, 33, 100])
@pytest.mark.parametrize("target", [1, 7, 32, 50, 221, 256])
def test_resize_is_pils_bit_for_bit(source, target):
    generator = torch.Generator().manual_seed(source * 1000 + target)
    images = torch.randint(0, 256, (3, source, source, 3), dtype=torch.uint8, generator=generator)
    images[0] = (images[0] > 127) * 255  # the largest steps
    rows, columns = crop_indices(torch.arange(3), target, PRESETS["none"], 0, 0)
    made = resize(images, rows, columns, target)
    for image, ours in zip(images, made, strict=True):
        pil = Image.fromarray(image.numpy()).resize((target, target), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(ours.numpy(), np.asarray(pil))
