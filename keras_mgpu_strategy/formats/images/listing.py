"""Which image files there are, and in which order; none is opened.

Folders come in the order of `image_dataset_from_directory(shuffle=False)` on every
machine, lists in their own. All that looks like an image is listed, unless hidden. No
link back to a folder around it is followed, no folder listed over a hundred times.
"""

import collections
import dataclasses
import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence

from keras_mgpu_strategy.system.environment import expanded

SUFFIXES = (
    *(".apng", ".bmp", ".gif", ".jfi", ".jfif", ".jif", ".jpe", ".jpeg", ".jpg"),
    *(".pjp", ".pjpeg", ".png", ".webp"),
)
"""Of files that are decoded, by their content."""

_OTHERS = (
    r"\.(arw|avifs?|cr[23]|cur|dcm|dcx|dds|dib|dng|emf|eps|exr|fits|flif|hdr|hei[cf]s?|"
    r"hif|icns|ico|ief|iff|j2[ck]|jls|jng|jp2|jp[cfmx]|jxl|jxr|mng|mpo|nef|orf|p[abgnp]m|"
    r"pcx|pef|pfm|ps[bd]|qoi|raf|ras|rgba?|rw2|sgi|srw|svgz?|tga|tiff?|wbmp|wdp|wmf|xbm|"
    r"xcf|xpm|xwd)\Z"
)
"""Of images that cannot be decoded; silently leaving them out would be wrong."""

PATTERN = rf"({'|'.join(map(re.escape, SUFFIXES))})\Z|{_OTHERS}"
"""Of the names, in lower case, of all files that look like images."""

_MOST_VISITS = 100


@dataclasses.dataclass(frozen=True, slots=True)
class ImageFiles:
    """Image files, one a row; `root` makes a name a path, and is "" for a list."""

    root: str
    names: tuple[str, ...]

    def path(self, row: int) -> str:
        """Where a file is."""
        return self.root + self.names[row]

    def encoded_paths(self, start: int, stop: int) -> list[bytes]:
        """Where the files of some rows are, as TensorFlow takes them."""
        return [os.fsencode(self.root + name) for name in self.names[start:stop]]

    def shown_names(self, start: int, stop: int) -> list[str]:
        """The names of some rows as valid Unicode, whatever the bytes on disk."""
        return [
            os.fsencode(name).decode("utf-8", "backslashreplace")
            for name in self.names[start:stop]
        ]


def find_images(
    paths: str | os.PathLike | Sequence[str | os.PathLike], must_read: bool
) -> ImageFiles:
    """Lists a folder's files, or those given; `must_read`: refuses unreadable ones."""
    if not isinstance(paths, (str, os.PathLike)):
        return _listed([expanded(path) for path in paths], must_read)
    path = expanded(paths)
    if not os.path.exists(path):
        raise FileNotFoundError(errno.ENOENT, "No such folder or image file", path)
    if not os.path.isdir(path):
        return _listed([path], must_read)
    found = _walk(path, "", frozenset(), collections.Counter())
    names = tuple(sorted(found, key=_place))
    if not names:
        raise ValueError(
            f"Received the folder {path!r}, which holds no image: expected files that "
            f"end in {', '.join(SUFFIXES)}, in it or in folders below."
        )
    others = [name for name in names if re.search(_OTHERS, name.lower())]
    if must_read and others:
        raise ValueError(
            f"The folder {path!r} holds {len(others)} images of a kind that is not "
            f"decoded, such as {others[0]!r}. Convert them to PNG or JPEG, pass a list "
            "of the other files, or pass on_bad_file='skip' to mark their rows as "
            "missing."
        )
    return ImageFiles(os.path.join(path, ""), names)


def _place(name: str) -> tuple[str, str, str]:
    """Keras' sort key: class, folder, file; each as text, "/" included."""
    folder, _, file = name.rpartition("/")
    return folder.partition("/")[0], folder, file


def _walk(
    folder: str, relative: str, around: frozenset, visits: collections.Counter
) -> Iterator[str]:
    status = os.stat(folder)
    key = (status.st_dev, status.st_ino)
    if key in around:
        return
    visits[key] += 1
    if visits[key] > _MOST_VISITS:
        raise ValueError(
            f"Links lead to the folder {folder!r} in more than {_MOST_VISITS} ways. "
            "Remove links, or pass a list of the image files."
        )
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    for entry in visible:
        # os.path follows links, and a link to itself is no error for it.
        if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
            inner = f"{relative}{entry.name}/"
            yield from _walk(entry.path, inner, around | {key}, visits)
        elif re.search(PATTERN, entry.name.lower()) and _is_file(entry):
            yield relative + entry.name


def _is_file(entry: os.DirEntry) -> bool:
    """True for files and dangling links; reading a pipe would never end."""
    if entry.is_symlink():
        return os.path.isfile(entry.path) or not os.path.exists(entry.path)
    return entry.is_file()


def _listed(names: list[str], must_read: bool) -> ImageFiles:
    if not names:
        raise ValueError("Received an empty list of image files, expected at least 1.")
    for row, name in enumerate(names):
        _check_listed(row, name, must_read)
    return ImageFiles("", tuple(names))


def _check_listed(row: int, name: str, must_read: bool) -> None:
    if "://" in name:
        raise ValueError(
            f"Received the image file {name!r} (row {row}), expected a path in the "
            "file system of this machine. Mount or copy the files."
        )
    try:
        mode = os.stat(name).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "Is a folder, not a file")
    except OSError as error:
        if not must_read:
            return
        reason = (
            f"Row {row} of the image files cannot be read: {error.strerror}. Leave it "
            "out, or pass on_bad_file='skip' to mark such rows as missing"
        )
        raise type(error)(error.errno, reason, name) from None
    if not stat.S_ISREG(mode):
        raise ValueError(
            f"Received {name!r} (row {row}), which is neither a file nor a folder."
        )
