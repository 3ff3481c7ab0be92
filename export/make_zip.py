"""Zip files by their bare names: `python make_zip.py ARCHIVE FILE…`. The same files give the same bytes."""

import sys
import zipfile
from pathlib import Path

from convert import write_whole


def write_zip(archive, members):
    """Write `archive` from a dict of names and bytes, in order of name and with a fixed date; whole or not at all."""

    def write(path):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
            for name, content in sorted(members.items()):
                member = zipfile.ZipInfo(name, date_time=(2000, 1, 1, 0, 0, 0))
                member.compress_type, member.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                zipped.writestr(member, content)

    write_whole(Path(archive), write)


def make_zip(archive, files):
    """Write `archive` from `files` by their bare names."""
    write_zip(archive, {Path(file).name: Path(file).read_bytes() for file in files})


if __name__ == "__main__":
    make_zip(sys.argv[1], sys.argv[2:])
