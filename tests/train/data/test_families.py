"""Families of generators and kinds of photos: read from a CSV file, refused with the line that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr_runtime.errors import DatasetError
from asr_train.data.families import find_families, read_families
from asr_train.data.layouts import Sample, find_data
from asr_train.fitting.unseen import sources_left_out_together

_TABLE = """source,label,family,year
midjourney,1,Midjourney,2023
site_a,1,FLUX,2024
site_b,1,FLUX,2025
both,1,mixed: FLUX and Midjourney,2025
who,1,unknown,
photos,0,phone photo,
scans,0,scan,
"""


def _samples(counts: dict[tuple[int, str], int]) -> list[Sample]:
    return [Sample(Path(f"{s}/{i}.jpg"), k, s) for (k, s), n in counts.items() for i in range(n)]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "table.csv"
    file.write_text(_TABLE)
    return file


def test_a_family_takes_all_its_sources_and_every_mixed_one_along(table: Path) -> None:
    families = read_families(table)
    samples = _samples(dict.fromkeys(families.names, 2))
    assert families.sources_without(1, "FLUX", samples) == {"site_a", "site_b", "both"}
    assert families.sources_without(0, "scan", samples) == {"scans"}
    assert families.years[1, "site_b"] == 2025
    assert (1, "who") not in families.years


def test_nothing_is_claimed_about_mixed_and_unknown_sources(table: Path) -> None:
    families = read_families(table)
    samples = _samples({(1, "site_a"): 2, (1, "site_b"): 3, (1, "both"): 9, (1, "who"): 9, (1, "new"): 9})
    assert families.judged(1, samples, at_least=5) == ["FLUX"]
    assert families.judged(1, samples, at_least=6) == []
    assert families.of(1, "who") == "who"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("source,label", "name,label"), "expected source, label, family, year"),
        (("scans,0", "scans,real"), "line 8: label 'real'"),
        (("Midjourney,2023", "Midjourney,soon"), "line 2: year 'soon'"),
        (("Midjourney,2023", "Midjourney,202\N{SUPERSCRIPT THREE}"), "line 2: year"),
        (("Midjourney,2023", f"Midjourney,{'9' * 5000}"), "line 2: year '9999"),
        (("Midjourney,2023", f"{'M' * 200_000},2023"), "cannot be read"),
    ],
)
def test_a_wrong_table_is_refused_by_its_line(table: Path, change: tuple[str, str], message: str) -> None:
    table.write_text(_TABLE.replace(*change))
    with pytest.raises(DatasetError, match=message):
        read_families(table)


def test_the_table_beside_the_data_folder_is_taken(generators: Path, table: Path) -> None:
    data = find_data(generators)
    assert find_families(data, None) is None
    (generators.parent / "families.csv").write_text(_TABLE)
    families = find_families(data, None)
    assert families is not None
    assert families.of(1, "midjourney") == "Midjourney"
    table.write_text("source,label,family,year\nelsewhere,1,FLUX,2024\n")
    with pytest.raises(DatasetError, match="names none of the 4 sources"):
        find_families(data, table)


def test_every_source_is_left_out_once_with_all_of_its_family(table: Path) -> None:
    counts = {
        (1, "midjourney"): 4,
        (1, "site_a"): 4,
        (1, "site_b"): 4,
        (1, "who"): 2,
        (0, "photos"): 5,
        (0, "scans"): 1,
    }
    groups = sources_left_out_together(counts, read_families(table))
    assert sorted(name for group in groups for name in group) == sorted(s for _, s in counts)
    assert next(group for group in groups if "site_a" in group) >= {"site_a", "site_b"}
    assert len(groups) == 3  # FLUX, Midjourney, who; each with at most one kind of photos
    assert sources_left_out_together(counts, None) == [frozenset({s}) for s in sorted(s for _, s in counts)]


def test_a_kind_that_holds_most_photos_is_parted_by_sources(table: Path) -> None:
    table.write_text(_TABLE + "".join(f"web{i},0,web photo,\n" for i in range(6)))
    counts = {(1, "midjourney"): 9, (1, "site_a"): 9, (0, "scans"): 10, **{(0, f"web{i}"): 10 for i in range(6)}}
    groups = sources_left_out_together(counts, read_families(table))
    assert max(sum(name.startswith("web") for name in group) for group in groups) < 6
