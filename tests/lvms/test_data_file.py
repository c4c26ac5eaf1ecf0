import os
import re
from pathlib import Path

import pytest

from gfn_envs import UserError
from lvms.data.bracketed_trees import read_bracketed_trees
from lvms.data.data_file import files_below
from lvms.data.images import load_images
from lvms.data.treebank import load_treebank


def test_files_are_found_in_the_order_of_their_paths(tmp_path):
    for name in ("b/2", "b/1", "a.mrg", "a/3", "b/c/0"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to(tmp_path / "b")
    names = [str(path.relative_to(tmp_path)) for path in files_below(tmp_path)]
    assert names == ["a/3", "a.mrg", "b/1", "b/2", "b/c/0"]


@pytest.mark.parametrize(
    ("load", "closed"),
    [
        (load_images, "."),
        (load_treebank, "."),
        (read_bracketed_trees, "."),
        (read_bracketed_trees, "below"),
    ],
)
def test_a_folder_that_cannot_be_listed_is_a_user_error(monkeypatch, tmp_path, load, closed):
    """Whoever runs the tests may be allowed everything, so the system's calls say no here."""
    folder = tmp_path / "data"
    (folder / "below").mkdir(parents=True)
    (folder / "train.mrg").write_text("(S (A a) (B b))")
    (folder / "below" / "more.mrg").write_text("(S (A a) (B b))")
    refused = folder / closed
    for module, name in ((os, "listdir"), (os, "scandir")):
        listing = getattr(module, name)

        def refuse(path, listing=listing):
            if Path(path) == refused:
                raise PermissionError(13, "Permission denied", str(path))
            return listing(path)

        monkeypatch.setattr(module, name, refuse)
    with pytest.raises(UserError, match=re.escape(f"Cannot read {refused}: Permission denied.")):
        load(folder)
