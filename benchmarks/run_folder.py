"""A folder that holds one run and survives whatever stops it."""

import fcntl
import io
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gfn_envs.errors import UserError


class RunFolder:
    """`config.json` first, `metrics.jsonl` and `checkpoint.pt` along the way, `summary.json` last.

    Every file but `metrics.jsonl` is written beside its place and renamed, so none is ever half
    there; a half-written last line of `metrics.jsonl` is dropped on resuming. A folder with a
    summary is finished.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, config: dict[str, Any]) -> "RunFolder":
        """Makes a new run's folder.

        Args:
            path: A folder that does not exist yet, or is empty.
            config: What the run is; JSON types only.

        Returns:
            The folder, with its `config.json`.

        Raises:
            UserError: If the path is a file, or a folder that holds something already.
            OSError: If it cannot be written.
        """
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file; name a new folder with --out.")
        begun = ".config.json.new"  # all that there is of a run killed at its very start
        if path.exists() and any(file.name != begun for file in path.iterdir()):
            raise UserError(
                f"{path} is not empty. Name a new folder with --out, or continue the run in it "
                f"with --resume {path}."
            )
        path.mkdir(parents=True, exist_ok=True)
        folder = cls(path)
        folder.write_json("config.json", config)
        return folder

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Opens the folder of a run that was begun before.

        Raises:
            UserError: If there is no readable `config.json`.
        """
        if not path.is_dir():
            raise UserError(f"{path} is not a folder: there is no run there.")
        folder = cls(path)
        if not (path / "config.json").is_file():
            raise UserError(f"{path} is not a run folder (no config.json); nothing was changed.")
        folder.read_json("config.json")
        return folder

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end."""
        return (self.path / "summary.json").is_file()

    @contextmanager
    def locked(self, patience: float = 0.0) -> Iterator[None]:
        """Keeps a second process out of the folder.

        Args:
            patience: How many seconds to wait for a process that is in it.

        Raises:
            UserError: If another process is still in it then.
        """
        deadline = time.monotonic() + patience
        # To be written to, though it is not: NFS locks no file that is only read.
        with (self.path / "config.json").open("r+") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        message = f"Another process is running in {self.path}."
                        raise UserError(message) from None
                    time.sleep(0.05)
            yield

    def read_json(self, name: str) -> dict[str, Any]:
        """Reads one of the folder's JSON files.

        Raises:
            UserError: If it is damaged or is not an object.
        """
        path = self.path / name
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, UnicodeDecodeError) as error:
            raise self.damaged(name) from error
        if not isinstance(content, dict):
            raise UserError(f"{path} was not written by gfnem; nothing was changed.")
        return content

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Writes a JSON file atomically."""
        self.write_text(name, json.dumps(content, indent=2) + "\n")

    def write_text(self, name: str, content: str) -> None:
        """Writes a text file atomically."""
        self.write_bytes(name, content.encode())

    def write_bytes(self, name: str, content: bytes) -> None:
        """Writes a file of any kind atomically."""
        with self._replacing(name) as beside:
            beside.write_bytes(content)

    def write_figure(self, name: str, figure: Any) -> Path:
        """Saves a matplotlib figure atomically and returns where it is."""
        with self._replacing(name) as beside:
            figure.savefig(beside, format=name.rpartition(".")[2])
        return self.path / name

    def write_checkpoint(self, state: dict[str, Any]) -> None:
        """Writes `checkpoint.pt` atomically: tensors and primitives only.

        The metrics that led to it are on disk before it, whatever happens to the machine.
        """
        metrics = self.path / "metrics.jsonl"
        if metrics.is_file():
            _flush(metrics)
        # By way of memory: on a full disk torch.save itself raises no OSError.
        content = io.BytesIO()
        torch.save(state, content)
        with self._replacing("checkpoint.pt") as beside:
            beside.write_bytes(content.getbuffer())

    def read_checkpoint(self) -> dict[str, Any] | None:
        """Reads `checkpoint.pt`.

        Returns:
            Its content, or None if there is none yet.

        Raises:
            UserError: If it is damaged.
        """
        path = self.path / "checkpoint.pt"
        if not path.is_file():
            return None
        try:
            return torch.load(path, weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged file
            raise self.damaged(path.name) from error

    def append_metrics(self, metrics: dict[str, float]) -> None:
        """Adds a line to `metrics.jsonl`."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")

    def read_metrics(self) -> list[dict[str, float]]:
        """Reads `metrics.jsonl` up to its last whole line.

        Raises:
            UserError: If a whole line is damaged.
        """
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return []
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
            return [json.loads(line) for line in lines[:-1]]
        except ValueError as error:
            raise self.damaged(path.name) from error

    def keep_metrics(self, count: int) -> None:
        """Drops the lines of `metrics.jsonl` that came after the checkpoint of a resumed run.

        Raises:
            UserError: If there are fewer, or one is damaged.
        """
        kept = self.read_metrics()[:count]
        if len(kept) < count:
            raise self.damaged("metrics.jsonl")
        self.write_text("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))

    def damaged(self, name: str) -> UserError:
        """Builds the error for a file of the folder that is not as it was written."""
        return UserError(
            f"{self.path / name} is damaged; delete {self.path} to run that part anew."
        )

    @contextmanager
    def _replacing(self, name: str) -> Iterator[Path]:
        """Gives a path to write to that takes the place of `name` once it is safely on disk."""
        beside = self.path / f".{name}.new"
        try:
            yield beside
            _flush(beside)
            beside.replace(self.path / name)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


def remove_unfinished(path: Path) -> None:
    """Deletes a cell's folder that has no `config.json`: nothing was computed there yet."""
    if path.is_dir() and not (path / "config.json").is_file():
        shutil.rmtree(path)


def _flush(path: Path) -> None:
    """Waits until a file's content is on disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
