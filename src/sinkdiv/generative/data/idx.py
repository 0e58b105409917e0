"""MNIST and Fashion-MNIST: IDX files, from the user's folder or fetched once with a checksum."""

import gzip
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sinkdiv.generative.errors import InputError


@dataclass(frozen=True)
class _Home:
    """Where a data set is published, and the MD5 of each compressed file as its publishers give it."""

    url: str
    md5: dict[str, str]


_HOMES = {
    "mnist": _Home(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        {
            "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
        },
    ),
    "fashion-mnist": _Home(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        {
            "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
}

Labelled = tuple[np.ndarray, np.ndarray]


def read_idx_dataset(name: str) -> tuple[Labelled, Labelled]:
    """((train images, labels), (test images, labels)) of `mnist` or `fashion-mnist`; images are (n, 28, 28) uint8.

    Files are looked for in `$SINKDIV_DATA/<name>/`, plain or `.gz`, then fetched into the user's cache.

    Raises:
        InputError: when a file is neither found nor fetched, or is not what its name says.
    """
    parts = {file: _read_idx(_locate(name, file)) for file in _HOMES[name].md5}
    result = []
    for part in ("train", "t10k"):
        images, labels = parts[f"{part}-images-idx3-ubyte"], parts[f"{part}-labels-idx1-ubyte"]
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise InputError(f"--data {name}: {part} images {images.shape} do not go with labels {labels.shape}")
        result.append((images, labels))
    return result[0], result[1]


def _locate(name: str, file: str) -> Path:
    if root := os.environ.get("SINKDIV_DATA"):
        for candidate in (Path(root, name, file), Path(root, name, f"{file}.gz")):
            if candidate.exists():
                return candidate
    return _fetch(name, file)


def _fetch(name: str, file: str) -> Path:
    import pooch

    home = _HOMES[name]
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        found = pooch.retrieve(
            url=f"{home.url}{file}.gz",
            known_hash=f"md5:{home.md5[file]}",
            fname=f"{file}.gz",
            path=pooch.os_cache("sinkdiv") / name,
            downloader=pooch.HTTPDownloader(timeout=30),
        )
    # requests' exceptions are OSErrors; pooch raises ValueError on a wrong checksum.
    except (OSError, ValueError) as error:
        raise InputError(
            f"--data {name}: could not fetch {home.url}{file}.gz ({type(error).__name__}); "
            f"put the IDX files into $SINKDIV_DATA/{name}/ instead"
        ) from error
    finally:
        logger.setLevel(level)
    return Path(found)


def _read_idx(path: Path) -> np.ndarray:
    """An IDX file of unsigned bytes: two zero bytes, 0x08, the number of axes, big-endian sizes, the values."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not readable ({type(error).__name__})") from error
    axes = raw[3] if len(raw) > 3 and raw[:3] == b"\x00\x00\x08" else 0
    sizes = np.frombuffer(raw, ">u4", count=axes, offset=4) if len(raw) >= 4 + 4 * axes else np.zeros(0, ">u4")
    if axes == 0 or len(raw) != 4 + 4 * axes + int(np.prod(sizes, dtype=np.int64)):
        raise InputError(f"{path}: not a whole IDX file of bytes")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(sizes.astype(int))
