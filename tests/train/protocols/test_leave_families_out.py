"""Families and kinds left out: one extraction, thresholds without them, decisions of both looks."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_training import tiny

from asr_models import load_checkpoint
from asr_runtime.contract import WholeLook, from_checkpoint
from asr_runtime.errors import ConfigurationError, DatasetError
from asr_train.commands.train import train_command
from asr_train.data.families import Families, read_families
from asr_train.data.layouts import DataFolder, Sample, find_data
from asr_train.data.write_shards import write_shards
from asr_train.fitting.closed_form import ClosedForm, pretrained
from asr_train.fitting.config import ClosedFormConfig
from asr_train.fitting.fit import train
from asr_train.protocols.folds import Fold
from asr_train.protocols.leave_families_out import (
    _decisions,
    _figures,
    _Judgement,
    _means,
    _summary,
    families_protocol,
    family_folds,
)


@pytest.fixture
def data(generators: Path) -> Path:
    """Two generators, one of them later, and two kinds of photos, with their table beside them."""
    for split in ("train", "val"):
        shutil.copytree(generators / "photos" / split / "nature", generators / "scans" / split / "nature")
    table = "source,label,family,year\nsd3,1,Stable Diffusion,2024\nmidjourney,1,Midjourney,2022\n"
    (generators.parent / "families.csv").write_text(table + "photos,0,phone photo,\nscans,0,scan,\n")
    return generators


def _config(data: Path) -> ClosedFormConfig:
    return tiny(data, views=1, windows=5)


@pytest.mark.parametrize(
    ("protocol", "names"),
    [
        ("leave-one-family-out", {"Midjourney", "Stable Diffusion"}),
        ("leave-one-photo-kind-out", {"phone photo", "scan"}),
        ("leave-one-family-and-photo-kind-out", {"Midjourney", "Stable Diffusion"}),
        ("leave-later-generators-out", {"Stable Diffusion"}),
    ],
)
def test_every_protocol_judges_what_it_left_out(data: Path, tmp_path: Path, protocol: str, names: set[str]) -> None:
    families = read_families(data.parent / "families.csv")
    runs = tmp_path / "runs"
    result = families_protocol(protocol, _config(data), families, runs, at_least=2, progress=False)
    assert set(result["generators"]) == names
    assert set(result["decisions"]) == {"centre", "whole"}
    assert 0 <= result["mean_auroc"] <= 1
    table = result["decisions"]["whole"]
    judged = table["real" if protocol == "leave-one-photo-kind-out" else "ai"]["families"]
    assert set(judged) == names
    assert json.loads((runs / f"{protocol}.json").read_text()) == result


def test_too_few_pictures_are_refused(data: Path, tmp_path: Path) -> None:
    families = read_families(data.parent / "families.csv")
    with pytest.raises(DatasetError, match="no family with 99 validation images"):
        families_protocol("leave-one-family-out", _config(data), families, tmp_path / "runs", at_least=99)


def test_families_need_twenty_pictures_where_nothing_else_is_asked_for(data: Path, tmp_path: Path) -> None:
    families = read_families(data.parent / "families.csv")
    with pytest.raises(DatasetError, match="no family with 20 validation images"):
        families_protocol("leave-one-family-out", _config(data), families, tmp_path / "runs")


def test_a_network_of_one_window_is_judged_by_it_alone(data: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(_config(data), windows=1)
    families, runs = read_families(data.parent / "families.csv"), tmp_path / "new" / "runs"
    result = families_protocol("leave-later-generators-out", config, families, runs, at_least=2, progress=False)
    assert set(result["looks"]) == set(result["decisions"]) == {"centre"}
    assert set(result["generators"]["Stable Diffusion"]["looks"]) == {"centre"}


def test_margins_for_calibration_come_from_heads_without_the_family(data: Path, tmp_path: Path) -> None:
    config = _config(data)
    families = read_families(data.parent / "families.csv")
    solved = ClosedForm(pretrained(config), config, find_data(data), tmp_path / "runs", families)
    margins = solved.unseen_windows()
    rows = np.flatnonzero(solved.store.pictures.of({"sd3"}))
    group = next(group for group in solved.heads.together if "sd3" in group)
    expected = solved.store.margins(solved.head(group), rows)
    np.testing.assert_allclose(margins[rows], expected)


def test_the_checkpoint_carries_the_whole_look(data: Path, tmp_path: Path) -> None:
    run = train(_config(data), tmp_path / "runs")
    whole = from_checkpoint(WholeLook, load_checkpoint(run.checkpoint).whole, "checkpoint")
    assert (len(whole.windows), whole.top) == (5, 5)
    assert "never saw its family of generators or its kind of photos" in whole.calibration.fitted_on


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--model asrnet --protocol leave-one-family-out", "use asrnet-lite"),
        ("--model asrnet-lite --protocol leave-one-family-out", "needs --families FILE"),
        ("--model asrnet-lite --windows 5 --top 6", "top 6: expected 1 to 5"),
        ("--model asrnet-lite --windows 4", "windows 4: expected one of 1, 5, 9"),
    ],
)
def test_the_command_says_what_is_missing(generators: Path, line: str, message: str) -> None:
    done = CliRunner().invoke(train_command, [*line.split(), "--data", str(generators)])
    assert (done.exit_code, message in done.output) == (2, True), done.output


_FAMILIES = Families(
    {
        **{(1, "old"): "A", (1, "new"): "A", (1, "other"): "B", (1, "many"): "mixed sites", (1, "nameless"): ""},
        **{(0, "phone"): "phone", (0, "camera"): "phone", (0, "scan"): "scan", (0, "rare"): "painting"},
    },
    {(1, "old"): 2023, (1, "new"): 2024, (1, "other"): 2025, (1, "many"): 2022, (1, "nameless"): 2021},
)


def _sources(*counts: tuple[int, str, int]) -> DataFolder:
    samples = tuple(Sample(Path(f"{s} {i}"), label, s) for label, s, n in counts for i in range(n))
    return DataFolder(Path("data"), "generators", samples, samples, ())


_DATA = _sources(
    *((1, "old", 3), (1, "new", 4), (1, "other", 6), (1, "many", 9), (1, "nameless", 9)),
    *((0, "phone", 2), (0, "camera", 1), (0, "scan", 4), (0, "rare", 1)),
)


def _of(fold: Fold) -> dict[str, int]:
    return {s.source: sum(other.source == s.source for other in fold.samples) for s in fold.samples}


_PHOTOS = {"phone": 2, "camera": 1, "scan": 4, "rare": 1}


def test_a_family_is_left_out_with_the_sources_that_mix_and_judged_by_all_photos() -> None:
    folds_by_name = family_folds("leave-one-family-out", _DATA, _FAMILIES, 6)
    assert list(folds_by_name) == ["A", "B"]
    (fold,) = folds_by_name["A"]
    assert (fold.generator, fold.photos, fold.without) == ("A", None, ("many", "new", "old"))
    assert _of(fold) == {"old": 3, "new": 4, **_PHOTOS}
    assert list(family_folds("leave-one-family-out", _DATA, _FAMILIES, 7)) == ["A"]


def test_a_kind_of_photos_is_judged_by_half_as_many_pictures_against_known_generators() -> None:
    folds_by_name = family_folds("leave-one-photo-kind-out", _DATA, _FAMILIES, 6)
    assert list(folds_by_name) == ["phone", "scan"]
    (fold,) = folds_by_name["phone"]
    assert (fold.generator, fold.photos, fold.without) == ("phone", "phone", ("camera", "phone"))
    assert _of(fold) == {"old": 3, "new": 4, "other": 6, "phone": 2, "camera": 1}
    assert list(family_folds("leave-one-photo-kind-out", _DATA, _FAMILIES, 1)) == ["painting", "phone", "scan"]


def test_every_pair_of_a_family_and_a_kind_is_a_fold() -> None:
    folds_by_name = family_folds("leave-one-family-and-photo-kind-out", _DATA, _FAMILIES, 6)
    assert {family: [fold.photos for fold in folds] for family, folds in folds_by_name.items()} == {
        "A": ["phone", "scan"],
        "B": ["phone", "scan"],
    }
    assert folds_by_name["B"][1].without == ("many", "other", "scan")
    assert _of(folds_by_name["B"][1]) == {"other": 6, "scan": 4}
    with pytest.raises(DatasetError, match="no family with 9 validation images"):
        family_folds("leave-one-family-and-photo-kind-out", _DATA, _FAMILIES, 9)  # no kind has 4 and a family 9


def test_later_generators_are_those_from_2024_on_and_of_unknown_year() -> None:
    folds_by_name = family_folds("leave-later-generators-out", _DATA, _FAMILIES, 4)
    assert list(folds_by_name) == ["A", "B"]
    assert folds_by_name["A"][0].without == folds_by_name["B"][0].without == ("new", "other")
    assert _of(folds_by_name["A"][0]) == {"new": 4, **_PHOTOS}
    assert list(family_folds("leave-later-generators-out", _DATA, _FAMILIES, 5)) == ["B"]  # of A only four are later
    nameless = Families(_FAMILIES.names, {k: v for k, v in _FAMILIES.years.items() if k[1] != "old"})
    assert (
        folds_by_name["A"][0].without != family_folds("leave-later-generators-out", _DATA, nameless, 4)["A"][0].without
    )


def _judgement(margins: list[float], labels: list[int], content: list[float], source: str = "x") -> _Judgement:
    samples = tuple(Sample(Path(f"{source} {i}"), k, source) for i, k in enumerate(labels))
    probability = 1 / (1 + np.exp(-np.array(margins)))
    verdicts = ["ai" if p >= 0.6 else "real" if p < 0.4 else "unsure" for p in probability]
    return _Judgement(Fold("f", None, samples, ()), np.array(content), {"centre": probability}, {"centre": verdicts})


def test_images_of_two_folds_are_not_compared() -> None:
    one = _judgement([-2.0, -1.0, 1.0], [0, 0, 1], [0.0, 0.0, 0.0], "a")
    other = _judgement([8.0, 9.0], [0, 1], [0.0, 0.0], "b")  # all higher than the other fold's
    figures = _figures([one, other], "centre")
    assert (figures["auroc"], figures["ca_auroc"]) == (1.0, 1.0)
    assert (figures["images"], figures["ai"], figures["real"]) == (5, 2, 3)
    assert "interval" not in figures
    twice = _figures([one, one], "centre")
    assert (twice["images"], twice["ai"], twice["real"]) == (6, 1, 2)  # the same pictures in two folds
    alone = _figures([one], "whole")  # a look that the fold lacks is that of its centre
    assert set(alone["interval"]) == {"ca_auroc", "auroc"}
    apart = _figures([_judgement([0.0, 1.0] * 8, [0, 1] * 8, [-9.0, 9.0] * 8)], "centre")
    assert (apart["ca_auroc"], apart["auroc"]) == (None, 1.0)


def test_means_are_over_families_that_have_the_figure() -> None:
    figures = [{"ca_auroc": c, "auroc": a, "balanced_ece": 0.1} for c, a in ((None, 0.5), (0.6, 0.7), (0.8, 0.9))]
    means = _means(figures)
    assert (means["ca_auroc"], means["auroc"], means["balanced_ece"]) == pytest.approx((0.7, 0.7, 0.1))
    assert means["interval"]["ca_auroc"] == pytest.approx([0.6, 0.8])
    low, high = means["interval"]["auroc"]
    assert 0.5 <= low < 0.6 < 0.8 < high <= 0.9
    single = _means(figures[:1])
    assert (single["ca_auroc"], single["auroc"], single["interval"]) == (None, 0.5, {})
    assert _means(figures[1:2])["interval"] == {}


def test_a_summary_shows_the_default_look_and_the_worst_family_first() -> None:
    def of(value: float | None) -> dict[str, float | None]:
        return {"ca_auroc": value, "auroc": 0.5, "balanced_ece": 0.1}

    results = {
        "good": {"centre": of(0.9), "whole": of(0.6)},
        "bad": {"centre": of(0.7), "whole": of(0.8)},
        "none": {"centre": of(0.8), "whole": of(None)},
    }
    everything = [_judgement([-3.0, 0.0, 3.0], [0, 1, 1], [0.0] * 3, "phone")]
    summary = _summary({"protocol": "x"}, results, everything, _FAMILIES, "whole")
    assert list(summary["generators"]) == ["none", "good", "bad"]
    assert summary["generators"]["good"]["looks"]["centre"]["ca_auroc"] == 0.9
    assert (summary["protocol"]["look"], summary["mean_ca_auroc"]) == ("whole", pytest.approx(0.7))
    assert "mean_interval" not in summary
    assert summary["looks"]["centre"]["ca_auroc"] == pytest.approx(0.8)
    table = _decisions(everything, _FAMILIES, "whole")
    assert table == summary["decisions"]["whole"]
    assert table["real"]["families"] == {"phone": {"images": 1, "called_ai": 0.0, "called_real": 1.0, "unsure": 0.0}}
    assert (table["ai"]["called_ai"], table["ai"]["unsure"]) == (0.5, 0.5)


def test_shards_are_judged_as_their_folder(data: Path, tmp_path: Path) -> None:
    write_shards(find_data(data), tmp_path / "shards", 60_000, 0)
    families = read_families(data.parent / "families.csv")
    results = [
        families_protocol("leave-one-family-out", _config(root), families, tmp_path / name, at_least=2, progress=False)
        for name, root in (("folder", data), ("streamed", tmp_path / "shards"))
    ]
    for name, figures in results[0]["generators"].items():
        assert results[1]["generators"][name]["auroc"] == pytest.approx(figures["auroc"])
        assert results[1]["generators"][name]["images"] == figures["images"]
    with pytest.raises(ConfigurationError, match="--leave-out does not work on shards"):
        dataclasses.replace(_config(tmp_path / "shards"), leave_out=("sd3",)).pictures()
