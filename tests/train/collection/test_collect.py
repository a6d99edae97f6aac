"""asr-collect: a data folder out of git repositories, every hash checked, what is missing named."""

from __future__ import annotations

import csv
import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from asr_train.collection.command import collect_command
from asr_train.collection.index import COLUMNS, read_index
from asr_train.data.layouts import find_data

_ROOT = Path(__file__).parents[3]


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def hosting(tmp_path: Path, examples: Path) -> Path:
    """Two real repositories, owner/photos and owner/sd3, as a code host would have them."""
    for name, folder, pattern in (("photos", "real", "*.jpg"), ("sd3", "ai", "sd3*")):
        repository = tmp_path / "hosting" / "owner" / name
        repository.mkdir(parents=True)
        for file in sorted((examples / folder).glob(pattern)):
            shutil.copy(file, repository)
        _git(repository, "init", "--quiet")
        _git(repository, "add", ".")
        _git(repository, "commit", "--quiet", "-m", "pictures")
    return tmp_path / "hosting"


@pytest.fixture
def rows(hosting: Path) -> list[dict[str, str]]:
    """The index of all pictures of both repositories."""
    listed = []
    for label, name in enumerate(("photos", "sd3")):
        repository = hosting / "owner" / name
        for number, line in enumerate(_git(repository, "ls-tree", "HEAD").splitlines()):
            blob, path = line.split()[2], line.split("\t")[1]
            data = (repository / path).read_bytes()
            listed.append(
                {
                    "label": str(label),
                    "source": name,
                    "family": "camera" if label == 0 else "SD3",
                    "year": "2024",
                    "split": "train" if number else "val",
                    "repository": f"owner/{name}",
                    "path": path,
                    "blob": blob,
                    "bytes": str(len(data)),
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "licence": "CC0-1.0",
                }
            )
    return listed


def _write(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def _run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(collect_command, [str(a) for a in arguments])


@pytest.mark.parametrize("option", ["--snapshots", "--clone-from"])
def test_every_picture_is_there_with_its_bytes(
    tmp_path: Path, hosting: Path, rows: list[dict[str, str]], option: str
) -> None:
    place = str(hosting) if option == "--snapshots" else f"file://{hosting}"
    out = tmp_path / "data"
    done = _run(_write(tmp_path / "index.csv", rows), "-o", out, option, place)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"{len(rows)} pictures written, 0 were there already, 0 missing; 2 sources")
    data = find_data(out)
    assert data.layout == "generators"
    samples = (*data.train, *data.val)
    assert sorted(hashlib.sha256(s.path.read_bytes()).hexdigest() for s in samples) == sorted(r["sha256"] for r in rows)
    assert {(s.source, s.label) for s in samples} == {("photos", 0), ("sd3", 1)}
    assert (out / "families.csv").read_text() == "source,label,family,year\nphotos,0,camera,2024\nsd3,1,SD3,2024\n"


def test_a_second_run_writes_only_what_is_not_right(tmp_path: Path, hosting: Path, rows: list[dict[str, str]]) -> None:
    index, out = _write(tmp_path / "index.csv", rows), tmp_path / "data"
    _run(index, "-o", out, "--snapshots", hosting)
    pictures = sorted((out / "sd3").rglob("*.jpg"))
    pictures[0].unlink()
    damaged = bytearray(pictures[1].read_bytes())
    damaged[-10] ^= 1  # the same length
    pictures[1].write_bytes(damaged)
    done = _run(index, "-o", out, "--snapshots", hosting)
    assert done.exit_code == 0
    assert done.stdout.startswith(f"2 pictures written, {len(rows) - 2} were there already, 0 missing")


def test_what_is_missing_is_named_and_the_rest_is_there(
    tmp_path: Path, hosting: Path, rows: list[dict[str, str]]
) -> None:
    rows[0]["blob"] = "0" * 40
    rows[1]["sha256"] = "0" * 64
    rows.append({**rows[-1], "sha256": "1" * 64, "source": "gone", "repository": "owner/gone"})
    out = tmp_path / "data"
    done = _run(_write(tmp_path / "index.csv", rows), "-o", out, "--clone-from", f"file://{hosting}")
    assert done.exit_code == 1
    assert "owner/photos: no longer has the file: 1 pictures (photos 1)" in done.output
    assert "owner/photos: SHA-256 is not the one in the index: 1 pictures" in done.output
    assert "missing: owner/gone: " in done.output
    assert "1 pictures (gone 1)" in done.output
    assert len([p for p in out.rglob("*.jpg") if ".repositories" not in p.parts]) == len(rows) - 3
    assert not list(out.rglob(".*.part*"))


def test_a_damaged_repository_costs_its_own_pictures(tmp_path: Path, hosting: Path, rows: list[dict[str, str]]) -> None:
    (hosting / "owner" / "sd3" / ".git" / "HEAD").write_text("nonsense")
    done = _run(_write(tmp_path / "index.csv", rows), "-o", tmp_path / "data", "--snapshots", hosting)
    assert done.exit_code == 1
    assert "missing: owner/sd3: git cannot read it" in done.output
    assert {p.parent.parent.parent.name for p in (tmp_path / "data").rglob("*.jpg")} == {"photos"}


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("source", "../../outside", "line 2: source '../../outside'"),
        ("repository", "--upload-pack=touch x/y", "line 2: repository"),
        ("blob", "HEAD", "line 2: blob 'HEAD'"),
        ("label", "2", "line 2: label '2', expected"),
        ("path", "picture", "line 2: path 'picture'"),
        ("source", "sd3", "source sd3 has both labels"),
    ],
)
def test_a_row_that_cannot_be_right_is_refused(
    tmp_path: Path, hosting: Path, rows: list[dict[str, str]], column: str, value: str, message: str
) -> None:
    rows[0][column] = value
    done = _run(_write(tmp_path / "index.csv", rows), "-o", tmp_path / "data", "--snapshots", hosting)
    assert done.exit_code == 2
    assert message in done.output
    assert "\n" not in done.output.strip()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n", "no column 'label'"),
        (b"", "no column 'label'"),
        (",".join(COLUMNS).encode(), "lists no picture"),
        (b"\xff\xfe\x00", "not a CSV file in UTF-8"),
    ],
)
def test_a_file_that_is_no_index_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "index.csv").write_bytes(content)
    done = _run(tmp_path / "index.csv", "-o", tmp_path / "data", "--snapshots", tmp_path)
    assert (done.exit_code, message in done.output) == (2, True), done.output


def test_a_place_to_take_pictures_from_is_needed(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    index = _write(tmp_path / "index.csv", rows)
    assert "--snapshots DIR" in _run(index, "-o", tmp_path / "data").output
    assert "no such folder" in _run(index, "-o", tmp_path / "data", "--snapshots", tmp_path / "none").output
    unknown = _run(index, "-o", tmp_path / "data", "--snapshots", tmp_path, "--source", "dalle")
    assert (unknown.exit_code, "it has photos, sd3" in unknown.output) == (2, True)


def test_a_disk_that_cannot_be_written_ends_the_run(tmp_path: Path, hosting: Path, rows: list[dict[str, str]]) -> None:
    (tmp_path / "data").write_text("a file")
    index = _write(tmp_path / "index.csv", rows)
    done = _run(index, "-o", tmp_path / "data" / "below", "--snapshots", hosting)
    assert (done.exit_code, "cannot be written" in done.output) == (3, True), done.output


@pytest.mark.parametrize("index", sorted((_ROOT / "train" / "collections").glob("*.csv")), ids=lambda path: path.stem)
def test_the_indexes_of_this_repository_are_sound(index: Path) -> None:
    pictures = read_index(index)
    assert len({p.source for p in pictures if p.label == 0}) >= 25
    assert len({p.source for p in pictures if p.label == 1}) >= 30
    assert all(p.family and p.licence for p in pictures)
    assert {p.split for p in pictures} == ({"val"} if index.stem.startswith("held-out") else {"train", "val"})


def test_the_held_out_collection_has_nothing_of_the_one_for_training() -> None:
    training, held_out = (
        read_index(_ROOT / "train" / "collections" / name)
        for name in ("photos-and-generators-2026.csv", "held-out-2026-12.csv")
    )
    for name in ("repository", "source", "sha256"):
        seen, unseen = ({getattr(picture, name).lower() for picture in index} for index in (training, held_out))
        assert not seen & unseen, name
