"""Fetch the browser libraries the book serves itself, at the versions and checksums it pins.

`versions.json` is the one list: package, version, licence, checksum of the npm archive, the
checksum of each file copied out of it, and of a licence that the archive does not hold (`also`).
Reading or building the book needs none of this: the files are committed.

    python book/_tools/vendor.py            fetch again (needs npm) and compare
    python book/_tools/vendor.py --check    compare the committed files with the list, offline
    python book/_tools/vendor.py --update   after changing a version: fetch and rewrite checksums
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

VENDOR = Path(__file__).resolve().parents[1] / "_static" / "vendor"
LIST = VENDOR / "versions.json"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def fetch(package: str, version: str) -> bytes:
    """The archive npm publishes for this version."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", f"{package}@{version}"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return next(Path(folder).glob("*.tgz")).read_bytes()


def unpack(archive: bytes, entry: dict[str, Any]) -> dict[str, bytes]:
    """Files of the archive that the entry wants, under the names they get in the vendor folder."""
    found: dict[str, bytes] = {}
    with tempfile.TemporaryFile() as file:
        file.write(archive)
        file.seek(0)
        with tarfile.open(fileobj=file) as tar:
            for member in tar.getmembers():
                inside = member.name.removeprefix("package/")
                for pattern, folder in entry["take"].items():
                    if member.isfile() and fnmatch.fnmatch(inside, pattern):
                        handle = tar.extractfile(member)
                        assert handle is not None
                        found[f"{folder}{Path(inside).name}"] = handle.read()
    return found


def problems(entries: list[dict[str, Any]]) -> list[str]:
    """What differs between the committed files and the list."""
    wrong, listed = [], {LIST.relative_to(VENDOR).as_posix()}
    for entry in entries:
        for name, expected in (entry["files"] | entry.get("also", {})).items():
            listed.add(name)
            path = VENDOR / name
            if not path.is_file():
                wrong.append(f"{name}: missing")
            elif sha256(path.read_bytes()) != expected:
                wrong.append(f"{name}: differs from its checksum")
    present = {p.relative_to(VENDOR).as_posix() for p in VENDOR.rglob("*") if p.is_file()}
    return wrong + [f"{name}: not in versions.json" for name in sorted(present - listed)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare the committed files, offline")
    parser.add_argument("--update", action="store_true", help="rewrite the checksums")
    options = parser.parse_args()
    entries = json.loads(LIST.read_text())
    if not options.check:
        for entry in entries:
            archive = fetch(entry["package"], entry["version"])
            if not options.update and sha256(archive) != entry["sha256"]:
                print(f"{entry['package']}: the archive differs from its checksum", file=sys.stderr)
                return 1
            files = unpack(archive, entry)
            for name, data in files.items():
                (VENDOR / name).parent.mkdir(parents=True, exist_ok=True)
                (VENDOR / name).write_bytes(data)
            if options.update:
                entry["sha256"] = sha256(archive)
                entry["files"] = {name: sha256(files[name]) for name in sorted(files)}
        if options.update:
            LIST.write_text(json.dumps(entries, indent=2) + "\n")
    wrong = problems(entries)
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
