"""A private view of a model: each file is opened once, below its root, and read through that descriptor ever after.

Between a check of a path and its use, whoever may write to the folder can put a link to another file in its place. So a
view is made first, and everything (headers, hashes, the tokenizer, helper processes, the export) reads the view: a
folder of links to this process's open descriptors, `/proc/<pid>/fd/<n>`. The kernel takes such a link to the very file
that was opened, whatever lies at its path by then, and libraries that want a path get one. A copy would cost the disk
of a second model, a hard link wants the same file system and rights over the file.
"""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pruning_core.errors import ModelInvalid, ModelNotAllowed

CHAT_TEMPLATES = "additional_chat_templates"
MODULES = "modules.json"
MAX_FILES = 4_000
_MAX_MODULES_BYTES = 1 << 16
_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LISTED = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""Opening a named pipe must not wait for its writer."""
_PART = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.gguf", re.DOTALL)
_SPARE_DESCRIPTORS = 256
_ANYWHERE = Path("/")


@contextmanager
def view(source: Path, parent: Path, *, root: Path | None = None) -> Iterator[Path]:
    """Yield the private view of a model's folder, or of one file: of the same name, in `parent`, which goes at the end.

    It holds the regular files that lie in the folder itself, in its further chat templates and in the folders of its
    `modules.json`; of a split GGUF all parts. Hidden files are left out, and what is no file.

    Args:
        source: Folder or file, as it is named: links are followed.
        parent: Folder of the view alone; what an earlier process left there goes first.
        root: Where given, everything must lie below it, with every link followed.

    Raises:
        ModelNotAllowed: a file lies outside the root, or was changed for a link while it was opened.
        ModelInvalid: the source cannot be read.
    """
    root = root or _ANYWHERE
    target = parent / (source.name or "model")
    shutil.rmtree(parent, ignore_errors=True)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, parent, ignore_errors=True)
        parent.mkdir(parents=True)
        if source.is_dir():
            _fill(target, source, root, stack)
        else:
            for part in _parts(source):
                _link(parent / part.name, part, root, stack)
        yield target


def _parts(file: Path) -> list[Path]:
    """Return a file, or all parts of the split GGUF that it is one of."""
    split = _PART.fullmatch(file.name)
    if split is None:
        return [file]
    count = min(int(split["count"]), MAX_FILES)
    names = (f"{split['stem']}-{part:05d}-of-{split['count']}.gguf" for part in range(1, count + 1))
    return [file.with_name(name) for name in names]


def _fill(target: Path, folder: Path, root: Path, stack: ExitStack) -> None:
    names = _names(folder, root)
    _make_room(len(names))
    target.mkdir()
    for name in names:
        _link(target / name, folder / name, root, stack)
    for inner in {CHAT_TEMPLATES, *modules(target)} & set(names):
        if (folder / inner).is_dir():
            (target / inner).mkdir()
            for name in _names(folder / inner, root):
                _link(target / inner / name, folder / inner / name, root, stack)


def modules(folder: Path) -> tuple[str, ...]:
    """Return the folders that the parts of a sentence embedder lie in, by its `modules.json`."""
    try:
        with (folder / MODULES).open("rb") as file:
            parts = json.loads(file.read(_MAX_MODULES_BYTES))
        paths = [part["path"] for part in parts]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ()
    plain = [path for path in paths if isinstance(path, str) and Path(path).name == path]
    return tuple(path for path in plain if path != ".." and not path.startswith("."))


def _names(folder: Path, root: Path) -> list[str]:
    handle = _opened(folder, root, _LISTED)
    try:
        names = sorted(name for name in os.listdir(handle) if not name.startswith("."))
    finally:
        os.close(handle)
    if len(names) > MAX_FILES:
        raise ModelInvalid(
            f"{folder.name} holds {len(names)} files; a model's folder may hold {MAX_FILES}"
        )
    return names


def _link(target: Path, file: Path, root: Path, stack: ExitStack) -> None:
    """Open a file and put a link to its descriptor at `target`; nothing where it is no regular file."""
    try:
        handle = _opened(file, root, _READ)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENXIO):  # gone, or a socket
            return
        raise
    if stat.S_ISREG(os.fstat(handle).st_mode):
        stack.callback(os.close, handle)
        target.symlink_to(f"/proc/{os.getpid()}/fd/{handle}")
    else:
        os.close(handle)


def _opened(path: Path, root: Path, flags: int) -> int:
    """Open what `path` means, which must lie below `root`.

    Resolving the path only tells where to go. The way there is walked by descriptors and follows no link, so what
    was swapped meanwhile is refused.
    """
    try:
        real, top = path.resolve(), root.resolve()
    except (OSError, RuntimeError):  # a loop of links
        raise _outside(path) from None
    if not real.is_relative_to(top):
        raise _outside(path)
    try:
        return _descended(top, real.relative_to(top).parts or (".",), flags)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):  # a link where there was none
            raise ModelNotAllowed(f"{path.name} was changed while it was read") from None
        if isinstance(error, PermissionError):
            raise ModelInvalid(f"{path.name} cannot be read: {error.strerror}") from None
        raise


def _descended(top: Path, parts: Iterable[str], flags: int) -> int:
    *folders, last = parts
    handle = os.open(top, _STEP & ~os.O_NOFOLLOW)
    try:
        for name in folders:
            handle, above = os.open(name, _STEP, dir_fd=handle), handle
            os.close(above)
        return os.open(last, flags, dir_fd=handle)
    finally:
        os.close(handle)


def _outside(path: Path) -> ModelNotAllowed:
    return ModelNotAllowed(f"{path.name} links to a file outside the allowed folders")


def _make_room(count: int) -> None:
    """Raise this process's soft limit on open files, where so many more do not fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + _SPARE_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
