"""Images of the user's own: a folder, a zip, an array."""

import io
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from sinkdiv.generative.errors import InputError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
_GREY_MODES = {"1", "L", "LA"}

Labelled = tuple[np.ndarray, np.ndarray | None]


def read_folder(folder: Path) -> Labelled:
    """Every image below `folder`: (n, c, h, w) in [0, 1], and labels where images lie in class folders."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in paths]
    return _read_all(
        str(folder), [name for name in names if _is_image(name)], lambda name: (folder / name).read_bytes()
    )


def read_zip(path: Path) -> Labelled:
    """Every image in the zip at `path`, like `read_folder`."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist() if _is_image(name))
            return _read_all(str(path), names, archive.read)
    # RuntimeError and NotImplementedError: encrypted, or compressed in a way the interpreter lacks.
    except (zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise InputError(f"--data {path}: broken zip ({error})") from error


def read_array(path: Path) -> Labelled:
    """Images in a `.npy`, or in a `.npz` under `images` (labels under `labels`).

    Shapes (n, h, w), (n, h, w, 1) or (n, h, w, 3); bytes, or floats in [0, 1].
    """
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            images, labels = content, None
        elif "images" in content:
            images, labels = content["images"], content.get("labels")
        else:
            raise InputError(f"--data {path}: no array called images; found {', '.join(content.files) or 'none'}")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"--data {path}: not an array that can be read without pickle") from error
    return _checked(path, images), _checked_labels(path, labels, len(images))


def _checked(path: Path, images: np.ndarray) -> np.ndarray:
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise InputError(f"--data {path}: shape {images.shape}; expected (n, h, w), (n, h, w, 1) or (n, h, w, 3)")
    if images.dtype == np.uint8:
        images = images.astype(np.float32) / 255
    elif images.dtype.kind not in "fb":
        raise InputError(f"--data {path}: dtype {images.dtype}; expected uint8, or floats in [0, 1]")
    if not np.all((images >= 0) & (images <= 1)):
        raise InputError(f"--data {path}: values outside [0, 1] or NaN")
    return images.transpose(0, 3, 1, 2)


def _checked_labels(path: Path, labels: np.ndarray | None, count: int) -> np.ndarray | None:
    if labels is not None and (labels.shape != (count,) or labels.dtype.kind not in "iu"):
        raise InputError(f"--data {path}: labels {labels.shape} of {labels.dtype}; expected {count} integers")
    return labels


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def _read_all(source: str, names: Sequence[str], read: Callable[[str], bytes]) -> Labelled:
    images: list[np.ndarray] = []
    classes: list[str] = []
    first = ""
    for name in names:
        image = _decode(source, name, read(name))
        if images and image.shape[:2] != images[0].shape[:2]:
            raise InputError(f"--data {source}: mixed sizes: {first} is {_size(images[0])}, {name} is {_size(image)}")
        first = first or name
        images.append(image)
        classes.append(PurePosixPath(name).parent.name)
    if not images:
        raise InputError(f"--data {source}: no images in it ({', '.join(sorted(SUFFIXES))})")
    if any(image.shape[2] == 3 for image in images):
        images = [np.broadcast_to(image, (*image.shape[:2], 3)) for image in images]
    known = sorted(set(classes))
    # One folder tells nothing apart.
    labels = np.array([known.index(name) for name in classes]) if len(known) > 1 else None
    return (np.stack(images).astype(np.float32) / 255).transpose(0, 3, 1, 2), labels


def _decode(source: str, name: str, content: bytes) -> np.ndarray:
    """(h, w, 1) or (h, w, 3) bytes."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            pixels = np.asarray(image.convert("L" if image.mode in _GREY_MODES else "RGB"))
    # Pillow's decoders raise SyntaxError and ValueError too, on truncated headers and chunks.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"--data {source}: broken image {name}") from error
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}×{image.shape[0]}"
