"""The client of a lake's store, with the pointers that it has read and local copies of files."""

from __future__ import annotations

import atexit
import glob
import hashlib
import shutil
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from uuid import uuid4

from finops_dagster.billing.errors import BillError
from finops_dagster.lake.pointer import Pointer
from finops_dagster.object_stores import ObjectMissing, WritableStore, open_store
from finops_dagster.object_stores.settings import StoreSettings, split_source

# The files that one stage reads: a bill, the bill that completes it, its charges, and others that
# these are compared with.
_COPIES = 4
_SECONDS_OF_A_DAY = 86_400


class StoreClient:
    """Reads pointers and files of a lake's store, and remembers them; connects at first use.

    `scratch` is a folder on this machine for copies of files, which are deleted when the process
    ends. It is created at first use. Of each month, `keep_versions` replaced files are kept.
    """

    def __init__(self, settings: StoreSettings, scratch: Path, keep_versions: int = 0) -> None:
        self.prefix = split_source(settings.source)[1]
        self.location = settings.source.rstrip("/")
        self.keep_versions = keep_versions
        self._settings, self._scratch = settings, scratch
        self._pointers: dict[str, tuple[str, Pointer | None]] = {}
        self._copies: OrderedDict[str, Path] = OrderedDict()
        self.etags_at_start: dict[str, tuple[str, str | None]] = {}
        """By the key of a pointer: a run's id, and the pointer's ETag when that run began.

        The ETag is None if there was no pointer.
        """

    @cached_property
    def store(self) -> WritableStore:
        """The store of the lake; nothing is sent. Raises as `open_store`."""
        return open_store(self._settings)[0]

    @cached_property
    def _folder(self) -> Path:
        self._scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(mkdtemp(dir=self._scratch)).resolve()
        # At the end of the process, not of this object: callers may keep only the path of a copy.
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return folder

    def abandoned_copies(self, name: str) -> list[Path]:
        """Return copies that a killed process has left: those older than a day, sorted by path.

        Only copies of files with a name in the lake that begins with `name`, or has it after a
        hyphen.
        """
        yesterday = time.time() - _SECONDS_OF_A_DAY
        copies = self._scratch.glob(f"*/*-{glob.escape(name)}*")
        return sorted(path for path in copies if path.stat().st_mtime < yesterday)

    def read_pointer(self, key: str) -> tuple[Pointer | None, str | None]:
        """Return a pointer and its ETag, as they are in the store now, by one small request.

        The pointer alone is None if it is damaged; both are None if it does not exist.
        """
        known_etag, pointer = self._pointers.get(key, ("", None))
        try:
            changed = self.store.read(key, known_etag=known_etag)
        except ObjectMissing:
            self._pointers.pop(key, None)
            return None, None
        if changed is None:
            return pointer, known_etag
        content, info = changed
        pointer = Pointer.from_json(content)
        self._pointers[key] = info.etag, pointer
        return pointer, info.etag

    @contextmanager
    def temporary_file(self, key: str) -> Iterator[Path]:
        """Give the block a path for a copy of this object, and delete the copy after the block.

        The block creates the file, and may move it away. Each call has another path.
        """
        path = self._path(key)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        # Two processes, or two loads of a month, have files of the same name.
        return self._folder / f"{uuid4().hex[:8]}-{key.rpartition('/')[2]}"

    def cache_copy(self, key: str, path: Path) -> None:
        """Move the file at `path` to where `local_copy` finds it as the copy of an object.

        The four copies that were used last are kept; all others are deleted.
        """
        copy = self._path(key)
        path.replace(copy)
        self._copies[key] = copy
        while len(self._copies) > _COPIES:
            self._copies.popitem(last=False)[1].unlink(missing_ok=True)

    def local_copy(self, key: str, pointer: Pointer) -> Path:
        """Return the path of a local copy of an object; download it if there is none.

        Read the file soon, and do not change it: a later call may delete it. Raises BillError if
        the bytes of the object are not those that the pointer records, and ObjectMissing if it is
        gone.
        """
        if key not in self._copies:
            with self.temporary_file(key) as path:
                if self._download(key, path) != pointer.sha256:
                    raise BillError(
                        f"{self.store.location(key)} is damaged: it does not have the checksum of "
                        "its record; run finops state verify --deep --repair"
                    )
                self.cache_copy(key, path)
        self._copies.move_to_end(key)
        return self._copies[key]

    def _download(self, key: str, path: Path) -> str:
        """Download an object, and return the SHA-256 of its bytes."""
        checksum = hashlib.sha256()
        with path.open("wb") as file:
            for chunk in self.store.read_chunks(self.store.head(key)):
                checksum.update(chunk)
                file.write(chunk)
        return checksum.hexdigest()

    def has_copy(self, key: str) -> bool:
        """Return whether `local_copy` would download nothing."""
        return key in self._copies

    def matches_upload(self, key: str, pointer: Pointer) -> bool | None:
        """Return whether an object has the size and the ETag of its upload, and so its bytes.

        One HEAD request. False if it is missing or has another size. None if the ETag alone
        differs, as in a copied bucket: then only the bytes tell.
        """
        try:
            info = self.store.head(key)
        except ObjectMissing:
            return False
        if info.size == pointer.size and info.etag != pointer.etag:
            return None
        return info.size == pointer.size

    def is_intact(self, key: str, pointer: Pointer) -> bool:
        """Return whether an object has the bytes that its pointer records.

        False if it is missing. It is downloaded only if `matches_upload` returns None.
        """
        matches_upload = self.matches_upload(key, pointer)
        if matches_upload is not None:
            return matches_upload
        with self.temporary_file(key) as path:
            return self._download(key, path) == pointer.sha256
