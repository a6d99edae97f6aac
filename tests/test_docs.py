"""The documentation: the site builds without an outside request, and every command on a page is run or says why not.

A fenced block `bash` holds commands, `console` commands with what they print, `python` a program, followed by a `text`
block with what it prints. An HTML comment right behind a block says why it is not run here. `make docs-output` (which
sets UPDATE_DOCS) writes what the commands print now into the pages.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from asr_export.onnx_file import export
from asr_models import Checkpoint, create_model, default_preprocess, load_checkpoint, save_checkpoint

_ROOT = Path(__file__).parent.parent
_PAGES = [_ROOT / "README.md", _ROOT / "CONTRIBUTING.md", *sorted((_ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```(bash|console|python)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?(<!-- .+? -->)?", re.M | re.S)
_IN_THE_REPOSITORY = {"make demo": "asr-screen runtime/examples"}
"""What the Makefile runs for it, in the virtual environment that the tests run in."""


class Block(NamedTuple):
    page: Path
    language: str
    text: str
    printed: str | None


def _blocks() -> list[Block]:
    return [
        Block(page, match[1], match[2], match[3])
        for page in _PAGES
        for match in _BLOCK.finditer(page.read_text(encoding="utf-8"))
        if match[4] is None
    ]


def _name(block: Block) -> str:
    return f"{block.page.relative_to(_ROOT)}: {block.text.splitlines()[0][:60]}"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, examples: Path) -> Path:
    """A folder with what the pages talk about: photos, a video, a data folder, a checkpoint and its exported file."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "photos").mkdir()
    for name in ("real/cat.png", "real/trousers.jpg", "ai/sd3-2.jpg"):
        shutil.copy(examples / name, folder / "photos")
    shutil.copy(examples / "video" / "pan.mp4", folder / "holiday.mp4")
    for split in ("train", "val"):
        for source, label in (("real", "nature"), ("ai", "ai")):
            shutil.copytree(examples / source, folder / "dataset" / source / split / label)
    torch.manual_seed(0)
    checkpoint = Checkpoint("asrnet", {"dim": 8}, default_preprocess("asrnet"), create_model("asrnet", dim=8).eval())
    save_checkpoint(folder / "checkpoint_asrnet.pth", checkpoint)
    export(load_checkpoint(folder / "checkpoint_asrnet.pth"), folder / "detector.onnx")
    return folder


def _run(command: str, folder: Path) -> str:
    path = os.pathsep.join([os.environ["PATH"], str(Path(sys.executable).parent)])
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=_ROOT if command in _IN_THE_REPOSITORY.values() else folder,
        env={**os.environ, "PATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout


def _same_each_time(printed: str) -> list[str]:
    """Hide times; sort the lines, because files of one folder come in the order of the disk."""
    hidden = re.sub(r'(in |"seconds": )\d+\.\d+', r"\1TIME", printed)
    return sorted(line.rstrip() for line in hidden.splitlines())


def _commands(text: str) -> list[str]:
    return [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]


def _check(block: Block, old: str, new: str) -> None:
    """Compare what a page shows with what was printed, or write that into the page."""
    if _same_each_time(old) == _same_each_time(new):
        return
    assert "UPDATE_DOCS" in os.environ, f"{_name(block)} shows\n{old}\nbut this is printed:\n{new}"
    page = block.page.read_text(encoding="utf-8")
    block.page.write_text(page.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize("block", _blocks(), ids=_name)
def test_a_page_shows_what_its_commands_do(block: Block, workspace: Path) -> None:
    if block.language == "python":
        program = workspace / "page.py"
        program.write_text(block.text)
        _check(block, block.printed or "", _run(f'"{sys.executable}" page.py', workspace))
    elif block.language == "bash":
        for command in _commands(block.text):
            _run(command, workspace)
    else:
        for part in re.split(r"^\$ ", block.text, flags=re.M)[1:]:
            command, _, shown = part.partition("\n")
            command = command.partition("   #")[0].rstrip()
            _check(block, shown, "".join(sorted_rows(_run(_IN_THE_REPOSITORY.get(command, command), workspace))))


def sorted_rows(table: str) -> list[str]:
    """Order the rows of asr-screen's table by source; its head stays first and its summary last."""
    lines = table.splitlines(keepends=True)
    if not lines or not lines[0].startswith("VERDICT"):
        return lines
    return [lines[0], *sorted(lines[1:-1], key=lambda line: line.split()[-1]), lines[-1]]


def test_the_makefile_runs_what_the_pages_say() -> None:
    recipes = (_ROOT / "Makefile").read_text()
    for target, command in _IN_THE_REPOSITORY.items():
        assert f"\n{target.removeprefix('make ')}: .venv-device/ready\n\t.venv-device/bin/{command}\n" in recipes


class _Loaded(HTMLParser):
    """Collects what a browser would load for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") in ("canonical", "prev", "next"):
            return
        if tag in ("link", "script", "img", "iframe", "source", "video"):
            self.addresses += [value for key in ("href", "src") if (value := given.get(key))]


def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=_ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        loaded = _Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        assert loaded.addresses
        assert [address for address in loaded.addresses if "//" in address] == []
    styles = "".join(path.read_text() for path in (tmp_path / "site").rglob("*.css"))
    assert re.findall(r"url\([\"']?https?:", styles) == []
