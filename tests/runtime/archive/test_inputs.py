"""The inputs of an archive: a store that cannot be listed, or a damaged row, costs only itself."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.parquet
from runtime_samples import encoded, picture

from asr_runtime.archive.inputs import Inputs


def test_a_store_that_cannot_be_listed_is_one_error_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(encoded(picture(), ".png"))
    unreachable, local = Inputs(["ftp://user:secret@127.0.0.1:9/photos", str(tmp_path / "photo.png")])
    assert (unreachable.kind, unreachable.name) == ("error", "ftp://***@127.0.0.1:9/photos")
    assert unreachable.error.startswith("ftp://***@127.0.0.1:9/photos: cannot be listed (")
    assert "refused" in unreachable.error
    assert "secret" not in unreachable.error
    assert (local.kind, local.place) == ("image", str(tmp_path / "photo.png"))


def test_a_store_without_its_package_says_which_one(tmp_path: Path) -> None:
    (missing,) = Inputs(["dropbox://photos"])
    assert missing.kind == "error"
    assert "dropbox" in missing.error.lower()
    assert "install" in missing.error.lower()


def test_damaged_rows_of_a_table_are_errors_in_their_place(tmp_path: Path) -> None:
    table, there = tmp_path / "paths.parquet", str(tmp_path / "photo.png")
    Path(there).write_bytes(encoded(picture(), ".png"))
    rows = [there, "", None, "gone.png", "ftp://127.0.0.1:9/far.jpg"]
    pyarrow.parquet.write_table(pyarrow.table({"path": rows}), table)
    items = list(Inputs([str(table)]))
    assert [item.kind for item in items] == ["image", "error", "error", "error", "image"]
    assert [item.error for item in items[1:4]] == [
        f"{table}, row 1: holds no path",
        f"{table}, row 2: holds no path",
        "gone.png: no such file or folder",
    ]
