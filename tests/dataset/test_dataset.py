import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from smm_lightning.dataset import Digits, ImageDataModule, ImageFolder
from smm_lightning.dataset.augmentation import PRESETS, Augmentation, augment, random_bits
from smm_lightning.dataset.datamodule import stratified_subset
from smm_lightning.dataset.sampler import DerivedBatchSampler
from smm_lightning.errors import UserError


def write_images(root, split, classes=("cat", "dog"), count=3, size=(40, 30), mode="RGB"):
    generator = np.random.default_rng(0)
    for name in classes:
        folder = root / split / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = generator.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / f"{number}.png")


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "my images, 1=2 ü"
    write_images(root, "train")
    write_images(root, "test")
    return root


def datamodule(source, **options):
    arguments = {"batch_size": 2, "augmentation": "none", "native_size": 8, "size": 16, **options}
    data = ImageDataModule(source, **arguments)
    data.setup()
    return data


def test_digits_are_split_once_and_for_all():
    splits = Digits().load()
    assert (len(splits.train), len(splits.test), splits.val) == (1297, 500, None)
    assert splits.class_names == [str(digit) for digit in range(10)]
    assert np.bincount(splits.test.labels).tolist() == [50, 51, 49, 51, 50, 51, 50, 50, 48, 50]
    joined = np.concatenate([splits.train.images, splits.test.images]).reshape(1797, -1)
    assert joined.max() == 255
    from sklearn.datasets import load_digits

    original = np.rint(load_digits().data * 255 / 16)
    assert sorted(map(tuple, joined.tolist())) == sorted(map(tuple, original.astype(int).tolist()))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1"])
def test_pixels_equal_the_published_pipeline(tmp_path, mode):
    """Resize to S for testing; to S + 32, then crop and flip, for training; RGB comes first."""
    write_images(tmp_path, "train", mode=mode)
    write_images(tmp_path, "test", mode=mode)
    data = datamodule(ImageFolder(str(tmp_path)), augmentation="paper", seed=5)
    batch = data._prepared(next(iter(data.test_dataloader())), training=False)
    file = Image.open(tmp_path / "test/cat/0.png").convert("RGB")
    expected = np.asarray(file.resize((16, 16), Image.Resampling.BILINEAR), np.float32) / 255
    np.testing.assert_array_equal(batch["image"][0].permute(1, 2, 0).numpy(), expected)

    batch = next(data.mapping_batches(torch.device("cpu")))
    index = torch.tensor([0])
    top, left, mirrored = (int(random_bits(5, 0, index, stream)) for stream in range(3))
    file = Image.open(tmp_path / "train/cat/0.png").convert("RGB")
    large = file.resize((48, 48), Image.Resampling.BILINEAR)
    top, left = top % 33, left % 33
    crop = large.crop((left, top, left + 16, top + 16))
    if mirrored & 1:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    expected = np.asarray(crop, np.float32) / 255
    np.testing.assert_array_equal(batch["image"][0].permute(1, 2, 0).numpy(), expected)


def test_cmyk_images_are_read(tmp_path):
    write_images(tmp_path, "train")
    write_images(tmp_path, "test")
    Image.new("CMYK", (9, 9), (0, 255, 255, 0)).save(tmp_path / "test/cat/0.jpg")
    split = ImageFolder(str(tmp_path)).load().test
    index = next(i for i, path in enumerate(split.paths) if path.suffix == ".jpg")
    red, green, blue = split.read(index).getpixel((4, 4))
    assert red > 200
    assert max(green, blue) < 60


def test_augmentation_depends_on_seed_epoch_and_index_alone():
    images = torch.randint(0, 256, (64, 3, 20, 20), dtype=torch.uint8)
    index = torch.arange(100, 164)
    recipe = Augmentation(margin=8, flip=True)
    whole = augment(images, index, recipe, seed=1, epoch=2)
    assert whole.shape == (64, 3, 12, 12)
    order = torch.randperm(64)
    for part in order.split(7):
        torch.testing.assert_close(augment(images[part], index[part], recipe, 1, 2), whole[part])
    for seed, epoch in ((1, 3), (2, 2)):
        assert not torch.equal(augment(images, index, recipe, seed, epoch), whole)


def test_random_bits_are_uniform_and_streams_independent():
    index = torch.arange(200_000)
    draws = [random_bits(0, 0, index, stream) for stream in (0, 1)]
    for bits in draws:
        counts = torch.bincount(bits % 33, minlength=33).double()
        expected = len(index) / 33
        chi_squared = ((counts - expected) ** 2 / expected).sum()
        assert chi_squared < 70  # 32 degrees of freedom: 1 in 10,000 exceeds 69
    correlation = torch.corrcoef(torch.stack(draws).double())[0, 1]
    assert correlation.abs() < 0.01


def test_presets():
    assert PRESETS["paper"] == Augmentation(margin=32, flip=True)
    assert PRESETS["no_flip"] == Augmentation(margin=32, flip=False)
    images = torch.rand(2, 3, 8, 8)
    assert augment(images, torch.arange(2), PRESETS["none"], 0, 0) is images


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


def batches(**options):
    return list(DerivedBatchSampler(23, 5, **options))


def test_order_is_a_function_of_seed_and_epoch():
    first = batches(seed=1, epoch=lambda: 0)
    assert sorted(flat(first)) == list(range(23))
    assert first == batches(seed=1, epoch=lambda: 0)
    assert first != batches(seed=1, epoch=lambda: 1)
    assert first != batches(seed=2, epoch=lambda: 0)
    assert len(first) == len(DerivedBatchSampler(23, 5, epoch=lambda: 0)) == 5
    assert flat(batches()) == list(range(23))


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_the_samples_of_every_step(world):
    one = batches(seed=1, epoch=lambda: 4)
    parts = [batches(seed=1, epoch=lambda: 4, rank=rank, world=world) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1
    for step, whole in enumerate(one):
        together = flat(part[step] for part in parts)
        assert sorted(together) == sorted(whole)


def test_a_last_batch_smaller_than_the_ranks_is_left_out_in_training_only():
    for rank in range(2):
        sampler = DerivedBatchSampler(11, 5, epoch=lambda: 0, rank=rank, world=2)
        assert len(list(sampler)) == len(sampler) == 2
    seen = flat(flat(DerivedBatchSampler(11, 5, rank=r, world=2)) for r in range(2))
    assert sorted(seen) == list(range(11))


def test_workers_change_nothing(folder):
    found = []
    for workers in (0, 2):
        data = datamodule(ImageFolder(str(folder)), augmentation="paper", num_workers=workers)
        found.append(list(data.train_dataloader()))
    for one, other in zip(*found, strict=True):
        assert one.keys() == other.keys() == {"image", "target", "index"}
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_subset_is_stratified_and_seeded():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    chosen = stratified_subset(labels, 10, 0, "dataset.train_images")
    assert np.bincount(labels[chosen]).tolist() == [5, 3, 2]
    again = stratified_subset(labels, 10, 0, "dataset.train_images")
    other = stratified_subset(labels, 10, 1, "dataset.train_images")
    assert np.array_equal(chosen, again)
    assert not np.array_equal(chosen, other)
    for count in (2, 101):
        with pytest.raises(UserError, match=r"dataset.train_images: must be between 3"):
            stratified_subset(labels, count, 0, "dataset.train_images")


def test_index_is_the_number_in_the_split(folder):
    data = datamodule(ImageFolder(str(folder)), train_images=2)
    batch = next(iter(data.train_dataloader()))
    labels = data._images["train"].split.labels
    assert batch["target"].tolist() == labels[batch["index"]].tolist()


def test_a_val_folder_is_used_where_it_exists(folder):
    assert datamodule(ImageFolder(str(folder))).evaluation_splits == ["test"]
    write_images(folder, "val")
    data = datamodule(ImageFolder(str(folder)))
    assert data.evaluation_splits == ["test", "val"]
    assert len(data.val_dataloader()) == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named(folder, workers):
    broken = folder / "train/dog/1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    data = datamodule(ImageFolder(str(folder)), num_workers=workers)
    with pytest.raises(UserError) as error:
        list(data.train_dataloader())
    (line,) = error.value.problems
    assert line.startswith(f"imagefolder/train[4] {broken}: is no readable image")


def test_a_missing_folder_says_where_images_belong(tmp_path):
    with pytest.raises(UserError) as error:
        ImageFolder(str(tmp_path)).load()
    assert len(error.value.problems) == 2
    assert f"Images belong in {tmp_path}/train/<class>/*.jpg" in error.value.problems[0]
    with pytest.raises(UserError, match=r"dataset.source.root: is not set"):
        ImageFolder(None)


def test_a_class_without_images_is_refused(folder):
    for file in (folder / "train/dog").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"imagefolder/train: has classes without images .*dog"):
        datamodule(ImageFolder(str(folder)))


def test_a_test_class_without_training_is_refused(folder):
    write_images(folder, "test", classes=("horse",))
    with pytest.raises(UserError, match=r"classes that the training folder lacks .*horse"):
        datamodule(ImageFolder(str(folder)))


def test_arguments_out_of_range_are_refused_together():
    with pytest.raises(UserError) as error:
        datamodule(Digits(), batch_size=0, num_workers=-1, augmentation="papr")
    assert [line.split(":")[0] for line in error.value.problems] == [
        "dataset.batch_size",
        "dataset.num_workers",
        "dataset.augmentation",
    ]
    with pytest.raises(UserError, match=r"dataset.batch_size: is larger than the 1297 training"):
        datamodule(Digits(), batch_size=2000)
