"""Downloads: through torchvision from a server of our own, whole and checked or not at all.

The files are as large as the published ones (the readers insist) but empty, so they pack to little.
"""

from __future__ import annotations

import gzip
import hashlib
import http.server
import json
import pickle
import struct
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpm_lite import _torchvision, data
from ddpm_lite.cli import main
from ddpm_lite.data import DataError, load

vision = pytest.importorskip("PIL") and data.import_torchvision()


def idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What lies on the server: MNIST's four files, and CIFAR-10's archive."""
    folder = tmp_path_factory.mktemp("published")
    for stem, n in (("train", 60_000), ("t10k", 10_000)):
        x, y = np.zeros((n, 28, 28), np.uint8), np.arange(n, dtype=np.uint8) % 10
        x[:, 14, 14] = y
        for name, array in (("images-idx3", x), ("labels-idx1", y)):
            packed = gzip.compress(idx(array), 1)
            (folder / f"{stem}-{name}-ubyte.gz").write_bytes(packed)
    batches = folder / "cifar-10-batches-py"
    batches.mkdir()
    labels = (np.arange(10_000) % 10).tolist()
    pixels = np.zeros((10_000, 3072), np.uint8)
    # the published pickles are Python 2's: their keys read as text or as bytes, as one asks for
    keys = {"data": pixels, "labels": labels, b"data": pixels, b"labels": labels}
    batch = pickle.dumps(keys, 2)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (batches / name).write_bytes(batch)
    (batches / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}, 2))
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.add(batches, batches.name)
    return folder


class Server(http.server.ThreadingHTTPServer):
    spoil: Callable[[str, bytes], bytes | None]
    folder: Path
    asked: list[str]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self.headers["Method"] == "HEAD":  # torchvision's way to look for a redirection
            return self.answer(b"", 0)
        name = self.path.rpartition("/")[2]
        self.server.asked.append(name)
        whole = (self.server.folder / name).read_bytes()
        body = self.server.spoil(name, whole)
        cut = body is not None and whole.startswith(body)  # a connection that breaks off
        return self.answer(body, len(whole if cut else body or b""))

    def answer(self, body: bytes | None, length: int) -> None:
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(published: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """torchvision's addresses and checksums lead here; `spoil` may change what is sent."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    found = Server(("127.0.0.1", 0), Handler)
    found.folder, found.spoil, found.asked = published, lambda _, body: body, []
    threading.Thread(target=found.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{found.server_port}"
    for name in ("MNIST", "FashionMNIST"):
        sets = getattr(vision.datasets, name)
        monkeypatch.setattr(sets, "mirrors", [f"{address}/"])
        files = [file for file, _ in sets.resources]
        monkeypatch.setattr(sets, "resources", [(f, md5(published / f)) for f in files])
    cifar, batches = vision.datasets.CIFAR10, published / "cifar-10-batches-py"
    monkeypatch.setattr(cifar, "url", f"{address}/cifar-10-python.tar.gz")
    monkeypatch.setattr(cifar, "tgz_md5", md5(published / "cifar-10-python.tar.gz"))
    for half in ("train_list", "test_list"):
        files = [file for file, _ in getattr(cifar, half)]
        monkeypatch.setattr(cifar, half, [[f, md5(batches / f)] for f in files])
    meta = cifar.meta | {"md5": md5(batches / "batches.meta")}
    monkeypatch.setattr(cifar, "meta", meta)
    yield found
    found.shutdown()
    found.server_close()


def tree(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


@pytest.mark.parametrize(
    ("name", "folder", "requests"),
    [
        ("mnist", "MNIST/raw", 4),
        ("fashion_mnist", "FashionMNIST/raw", 4),
        ("cifar10", "cifar-10-batches-py", 1),
    ],
)
def test_a_download_happens_when_asked_once_and_leaves_the_data_alone(
    name: str,
    folder: str,
    requests: int,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DDPM_LITE_DATA", str(tmp_path))
    monkeypatch.setattr(data, "_DEBIAN", tmp_path / "none")
    with pytest.raises(DataError, match=r"download=True \(--download\) to fetch it"):
        load(name, "test")
    assert server.asked == [] and tree(tmp_path) == set()
    images = load(name, "test", download=True)
    assert len(images) == 10_000
    if name.endswith("mnist"):
        assert (images.x[:, 0, 14, 14] == images.y).all()
    assert len(server.asked) == requests
    assert len(load(name, "valid", download=True)) == 2_000 and len(server.asked) == requests
    first = folder.split("/")[0]
    assert {path.split("/")[0] for path in tree(tmp_path)} == {first}  # nothing is left aside
    printed = capsys.readouterr()
    assert printed.out == "" and "100%" in printed.err  # the bar


def spoil_one(change: Callable[[bytes], bytes | None]) -> Callable[[str, bytes], bytes | None]:
    """The third file is wrong: two were already there when it went wrong."""
    names = ("t10k-images-idx3-ubyte.gz", "cifar-10-python.tar.gz")
    return lambda name, body: change(body) if name in names else body


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("mnist", lambda body: body[:-9] + bytes(9), "corrupted"),
        ("mnist", lambda body: body[: len(body) // 2], "could not download"),
        ("mnist", lambda body: b"<html>moved</html>", "corrupted"),
        ("mnist", lambda body: None, "404"),
        ("cifar10", lambda body: body[:-9] + bytes(9), "corrupted"),
    ],
    ids=["another checksum", "half of it", "a page", "404", "another archive"],
)
def test_what_is_not_the_published_file_is_not_kept(
    name: str, change: Any, says: str, server: Server, tmp_path: Path
) -> None:
    server.spoil = spoil_one(change)
    with pytest.raises(DataError, match=r"could not download .* nothing was kept") as caught:
        load(name, "test", root=tmp_path, download=True)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert tree(tmp_path) == set()
    server.spoil = lambda _, body: body  # the next try finds a clean table
    if name == "mnist":
        assert len(load(name, "test", root=tmp_path, download=True)) == 10_000


def test_no_server(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(DataError, match=r"could not download MNIST.*refused") as caught:
        load("mnist", root=tmp_path, download=True)
    assert "\n" not in str(caught.value) and tree(tmp_path) == set()


def test_ctrl_c_in_the_middle(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    reached = []

    class Interrupted:  # what the user's Ctrl-C does between two files
        def __init__(self, root: str, train: bool, download: bool) -> None:
            (Path(root) / "MNIST" / "raw").mkdir(parents=True)
            (Path(root) / "MNIST" / "raw" / "half").write_bytes(b"half")
            reached.append(root)
            raise KeyboardInterrupt

    monkeypatch.setattr(vision.datasets, "MNIST", Interrupted)
    out = tmp_path / "m.safetensors"
    argv = ["train", "marginal", "--data", "mnist", "--root", str(tmp_path), "--download"]
    assert main([*argv, "--out", str(out)]) == 130
    assert reached and tree(tmp_path) == set()


def test_files_that_are_there_are_never_touched(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / "t10k-images-idx3-ubyte").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"to download it, remove .*MNIST/raw first"):
        load("mnist", "test", root=tmp_path, download=True)
    assert server.asked == [] and (folder / "t10k-images-idx3-ubyte").read_bytes() == b"mine"


def test_without_torchvision_or_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError

    monkeypatch.setattr(_torchvision, "import_torchvision", missing)
    with pytest.raises(DataError, match="pip install torchvision"):
        load("mnist", root=tmp_path, download=True)
    monkeypatch.delenv("DDPM_LITE_DATA", raising=False)
    with pytest.raises(DataError, match="where should cifar10 go"):
        load("cifar10", download=True)


def test_on_the_command_line(server: Server, tmp_path: Path, capsys: Any) -> None:
    out, root = tmp_path / "m.safetensors", tmp_path / "data"
    argv = ["train", "marginal", "--data", "mnist", "--size", "7", "--root", str(root)]
    argv += ["--steps", "1", "--batch", "4", "--valid-images", "4", "--out", str(out)]
    assert main(argv) == 2
    assert "--download" in capsys.readouterr().err and not root.exists()
    server.spoil = spoil_one(lambda body: body[:-1])
    assert main([*argv, "--download"]) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("ddpm-lite: could not download MNIST") and not out.exists()
    server.spoil = lambda _, body: body
    assert main([*argv, "--download"]) == 0 and (root / "MNIST" / "raw").is_dir()

    elsewhere = tmp_path / "elsewhere"
    judge = ["evaluate", "--model", str(out), "--root", str(elsewhere), "--images", "4", "--n", "0"]
    assert main(judge) == 2
    capsys.readouterr()
    assert main([*judge, "--download", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["likelihood"]["n"] == 4
    assert (elsewhere / "MNIST" / "raw").is_dir()
