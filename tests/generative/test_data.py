"""Images by name, from folders, zips, arrays and IDX files, and the batches made of them."""

import gzip
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sinkdiv.generative.data import load_images, training_loader
from sinkdiv.generative.errors import InputError


def test_an_epoch_visits_every_image_once_in_an_order_of_its_own() -> None:
    loader = training_loader(load_images("digits"), 77, seed=0)
    orders = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        orders.append(torch.cat(list(loader.sampler)))
    assert all(len(order.unique()) == len(order) == 1617 // 77 * 77 for order in orders)
    assert not torch.equal(orders[0], orders[1])


def test_digits_split_is_fixed_and_disjoint() -> None:
    images = load_images("digits")
    assert images.train.shape == (1617, 64)
    assert images.held_out.shape == (180, 64)
    assert images.train.min() == 0
    assert images.train.max() == 1
    # digits holds no image twice, so shared rows would be a leak.
    assert len(torch.cat([images.train, images.held_out]).unique(dim=0)) == 1797
    assert load_images("digits").fingerprint == images.fingerprint


def _picture(size: tuple[int, int] = (6, 4), value: int = 0, mode: str = "L", kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, value if mode == "L" else (value, 0, 255)).save(buffer, format=kind)
    return buffer.getvalue()


def _fill(folder: Path, **files: bytes) -> Path:
    for index in range(30):
        path = folder / f"class{index % 2}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_picture(value=8 * index))
    (folder / "notes.txt").write_text("not an image")
    for name, content in files.items():
        (folder / f"{name}.png").write_bytes(content)
    return folder


def test_folder_and_zip_of_class_folders_are_the_same_images(tmp_path: Path) -> None:
    folder = _fill(tmp_path / "pictures")
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        for path in folder.rglob("*"):
            archive.write(path, path.relative_to(folder))
    from_folder, from_zip = load_images(str(folder)), load_images(str(tmp_path / "pictures.zip"))
    assert from_folder.fingerprint == from_zip.fingerprint
    assert from_folder.shape == (1, 4, 6)
    assert from_folder.train_labels is not None
    # Image i is the grey 8i and lies in class i mod 2.
    greys = (from_folder.train[:, 0] * 255).round().long() // 8
    assert torch.equal(greys % 2, from_folder.train_labels)


def test_one_colour_image_makes_all_of_them_colour(tmp_path: Path) -> None:
    images = load_images(str(_fill(tmp_path, colour=_picture(value=255, mode="RGB"))))
    assert images.shape == (3, 4, 6)
    everything = torch.cat([images.train, images.held_out]).reshape(-1, 3, 24)
    assert sum(not torch.equal(image[0], image[1]) for image in everything) == 1


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"zz": b"not an image"}, "broken image zz.png"),
        ({"zz": _picture(kind="JPEG")[:200]}, "broken image zz.png"),
        ({"zz": _picture((5, 5))}, "mixed sizes: .* is 6×4, zz.png is 5×5"),
    ],
)
def test_bad_image_is_named(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_images(str(_fill(tmp_path, **files)))


def test_sources_without_images_say_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.zip").write_bytes(b"PK not a zip")
    (tmp_path / "bad.npy").write_bytes(b"not an array")
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "few.npy", np.zeros((3, 4, 4)))
    np.save(tmp_path / "large.npy", np.full((30, 4, 4), 2.0))
    np.save(tmp_path / "flat.npy", np.zeros((30, 16)))
    np.savez(tmp_path / "unnamed.npz", other=np.zeros((30, 4, 4)))
    for name, message in {
        "empty": "no images",
        "bad.zip": "broken zip",
        "bad.npy": "not an array",
        "objects.npy": "not an array",
        "few.npy": "3 images",
        "large.npy": "outside",
        "flat.npy": "shape",
        "unnamed.npz": "found other",
        "absent": "neither a known name",
    }.items():
        with pytest.raises(InputError, match=message):
            load_images(str(tmp_path / name))


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_arrays_of_bytes_and_of_floats_agree(tmp_path: Path, channels: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 5, 4, *channels), dtype=np.uint8)
    np.save(tmp_path / "bytes.npy", pixels)
    np.savez(tmp_path / "floats.npz", images=pixels / 255.0, labels=np.arange(40))
    from_bytes, from_floats = load_images(str(tmp_path / "bytes.npy")), load_images(str(tmp_path / "floats.npz"))
    assert from_bytes.shape == (channels[0] if channels else 1, 5, 4)
    torch.testing.assert_close(from_bytes.train, from_floats.train)
    assert from_floats.train_labels is not None
    row, label = from_floats.train[0], int(from_floats.train_labels[0])
    expected = pixels[label].reshape(5, 4, -1).transpose(2, 0, 1).reshape(-1) / 255
    np.testing.assert_allclose(row.numpy(), expected, rtol=1e-6)


def _idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def _idx_folder(folder: Path) -> None:
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    labels = np.arange(40, dtype=np.uint8) % 10
    (folder / "train-images-idx3-ubyte").write_bytes(_idx(pixels[:30]))
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(_idx(labels[:30])))
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(_idx(pixels[30:])))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(_idx(labels[30:]))


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_files_keep_their_own_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    _idx_folder(tmp_path / name)
    monkeypatch.setenv("SINKDIV_DATA", str(tmp_path))
    images = load_images(name)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8).reshape(40, -1) / 255
    np.testing.assert_allclose(images.train.numpy(), pixels[:30], rtol=1e-6)
    np.testing.assert_allclose(images.held_out.numpy(), pixels[30:], rtol=1e-6)
    assert images.held_out_labels is not None
    assert images.held_out_labels.tolist() == list(range(10))


@pytest.mark.parametrize("damage", [b"", b"\x00\x00\x08\x03\x00", b"\x00\x00\x0d\x03" + bytes(40)])
def test_damaged_idx_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes) -> None:
    _idx_folder(tmp_path / "mnist")
    monkeypatch.setenv("SINKDIV_DATA", str(tmp_path))
    path = tmp_path / "mnist" / "train-images-idx3-ubyte"
    for content in (damage, _idx(np.zeros((30, 28, 28), np.uint8))[:-1]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="train-images-idx3-ubyte: not a whole IDX file"):
            load_images("mnist")


def test_a_fetch_that_fails_names_the_folder_to_fill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SINKDIV_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # A proxy that refuses connections: the fetch fails at once, wherever the test runs.
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(InputError, match=r"could not fetch .*\$SINKDIV_DATA/mnist/"):
        load_images("mnist")


def test_a_fetched_file_with_a_wrong_checksum_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pooch = pytest.importorskip("pooch")

    def download(url: str, output_file: str, pooch_object: object) -> None:
        Path(output_file).write_bytes(gzip.compress(_idx(np.zeros((30, 28, 28), np.uint8))))

    monkeypatch.delenv("SINKDIV_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path)
    monkeypatch.setattr(pooch, "HTTPDownloader", lambda **options: download)
    with pytest.raises(InputError, match="could not fetch"):
        load_images("mnist")
