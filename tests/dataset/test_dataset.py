"""Sources of our own, order, augmentation, subsets, and the datamodule that joins them."""

import itertools
import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from smm_lightning.dataset import Digits, ImageDataModule, ImageFolder
from smm_lightning.dataset.augmentation import PRESETS, Augmentation, crop_indices, random_bits
from smm_lightning.dataset.sampler import DeterministicBatchSampler
from smm_lightning.dataset.shots import Shots
from smm_lightning.dataset.subsets import Subset, held_out
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


@pytest.fixture
def datamodule(tmp_path):
    def make(source, **options):
        defaults = {"batch_size": 2, "augmentation": "none", "size": 16, "build_workers": 1}
        data = ImageDataModule(
            source, image_cache=tmp_path / "image_cache", **{**defaults, **options}
        )
        data.setup()
        return data

    return make


def batches_of(data, split="train"):
    """The batches as the module gets them."""
    loader = data.train_dataloader() if split == "train" else data.test_dataloader()
    return [data.on_after_batch_transfer(batch, 0) for batch in loader]


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


def test_augmentation_depends_on_seed_epoch_and_index_alone():
    index = torch.arange(100, 164)
    recipe = Augmentation(margin=8, flip=True)
    rows, columns = crop_indices(index, 12, recipe, seed=1, epoch=2)
    assert rows.shape == columns.shape == (64, 12)
    order = torch.randperm(64)
    for part in order.split(7):
        for one, other in zip(
            crop_indices(index[part], 12, recipe, 1, 2), (rows, columns), strict=True
        ):
            assert torch.equal(one, other[part])
    for seed, epoch in ((1, 3), (2, 2)):
        assert not torch.equal(crop_indices(index, 12, recipe, seed, epoch)[0], rows)


def test_windows_lie_inside_and_reach_every_border():
    recipe = Augmentation(margin=8, flip=True)
    rows, columns = crop_indices(torch.arange(2000), 12, recipe, seed=0, epoch=0)
    for lines in (rows, columns):
        assert (lines.min().item(), lines.max().item()) == (0, 19)
        assert torch.equal((lines[:, 1:] - lines[:, :-1]).abs(), torch.ones(2000, 11).long())
    mirrored = (columns[:, 0] > columns[:, 1]).float().mean().item()
    assert abs(mirrored - 0.5) < 0.04  # 3.6 standard deviations of a fair coin
    assert (rows[:, 0] < rows[:, 1]).all()


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


@pytest.mark.parametrize(
    ("seed", "epoch", "stream", "bits"),
    [
        (0, 0, 0, [725753817, 2888419799, 1174296115]),
        (3, 1, 1, [1213315293, 1201292895, 180382974]),
        (2**32 - 1, 199, 2, [4237572407, 3631470034, 3762914179]),
    ],
)
def test_crops_and_flips_are_those_of_every_version(seed, epoch, stream, bits):
    """Other bits would let a run go on with other images than it began with."""
    assert random_bits(seed, epoch, torch.arange(3), stream).tolist() == bits


def test_presets():
    assert PRESETS["paper"] == Augmentation(margin=32, flip=True)
    assert PRESETS["no_flip"] == Augmentation(margin=32, flip=False)
    rows, columns = crop_indices(torch.arange(2), 8, PRESETS["none"], 0, 0)
    assert torch.equal(rows, torch.arange(8).expand(2, 8))
    assert torch.equal(columns, rows)


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


def batches(epoch=None, done=0, length=23, **options):
    if epoch is not None:
        options |= {"shuffled": True, "progress": lambda: (epoch, done)}
    draws = list(DeterministicBatchSampler(length, 5, **options))
    assert {draw.epoch for draw in draws} <= {epoch or 0}
    return [draw.positions for draw in draws]


def test_order_is_a_function_of_seed_and_epoch():
    first = batches(seed=1, epoch=0)
    assert sorted(flat(first)) == list(range(23))
    assert first == batches(seed=1, epoch=0)
    assert first != batches(seed=1, epoch=1)
    assert first != batches(seed=2, epoch=0)
    assert len(first) == len(DeterministicBatchSampler(23, 5, shuffled=True)) == 5
    assert flat(batches()) == list(range(23))


def test_an_epoch_that_was_begun_goes_on():
    whole = batches(seed=1, epoch=3)
    for done in range(6):
        assert batches(seed=1, epoch=3, done=done) == whole[done:]


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_the_samples_of_every_step(world):
    one = batches(seed=1, epoch=4)
    parts = [batches(seed=1, epoch=4, rank=rank, world=world) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1
    for step, whole in enumerate(one):
        together = flat(part[step] for part in parts)
        assert sorted(together) == sorted(whole)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_shares_make_the_mean_over_ranks_a_mean_over_samples(world):
    samplers = [
        DeterministicBatchSampler(23, 5, shuffled=True, rank=rank, world=world)
        for rank in range(world)
    ]
    values = torch.rand(23, dtype=torch.double)
    for draws in zip(*samplers, strict=True):
        means = [draw.loss_weight * values[draw.positions].mean() for draw in draws]
        whole = values[flat(draw.positions for draw in draws)].mean()
        assert sum(means) / world == pytest.approx(whole.item())


def test_a_last_batch_smaller_than_the_ranks_is_left_out_in_training_only():
    for rank in range(2):
        sampler = DeterministicBatchSampler(11, 5, shuffled=True, rank=rank, world=2)
        assert len(list(sampler)) == len(sampler) == 2
    seen = flat(flat(batches(length=11, rank=rank, world=2)) for rank in range(2))
    assert sorted(seen) == list(range(11))


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
def test_workers_change_nothing(folder, datamodule):
    found = []
    for workers in (0, 3):
        source = ImageFolder(str(folder))
        data = datamodule(source, augmentation="paper", num_workers=workers, residency="disk")
        found.append([batch for _ in range(2) for batch in batches_of(data)])
        data.teardown("fit")
    assert len(found[0]) == 6
    for one, other in zip(*found, strict=True):
        assert one.keys() == other.keys() == {"image", "target", "index", "loss_weight"}
        assert one["loss_weight"] == other["loss_weight"] == 1
        assert all(torch.equal(one[key], other[key]) for key in ("image", "target", "index"))


def test_steps_without_gradients_may_be_larger(folder, datamodule):
    source = ImageFolder(str(folder))
    sizes = {}
    for wanted in (None, 5):
        data = datamodule(source, evaluation_batch_size=wanted)
        counting = data.mapping_batches(torch.device("cpu"))
        sizes[wanted] = [
            [len(batch["index"]) for batch in batches]
            for batches in (batches_of(data), batches_of(data, "test"), counting)
        ]
        assert data.full_batches() == {2, wanted or 2}
    assert sizes == {None: [[2, 2, 2]] * 3, 5: [[2, 2, 2], [5, 1], [5, 1]]}


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
def test_a_gpu_gets_larger_batches_and_workers_where_it_does_not_hold_the_images(
    folder, datamodule, monkeypatch
):
    cuda = property(lambda _: torch.device("cuda"))
    monkeypatch.setattr(ImageDataModule, "_device", cuda)
    data = datamodule(ImageFolder(str(folder)), residency="disk")
    assert data.train_dataloader().num_workers == 4
    assert [
        data.train_dataloader().sampler.batch_size,
        data.test_dataloader().sampler.batch_size,
    ] == [
        2,
        8,
    ]
    data = datamodule(ImageFolder(str(folder)), residency="disk", num_workers=1)
    assert data.train_dataloader().num_workers == 1
    data = datamodule(ImageFolder(str(folder)), residency="disk")
    data._loaders.resident = {"train": torch.zeros(1)}
    assert data.train_dataloader().num_workers == 0


def test_a_datamodule_can_be_pickled(folder, datamodule):
    data = datamodule(ImageFolder(str(folder)))
    again = pickle.loads(pickle.dumps(data))
    assert again.image_counts == data.image_counts


def test_ranks_see_the_images_of_one(folder, datamodule):
    def images(rank, world):
        data = datamodule(ImageFolder(str(folder)), augmentation="paper", batch_size=3)
        sampler = data.train_dataloader().sampler
        sampler.rank, sampler.world = rank, world
        joined = {key: [] for key in ("image", "index")}
        for batch in batches_of(data):
            for key, values in joined.items():
                values += list(batch[key])
        return dict(zip(map(int, joined["index"]), joined["image"], strict=True))

    one = images(0, 1)
    two = images(0, 2) | images(1, 2)
    assert one.keys() == two.keys() == set(range(6))
    assert all(torch.equal(one[index], two[index]) for index in one)


def test_a_subset_is_stratified_seeded_and_nested():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    chosen = Subset(images=10).of(labels)
    assert np.bincount(labels[chosen]).tolist() == [5, 3, 2]
    assert np.array_equal(chosen, Subset(images=10).of(labels))
    assert np.array_equal(chosen, Subset(images=0.1).of(labels))
    assert not np.array_equal(chosen, Subset(images=10, seed=1).of(labels))
    assert set(chosen) < set(Subset(images=11).of(labels)) < set(Subset(images=99).of(labels))
    assert np.array_equal(Subset().of(labels), np.arange(100))
    assert np.array_equal(Subset(images=100).of(labels), np.arange(100))
    rare = np.repeat([0, 1], [999, 1])
    assert np.bincount(rare[Subset(images=2).of(rare)]).tolist() == [1, 1]


def test_few_shots_are_so_many_a_class_and_nested():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    four, eight = (Shots(k).train(labels) for k in (4, 8))
    assert np.bincount(labels[four]).tolist() == [4, 4, 4]
    assert set(four) < set(eight)
    with pytest.raises(UserError, match=r"dataset.shots: the smallest class has 20 images .got 21"):
        Shots(21).train(labels)
    assert np.bincount(labels[Shots(8).val(labels, labels)]).tolist() == [4, 4, 4]
    assert np.bincount(labels[Shots(2).val(labels, labels)]).tolist() == [2, 2, 2]
    rare = np.repeat([0, 1], [9, 1])
    assert np.bincount(rare[Shots(8).val(rare, labels)]).tolist() == [4, 1]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.lists(st.integers(0, 4), min_size=1))
def test_coops_draw_is_that_of_its_code(seed, shots, order):
    """As it is published: the module's own generator, class by class, train and then val."""
    labels, val = np.array(order), np.array(order[::-1])

    def drawn(of, count):
        chosen = []
        for label in dict.fromkeys(of.tolist()):
            items = [place for place, other in enumerate(of.tolist()) if other == label]
            chosen += random.sample(items, count) if len(items) >= count else items
        return sorted(chosen)

    random.seed(seed)
    expected = drawn(labels, shots), drawn(val, min(4, shots))
    ours = Shots(shots, "coop", seed)
    assert ours.train(labels).tolist() == expected[0]
    assert ours.val(val, labels).tolist() == expected[1]


@pytest.mark.parametrize("draw", ["nested", "coop"])
def test_shots_of_a_dataset_and_its_val(datamodule, tmp_path, draw):
    for split in ("train", "test", "val"):
        write_images(tmp_path / "f", split, count=9)
    source = ImageFolder(str(tmp_path / "f"))
    one = datamodule(source, shots=5, draw=draw)
    assert one.image_counts == {"train": 10, "test": 18, "val": 8}
    digests = [
        datamodule(source, shots=5, draw=draw, draw_seed=seed).images["train"]["digest"]
        for seed in (0, 0, 1)
    ]
    assert digests[0] == digests[1] == one.images["train"]["digest"] != digests[2]
    held = datamodule(source, shots=2, draw=draw, use_val=False, val_fraction=0.34)
    assert held.image_counts == {"train": 4, "test": 18, "val": 4}
    places = [set(held.names_of(s, np.arange(4))) for s in ("train", "val")]
    assert not places[0] & places[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": 2}, r"train_images: must be between 3 .one a class. and 100 .all. .got 2."),
        ({"images": 101}, r"train_images: must be between 3"),
        ({"images": 0.01}, r"train_images: must be between 3"),
        ({"images": 1.5}, r"train_images: must be a number of images, or a share"),
    ],
)
def test_subsets_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Subset(**options).of(np.repeat([0, 1, 2], [50, 30, 20]))


def test_a_share_is_held_out_of_every_class():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    aside = held_out(labels, 0.2, seed=0)
    assert np.bincount(labels[aside]).tolist() == [10, 6, 4]
    assert np.array_equal(aside, held_out(labels, 0.2, seed=0))
    assert not np.array_equal(aside, held_out(labels, 0.2, seed=1))


def test_of_every_class_at_least_one_is_held_out_and_one_stays():
    labels = np.repeat([0, 1, 2, 3], [40, 4, 2, 1])
    aside = held_out(labels, 0.1, seed=0)
    assert np.bincount(labels[aside], minlength=4).tolist() == [4, 1, 1, 0]
    for fraction in (0.6, 0.9, 0.999):
        most = np.bincount(labels[held_out(labels, fraction, seed=0)], minlength=4).tolist()
        assert most[1:] == [min(3, round(4 * fraction)), 1, 0]
        assert most[0] <= 39
    objects = np.array([f"{label}-{number // 2}" for number, label in enumerate(labels)])
    by_object = held_out(labels, 0.1, 0, objects)
    assert np.bincount(labels[by_object], minlength=4).tolist() == [4, 2, 0, 0]


def test_beside_few_shots_as_many_are_held_out_as_val_takes(datamodule, tmp_path):
    for split in ("train", "test"):
        write_images(tmp_path / "f", split, count=9)
    source = ImageFolder(str(tmp_path / "f"))
    for shots, val in ((1, 1), (5, 4), (7, 2), (8, 1)):  # of nine, those of train first
        data = datamodule(source, shots=shots, val_fraction=0.1)
        assert data.image_counts == {"train": 2 * shots, "test": 18, "val": 2 * val}
    with pytest.raises(UserError, match=r"leaves val without an image .*val_fraction=0 trains"):
        datamodule(source, shots=9, val_fraction=0.1)
    assert datamodule(source, shots=9).image_counts == {"train": 18, "test": 18}


def test_the_test_is_watched_on_request(datamodule):
    data = datamodule(Digits(), val_fraction=0.1, observe_test=True)
    assert data.evaluation_splits == ["test", "val"]
    assert datamodule(Digits()).evaluation_splits == []


def test_val_is_set_aside_on_request(datamodule):
    data = datamodule(Digits(), val_fraction=0.1, augmentation="paper", size=32)
    assert data.evaluation_splits == ["val"]  # and the test is not looked at
    train, val = data._caches["train"], data._caches["val"]
    assert sorted([*train.index, *val.index]) == list(range(1297))
    assert abs(len(val) - 130) <= 5
    batch = data.on_after_batch_transfer(next(iter(data.val_dataloader()[0])), 0)
    original = Digits().load().train.read(int(batch["index"][0]))
    expected = np.asarray(original.resize((32, 32), Image.Resampling.BILINEAR), np.float32) / 255
    np.testing.assert_array_equal(batch["image"][0].permute(1, 2, 0).numpy(), expected)


def test_a_val_of_the_dataset_comes_first_and_can_be_left_out(folder, datamodule):
    write_images(folder, "val", count=1)
    source = ImageFolder(str(folder))
    assert datamodule(source, val_fraction=0.4).image_counts == {"train": 6, "test": 6, "val": 2}
    assert datamodule(source, use_val=False).image_counts == {"train": 6, "test": 6}
    counts = datamodule(source, use_val=False, val_fraction=0.4).image_counts
    assert counts == {"train": 4, "test": 6, "val": 2}


def test_index_is_the_number_in_the_split(folder, datamodule):
    data = datamodule(ImageFolder(str(folder)), train_images=2)
    (batch,) = batches_of(data)
    labels = ImageFolder(str(folder)).load().train.labels
    assert batch["target"].tolist() == labels[batch["index"]].tolist()


def test_the_same_sample_is_cropped_alike_in_a_subset(folder, datamodule):
    def by_index(**options):
        data = datamodule(ImageFolder(str(folder)), augmentation="paper", **options)
        found = batches_of(data)
        return {int(i): x for batch in found for i, x in zip(batch["index"], batch["image"])}  # noqa: B905

    whole, few = by_index(), by_index(shots=1)
    assert len(few) == 2
    assert all(torch.equal(image, whole[index]) for index, image in few.items())


def test_a_val_folder_is_used_where_it_exists(folder, datamodule):
    assert datamodule(ImageFolder(str(folder))).evaluation_splits == []
    write_images(folder, "val")
    data = datamodule(ImageFolder(str(folder)), observe_test=True)
    assert data.evaluation_splits == ["test", "val"]
    assert len(data.val_dataloader()) == 2


def test_a_broken_image_is_named(folder, datamodule):
    broken = folder / "train/dog/1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(UserError) as error:
        datamodule(ImageFolder(str(folder)))
    (line,) = error.value.problems
    assert line.startswith(f"imagefolder/train[4] {broken}: is no readable image")


def test_a_changed_image_is_decoded_again(folder, datamodule):
    before = datamodule(ImageFolder(str(folder)))._caches["train"].images[0].copy()
    Image.new("RGB", (5, 5)).save(folder / "train/cat/0.png")
    after = datamodule(ImageFolder(str(folder)))._caches["train"].images[0]
    assert before.any()
    assert not after.any()


def test_a_missing_folder_says_where_images_belong(tmp_path):
    with pytest.raises(UserError) as error:
        ImageFolder(str(tmp_path)).load()
    assert len(error.value.problems) == 2
    assert f"Images belong in {tmp_path}/train/<class>/*.jpg" in error.value.problems[0]
    with pytest.raises(UserError, match=r"dataset.source.root: is not set"):
        ImageFolder(None)


def test_a_class_without_images_is_refused(folder, datamodule):
    for file in (folder / "train/dog").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"imagefolder/train: has classes without images .*dog"):
        datamodule(ImageFolder(str(folder)))


def test_a_test_class_without_training_is_refused(folder, datamodule):
    write_images(folder, "test", classes=("horse",))
    with pytest.raises(UserError, match=r"classes that the training folder lacks .*horse"):
        datamodule(ImageFolder(str(folder)))


def test_a_batch_larger_than_the_training_set_is_refused(datamodule):
    with pytest.raises(UserError, match=r"dataset.batch_size: is larger than the 1297 training"):
        datamodule(Digits(), batch_size=2000)
