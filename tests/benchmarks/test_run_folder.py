"""The folder of a run: what is refused, and what survives a failing disk."""

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from benchmarks import run_folder
from benchmarks.run_folder import RunFolder, remove_unfinished
from gfn_envs import UserError


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "run", {"task": "t"})


def files(folder):
    return sorted(path.name for path in folder.path.iterdir())


# -- create and open ------------------------------------------------------------------------------


def test_creates_a_folder_with_its_config(tmp_path):
    folder = RunFolder.create(tmp_path / "deep" / "run", {"task": "t", "n": [1, 2]})
    assert files(folder) == ["config.json"]
    assert RunFolder.open(folder.path).read_json("config.json") == {"task": "t", "n": [1, 2]}
    assert not folder.finished
    folder.write_json("summary.json", {})
    assert folder.finished


def test_an_empty_folder_will_do(tmp_path):
    RunFolder.create(tmp_path, {})
    assert (tmp_path / "config.json").is_file()


def test_a_run_that_was_killed_before_it_had_its_config_is_begun_again(tmp_path):
    (tmp_path / ".config.json.new").write_text('{"task": "t", "op')
    with pytest.raises(UserError, match=r"is not a run folder \(no config.json\)"):
        RunFolder.open(tmp_path)
    assert files(RunFolder.create(tmp_path, {"task": "t"})) == ["config.json"]


def test_a_used_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"is not empty.*--out.*--resume"):
        RunFolder.create(tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_folder(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(UserError, match="is a file"):
        RunFolder.create(file, {})
    with pytest.raises(UserError, match="is not a folder"):
        RunFolder.open(file)
    with pytest.raises(NotADirectoryError):
        RunFolder.create(file / "below", {})
    assert file.read_text() == "mine"


def test_only_run_folders_are_opened(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        RunFolder.open(tmp_path / "none")
    with pytest.raises(UserError, match=r"is not a run folder \(no config.json\)"):
        RunFolder.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"task": "t"', "config.json is damaged"),
        (b"", "config.json is damaged"),
        (b"\xff\xfe\x00", "config.json is damaged"),
        (b"[1, 2]", "was not written by gfnem"),
        (b"null", "was not written by gfnem"),
    ],
)
def test_damaged_json_is_a_user_error(folder, content, message):
    (folder.path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        RunFolder.open(folder.path)


def test_a_folder_without_a_config_is_removed_and_others_are_not(folder, tmp_path):
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / ".config.json.new").write_text("{")
    for path in (tmp_path / "begun", folder.path, tmp_path / "none"):
        remove_unfinished(path)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


# -- checkpoints and metrics ----------------------------------------------------------------------

STATE = {"z": torch.arange(50_000), "nested": {"updates": 3, "list": [1.5, None, "a"]}}


def test_checkpoints_come_back(folder):
    assert folder.read_checkpoint() is None
    folder.write_checkpoint(STATE)
    back = folder.read_checkpoint()
    assert torch.equal(back["z"], STATE["z"])
    assert back["nested"] == STATE["nested"]
    assert files(folder) == ["checkpoint.pt", "config.json"]


def test_the_metrics_are_on_disk_before_the_checkpoint(folder, monkeypatch):
    flushed, flush = [], os.fsync

    def remember(descriptor):
        flushed.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        flush(descriptor)

    monkeypatch.setattr(run_folder.os, "fsync", remember)
    folder.append_metrics({"update": 1})
    folder.write_checkpoint(STATE)
    assert flushed == ["metrics.jsonl", ".checkpoint.pt.new"]


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not a checkpoint", None])
def test_a_damaged_checkpoint_is_a_user_error(folder, damage):
    folder.write_checkpoint(STATE)
    path = folder.path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000] if damage is None else damage)
    with pytest.raises(UserError, match=r"checkpoint.pt is damaged; delete .*run to run"):
        folder.read_checkpoint()


def test_a_checkpoint_with_code_in_it_is_refused(folder):
    torch.save({"path": folder.path}, folder.path / "checkpoint.pt")
    with pytest.raises(UserError, match="damaged"):
        folder.read_checkpoint()


def test_metrics_are_read_up_to_a_half_written_line(folder):
    assert folder.read_metrics() == []
    lines = [{"update": i, "loss": 0.1 * i} for i in range(4)]
    for line in lines:
        folder.append_metrics(line)
    path = folder.path / "metrics.jsonl"
    whole = path.read_text()
    for cut in range(len(whole)):
        path.write_text(whole[:cut])
        assert folder.read_metrics() == lines[: whole[:cut].count("\n")]


def test_metrics_after_the_checkpoint_are_dropped(folder):
    for i in range(4):
        folder.append_metrics({"update": i})
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write('{"upda')
    folder.keep_metrics(2)
    folder.append_metrics({"update": 9})
    assert folder.read_metrics() == [{"update": 0}, {"update": 1}, {"update": 9}]
    folder.keep_metrics(0)
    assert folder.read_metrics() == []


def test_missing_and_damaged_metrics_are_a_user_error(folder):
    folder.append_metrics({"update": 1})
    with pytest.raises(UserError, match=r"metrics.jsonl is damaged; delete"):
        folder.keep_metrics(2)
    (folder.path / "metrics.jsonl").write_bytes(b"\x00\x00\x00\n")
    with pytest.raises(UserError, match=r"metrics.jsonl is damaged; delete"):
        folder.read_metrics()


# -- a failing disk -------------------------------------------------------------------------------


class FullDisk(io.FileIO):
    """A file that takes a few bytes and then says that the disk is full."""

    def write(self, content):
        if self.tell() + len(content) > 10:
            super().write(bytes(content)[:10])
            raise OSError(errno.ENOSPC, "No space left on device", self.name)
        return super().write(content)


WRITERS = {
    "json": ("data.json", lambda folder: folder.write_json("data.json", {"a": list(range(99))})),
    "text": ("table.md", lambda folder: folder.write_text("table.md", "x" * 99)),
    "figure": ("p.png", lambda folder: folder.write_figure("p.png", Figure())),
    "checkpoint": ("checkpoint.pt", lambda folder: folder.write_checkpoint(STATE)),
}
writers = pytest.mark.parametrize(("name", "write"), WRITERS.values(), ids=WRITERS)


@writers
def test_a_full_disk_leaves_the_old_file(folder, monkeypatch, name, write):
    (folder.path / name).write_text("old")
    real_open = io.open

    def full_open(file, mode="r", *args, **kwargs):
        if str(file).startswith(str(folder.path)) and "w" in mode:
            disk = FullDisk(file, "w")
            return disk if "b" in mode else io.TextIOWrapper(disk, write_through=True)
        return real_open(file, mode, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(io, "open", full_open)
        patch.setattr("builtins.open", full_open)
        with pytest.raises(OSError, match="No space left"):
            write(folder)
    assert files(folder) == sorted(["config.json", name])
    assert (folder.path / name).read_text() == "old"
    write(folder)
    assert (folder.path / name).read_bytes() != b"old"


@writers
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_failure_before_the_rename_leaves_the_old_file(folder, monkeypatch, name, write, error):
    def fail(descriptor):
        raise error

    (folder.path / name).write_text("old")
    monkeypatch.setattr(run_folder.os, "fsync", fail)
    with pytest.raises(type(error)):
        write(folder)
    assert files(folder) == sorted(["config.json", name])
    assert (folder.path / name).read_text() == "old"


def test_a_real_limit_on_file_size_is_an_os_error_for_checkpoints_too(folder):
    folder.write_checkpoint({"updates": 1})
    code = (
        "import resource, torch; from pathlib import Path;"
        "from benchmarks.run_folder import RunFolder;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
        f"RunFolder(Path({str(folder.path)!r})).write_checkpoint({{'z': torch.zeros(50_000)}})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].startswith("OSError: [Errno 27] File too large")
    assert folder.read_checkpoint() == {"updates": 1}
    assert files(folder) == ["checkpoint.pt", "config.json"]


# -- one process at a time ------------------------------------------------------------------------


def test_a_second_process_is_kept_out(folder):
    code = (
        "from pathlib import Path; from benchmarks.run_folder import RunFolder\n"
        f"with RunFolder(Path({str(folder.path)!r})).locked(): print('in')"
    )
    with folder.locked():
        with pytest.raises(UserError, match="Another process is running in"):
            with RunFolder(folder.path).locked():
                pass
        held = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Another process is running in" in held.stderr
    assert held.stdout == ""
    with RunFolder(folder.path).locked():
        pass


def test_json_is_readable_by_anyone(folder):
    folder.write_json("data.json", {"π": 1.5})
    assert json.loads((folder.path / "data.json").read_bytes()) == {"π": 1.5}
