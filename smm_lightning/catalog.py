"""The facts of the paper's datasets, a row each (Table 6), and where their files come from.

Plain data: no torch, so that configuration and reports can read it, too.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class CoOpLayout:
    """A dataset whose split is CoOp's: a JSON file over the images of a folder.

    Args:
        split: name of the JSON file.
        split_id: of the JSON file on Google Drive (CoOp, DATASETS.md).
        folders: that may hold the images, below the data root: CoOp's first, then torchvision's.
    """

    split: str
    split_id: str
    folders: tuple[str, ...]

    @property
    def split_url(self) -> str:
        """Where to fetch the split by hand."""
        return f"https://drive.google.com/file/d/{self.split_id}/view"


@dataclass(frozen=True)
class Facts:
    """One row.

    Args:
        name: of the choice in ``conf/dataset``.
        classes: number of them.
        train: training images in Table 6.
        test: test images in Table 6.
        native_size: side of the images that the pad method gets, in pixels.
        batch_size: of the paper.
        images: where the images come from.
        citation: whom to cite.
        torchvision: the class of ``torchvision.datasets`` that downloads them, if one can.
        coop: the split of CoOp, where the paper uses it.
    """

    name: str
    classes: int
    train: int
    test: int
    native_size: int
    batch_size: int
    images: str
    citation: str
    torchvision: str | None = None
    coop: CoOpLayout | None = None


_ROWS = (
    Facts(
        name="cifar10",
        classes=10,
        train=50_000,
        test=10_000,
        native_size=32,
        batch_size=256,
        images="https://www.cs.toronto.edu/~kriz/cifar.html",
        citation="Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        torchvision="CIFAR10",
    ),
    Facts(
        name="cifar100",
        classes=100,
        train=50_000,
        test=10_000,
        native_size=32,
        batch_size=256,
        images="https://www.cs.toronto.edu/~kriz/cifar.html",
        citation="Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        torchvision="CIFAR100",
    ),
    Facts(
        name="svhn",
        classes=10,
        train=73_257,
        test=26_032,
        native_size=32,
        batch_size=256,
        images="http://ufldl.stanford.edu/housenumbers/",
        citation="Netzer et al., Reading Digits in Natural Images, NIPS workshop 2011",
        torchvision="SVHN",
    ),
    Facts(
        name="gtsrb",
        classes=43,
        train=39_209,
        test=12_630,
        native_size=32,
        batch_size=256,
        images="https://benchmark.ini.rub.de/",
        citation="Stallkamp et al., Man vs. computer: Benchmarking, Neural Networks 2012",
        torchvision="GTSRB",
    ),
    Facts(
        name="flowers102",
        classes=102,
        train=4_093,
        test=2_463,
        native_size=128,
        batch_size=256,
        images="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
        citation="Nilsback and Zisserman, Automated Flower Classification, ICVGIP 2008",
        torchvision="Flowers102",
        coop=CoOpLayout(
            split="split_zhou_OxfordFlowers.json",
            split_id="1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT",
            folders=("oxford_flowers/jpg", "flowers-102/jpg"),
        ),
    ),
    Facts(
        name="dtd",
        classes=47,
        train=2_820,
        test=1_692,
        native_size=128,
        batch_size=64,
        images="https://www.robots.ox.ac.uk/~vgg/data/dtd/",
        citation="Cimpoi et al., Describing Textures in the Wild, CVPR 2014",
        torchvision="DTD",
        coop=CoOpLayout(
            split="split_zhou_DescribableTextures.json",
            split_id="1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x",
            folders=("dtd/images", "dtd/dtd/images"),
        ),
    ),
    Facts(
        name="ucf101",
        classes=101,
        train=7_639,
        test=3_783,
        native_size=128,
        batch_size=256,
        images="https://drive.google.com/file/d/10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O/view "
        "(middle frames; or extract them: prepare ucf101 --videos <folder of the .avi files>)",
        citation="Soomro et al., UCF101: 101 Human Action Classes, 2012",
        coop=CoOpLayout(
            split="split_zhou_UCF101.json",
            split_id="1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y",
            folders=("ucf101/UCF-101-midframes",),
        ),
    ),
    Facts(
        name="food101",
        classes=101,
        train=50_500,
        test=30_300,
        native_size=128,
        batch_size=256,
        images="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        citation="Bossard et al., Food-101, ECCV 2014",
        torchvision="Food101",
        coop=CoOpLayout(
            split="split_zhou_Food101.json",
            split_id="1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl",
            folders=("food-101/images",),
        ),
    ),
    Facts(
        name="sun397",
        classes=397,
        train=15_888,  # CoOp's own code gives 15,880
        test=19_850,
        native_size=128,
        batch_size=256,
        images="http://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz (link dead; mirrors)",
        citation="Xiao et al., SUN database, CVPR 2010",
        coop=CoOpLayout(
            split="split_zhou_SUN397.json",
            split_id="1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq",
            folders=("sun397/SUN397", "SUN397"),
        ),
    ),
    Facts(
        name="eurosat",
        classes=10,
        train=13_500,
        test=8_100,
        native_size=128,
        batch_size=256,
        images="https://github.com/phelber/EuroSAT (EuroSAT.zip, RGB)",
        citation="Helber et al., EuroSAT, IEEE JSTARS 2019",
        torchvision="EuroSAT",
        coop=CoOpLayout(
            split="split_zhou_EuroSAT.json",
            split_id="1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o",
            folders=("eurosat/2750",),
        ),
    ),
    Facts(
        name="oxfordpets",
        classes=37,
        train=2_944,
        test=3_669,
        native_size=128,
        batch_size=64,
        images="https://www.robots.ox.ac.uk/~vgg/data/pets/data/images.tar.gz",
        citation="Parkhi et al., Cats and Dogs, CVPR 2012",
        torchvision="OxfordIIITPet",
        coop=CoOpLayout(
            split="split_zhou_OxfordPets.json",
            split_id="1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs",
            folders=("oxford_pets/images", "oxford-iiit-pet/images"),
        ),
    ),
    Facts(
        name="stanfordcars",
        classes=196,
        train=6_509,
        test=8_041,
        native_size=128,
        batch_size=256,
        images="http://ai.stanford.edu/~jkrause/car196/cars_train.tgz and cars_test.tgz "
        "(links dead since 2023; mirrors)",
        citation="Krause et al., 3D Object Representations, ICCV workshop 2013",
        coop=CoOpLayout(
            split="split_zhou_StanfordCars.json",
            split_id="1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT",
            folders=("stanford_cars",),
        ),
    ),
)

CATALOG = {row.name: row for row in _ROWS}


def fact(name: str, field: str) -> object:
    """A cell of the table, for ``${fact:<dataset>,<field>}`` in configuration files."""
    return getattr(CATALOG[name], field)
