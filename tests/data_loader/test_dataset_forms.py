"""Which of a data set's two ways of reading is used."""

import numpy as np

from data_loader.dataloader import DataLoader, IdxImages
from data_loader.sampling import read_labels
from tests.helpers.project import TRAIN_EXAMPLES


class Even(IdxImages):
    """Says whether a digit is even."""

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return 255 - image, np.int32(label % 2 == 0)


class Both(Even):
    """Also reads whole batches."""

    def __getitems__(self, indices):
        images, labels = super().__getitems__(indices)
        return images, labels % 2


class Outside:
    """Passes everything on."""

    def __init__(self, dataset):
        self._dataset = dataset

    def __len__(self):
        return len(self._dataset)

    def __getattr__(self, name):
        return getattr(self._dataset, name)


def test_an_item_of_ones_own_is_read_though_the_base_class_reads_whole_batches(mnist):
    dataset, plain = Even(str(mnist), "train"), IdxImages(str(mnist), "train")
    batch = DataLoader(dataset, 16).read(np.arange(16))
    np.testing.assert_array_equal(batch["inputs"], 255 - plain.images[:16])
    np.testing.assert_array_equal(batch["targets"], plain.labels[:16] % 2 == 0)
    assert not DataLoader(dataset, 16).whole_batches


def test_whole_batches_are_read_where_they_are_the_latest_word(mnist):
    plain = IdxImages(str(mnist), "train")
    for dataset in (plain, Outside(plain), Both(str(mnist), "train")):
        assert DataLoader(dataset, 16).whole_batches
    batch = DataLoader(Both(str(mnist), "train"), 16).read(np.arange(16))
    np.testing.assert_array_equal(batch["targets"], plain.labels[:16] % 2)
    assert len(read_labels(plain)) == TRAIN_EXAMPLES
