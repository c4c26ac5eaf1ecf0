"""The README's Python runs as it stands, block after block."""

import re
from pathlib import Path

import pytest
import torch

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.xdist_group("torchgfn")
def test_python_blocks_run_and_show_what_they_promise(capsys):
    torch.set_num_threads(1)
    namespace: dict[str, object] = {}
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 4
    for block in blocks:
        exec(compile(block, str(README), "exec"), namespace)
    printed = capsys.readouterr().out
    assert float(re.search(r"total variation: (\S+)", printed)[1]) < 0.05
    assert float(re.search(r"log p\(x, z\) = (\S+)", printed)[1]) < 0
    assert float(re.search(r"TB loss: (\S+)", printed)[1]) > 0
    assert "0 failed" in printed


@pytest.mark.parametrize("page", [README, *sorted((README.parent / "docs").glob("*.md"))])
def test_links_to_files_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
