"""ASRNet-Lite from a data folder to figures: features kept, sources left out, calibration on unseen sources."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from loaded_features import views_of, windows_of
from tiny_training import network_with_two_blocks, tiny

from asr_models import ASRNetLite, load_checkpoint
from asr_runtime.errors import AsrError, ConfigurationError, DatasetError
from asr_runtime.media.image import read_image
from asr_train.cli import train_command
from asr_train.data.degradations import Degradation, degradation
from asr_train.data.layouts import find_data
from asr_train.data.shards import INDEX
from asr_train.data.write_shards import write_shards
from asr_train.figures.calibrate import calibrate
from asr_train.figures.scoring import score_checkpoint
from asr_train.fitting.closed_form import ClosedForm
from asr_train.fitting.config import recipe
from asr_train.fitting.extraction import Extractor
from asr_train.fitting.features import FeatureStore
from asr_train.fitting.fit import train
from asr_train.protocols.learning_curves import learning_curves
from asr_train.protocols.leave_out import leave_out_protocol


def test_the_checkpoint_scores_what_the_solution_scored(generators: Path, tmp_path: Path) -> None:
    run = train(tiny(generators), tmp_path)
    loaded = load_checkpoint(run.checkpoint)
    data = find_data(generators)
    scored = score_checkpoint(loaded, data.val, 90)
    order = np.argsort(scored.margins)
    assert (scored.probability[order][:-1] <= scored.probability[order][1:]).all()
    assert "never saw its source" in loaded.calibration["fitted_on"]
    table = FeatureStore(Extractor(network_with_two_blocks(), tiny(generators)), data, tmp_path)  # what the run kept
    features = windows_of(table)[table.rows(data.val), 0]
    network = loaded.network
    assert isinstance(network, ASRNetLite)
    margins = features @ network.head.weight.detach().numpy()[0] + float(network.head.bias.detach())
    assert scored.margins == pytest.approx(margins, abs=1e-4)


def test_features_of_a_picture_do_not_depend_on_the_others(generators: Path, tmp_path: Path) -> None:
    config = tiny(generators)
    data = find_data(generators)
    every = FeatureStore(Extractor(network_with_two_blocks(), config), data, tmp_path)
    files = set(tmp_path.glob("features/*.npz"))
    fewer = FeatureStore(Extractor(network_with_two_blocks(), config), data.without(["sd3"]), tmp_path)
    assert set(tmp_path.glob("features/*.npz")) == files
    kept = np.flatnonzero(~every.pictures.of({"sd3"}))
    assert 0 < len(kept) < every.trained
    assert views_of(every)[:, kept] == pytest.approx(views_of(fewer), abs=1e-4)


def test_shards_give_the_head_and_the_thresholds_of_their_folder(generators: Path, tmp_path: Path) -> None:
    """Other files, another order, the same pictures with the same views; a damaged row costs itself."""
    write_shards(find_data(generators), tmp_path / "shards", 60_000, 0)
    folder = ClosedForm(network_with_two_blocks(), tiny(generators), find_data(generators), tmp_path)
    data = find_data(tmp_path / "shards")
    shards = ClosedForm(network_with_two_blocks(), tiny(tmp_path / "shards"), data, tmp_path / "runs")
    for without in ((), ("sd3",)):
        assert shards.head(without).weight == pytest.approx(folder.head(without).weight, rel=1e-6, abs=1e-9)
    one, other = (solved.calibration("a test") for solved in (folder, shards))
    assert other.calibration.temperature == pytest.approx(one.calibration.temperature, rel=1e-6)
    assert [p.threshold for p in other.operating_points] == pytest.approx([p.threshold for p in one.operating_points])
    run = train(tiny(tmp_path / "shards"), tmp_path / "runs")
    head = load_checkpoint(run.checkpoint).network.head
    assert head.weight.detach().numpy()[0] == pytest.approx(folder.head().weight, rel=1e-5, abs=1e-7)  # type: ignore[union-attr, operator]


def test_a_damaged_row_of_an_index_costs_its_picture_and_one_line(
    generators: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "shards"
    write_shards(find_data(generators), folder, 60_000, 0)
    whole = len(find_data(folder).train)
    index = pq.ParquetFile(folder / INDEX)
    with pq.ParquetWriter(tmp_path / "damaged.parquet", index.schema_arrow) as writer:
        for group in range(index.num_row_groups):
            table = index.read_row_group(group)
            if group == 0:
                labels = pa.array([7, *table["label"].to_pylist()[1:]], pa.int8())
                table = table.set_column(table.schema.get_field_index("label"), "label", labels)
            writer.write_table(table, row_group_size=len(table))
    (tmp_path / "damaged.parquet").replace(folder / INDEX)
    store = ClosedForm(network_with_two_blocks(), tiny(folder), find_data(folder), tmp_path / "runs").store
    assert store.trained == whole - 1
    (line,) = [record.message for record in caplog.records if "skipped" in record.message]
    assert "row 0 of train-000000.tar is damaged" in line


def test_margins_for_calibration_come_from_heads_without_the_source(generators: Path, tmp_path: Path) -> None:
    solved = ClosedForm(network_with_two_blocks(), tiny(generators), find_data(generators), tmp_path)
    fitted = solved.calibration("a test")
    train = find_data(generators).train
    rows, windows = solved.store.rows(train), windows_of(solved.store)
    labels = np.array([s.label for s in train])
    margins = np.array([solved.fit.head({s.source})(windows[[r], 0])[0] for s, r in zip(train, rows, strict=True)])
    assert fitted == calibrate(labels, margins, "a test")
    seen = calibrate(labels, solved.head()(windows[rows, 0]), "a test")
    assert seen.calibration != fitted.calibration


def test_pictures_that_cannot_be_read_are_left_out_named_and_counted(
    generators: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = next((generators / "photos" / "train" / "nature").iterdir())
    broken.write_bytes(broken.read_bytes()[:2000])
    empty = generators / "sd3" / "val" / "ai" / "empty.png"
    empty.touch()
    (generators / "sd3" / "train" / "ai" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    run = train(tiny(generators), tmp_path)
    assert run.summary["unreadable"] == sorted([broken.name, "empty.png", "gone.jpg"])
    assert f"skipped: {broken}: the image is truncated" in caplog.text
    assert f"skipped: {empty}: the file is empty" in caplog.text
    assert "gone.jpg: cannot be read (No such file or directory)" in caplog.text
    assert "3 of 46 images cannot be read" in caplog.text


def test_the_name_of_a_picture_that_cannot_be_read_is_where_it_is_now(
    generators: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (generators / "sd3" / "val" / "ai" / "empty.png").touch()
    ClosedForm(network_with_two_blocks(), tiny(generators), find_data(generators), tmp_path / "runs")
    moved = generators.rename(tmp_path / "moved")
    caplog.clear()
    ClosedForm(network_with_two_blocks(), tiny(moved), find_data(moved), tmp_path / "runs")
    assert f"skipped: {moved}/sd3/val/ai/empty.png: the file is empty" in caplog.text


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("photos/train/nature", "snaps/train/nature"), "none of the 16 real images of the split train can be read"),
        (("midjourney/val/ai", "sd3/val/ai"), "none of the 8 ai images of the split val can be read"),
    ],
)
def test_a_class_of_which_nothing_can_be_read_is_refused(
    generators: Path, tmp_path: Path, folders: tuple[str, ...], message: str
) -> None:
    for folder in folders:
        for file in (generators / folder).iterdir():
            file.write_bytes(b"")
    with pytest.raises(DatasetError, match=message):
        train(tiny(generators), tmp_path)


@pytest.mark.parametrize("protocol", ["leave-one-generator-out", "leave-one-generator-and-photos-out"])
def test_protocols_need_one_extraction(generators: Path, tmp_path: Path, protocol: str) -> None:
    result = leave_out_protocol(protocol, tiny(generators), tmp_path, at_least=3, progress=False)
    assert set(result["generators"]) == {"midjourney", "sd3"}
    assert result["generators"]["sd3"].get("ca_auroc") is None or 0 <= result["mean_ca_auroc"] <= 1  # few pictures
    assert 0 <= result["mean_auroc"] <= 1
    assert len(list(tmp_path.glob("features/*.npz"))) == 8  # four sources, two splits
    stored = json.loads((tmp_path / f"{protocol}.json").read_text())
    assert stored == json.loads(json.dumps(result))


def test_a_generator_left_out_is_judged_under_degradations(generators: Path, tmp_path: Path) -> None:
    def judged(*degradations: Degradation) -> Mapping[str, Any]:
        name, config = "leave-one-generator-out", tiny(generators)
        return leave_out_protocol(name, config, tmp_path, at_least=3, progress=False, degradations=degradations)

    mild, none, harsh = degradation("jpeg", 90), degradation("crop", 0.75), degradation("blur", 2)
    result = judged(mild, none, harsh)
    sd3 = result["generators"]["sd3"]
    assert list(result["mean_degraded"]) == ["jpeg 90", "crop 0.75", "blur 2"]
    blurred = [figures["degraded"]["blur 2"]["auroc"] for figures in result["generators"].values()]
    assert result["mean_degraded"]["blur 2"]["auroc"] == pytest.approx(sum(blurred) / 2)
    # Every picture is judged at JPEG 90 anyway, and this degradation is just that.
    assert sd3["degraded"]["jpeg 90"]["auroc"] == sd3["auroc"]
    assert sd3["degraded"]["jpeg 90"]["ca_auroc"] == sd3["ca_auroc"]
    assert "mean_degraded" not in judged()


def test_only_one_protocol_takes_degradations(generators: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--degrade: leave-one-generator-and-photos-out"):
        leave_out_protocol(
            "leave-one-generator-and-photos-out",
            tiny(generators),
            tmp_path,
            at_least=3,
            degradations=[degradation("jpeg", 75)],
        )
    with pytest.raises(ConfigurationError, match="degradation jpeg 76: expected one of 95, 90, 75"):
        degradation("jpeg", 76)


@pytest.fixture
def pairs(generators: Path, tmp_path: Path) -> Path:
    """Photos and what two "networks" make of them: one leaves a strong trace, the other nearly none."""
    out = tmp_path / "pairs"
    for name, strength in (("resynthesised_strong", 25.0), ("resynthesised_weak", 1.0)):
        for split in ("train", "val"):
            for number, path in enumerate(sorted((generators / "photos" / split / "nature").iterdir())):
                photo = read_image(path)[:64, :64]
                stripes = np.where(np.arange(photo.shape[1]) % 2, strength, -strength)[None, :, None]
                twin = np.clip(photo + stripes, 0, 255).astype(np.uint8)
                for folder, image in (("nature", photo), ("ai", twin)):
                    file = out / name / split / folder / f"photos_{number:04}.png"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(file), image)
    return out


def test_a_resynthesiser_is_judged_seen_and_never_seen(generators: Path, pairs: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny(generators), pairs=str(pairs), pair_weight=10.0, equalise="off")
    result = leave_out_protocol("leave-one-resynthesiser-out", config, tmp_path / "runs", progress=False)
    strong, weak = result["generators"]["resynthesised_strong"], result["generators"]["resynthesised_weak"]
    assert strong["seen_auroc"] > 0.9
    assert strong["seen_ranked_right"] == 1.0
    assert strong["pairs"] == weak["pairs"] == len(list((generators / "photos" / "val" / "nature").iterdir()))
    assert result["mean_auroc"] == pytest.approx((strong["auroc"] + weak["auroc"]) / 2)
    shutil.rmtree(pairs / "resynthesised_strong" / "train")  # never seen: as if it were not there
    rest = ClosedForm(network_with_two_blocks(), config, find_data(generators), tmp_path / "rest")
    unseen = rest.pair_figures(rest.head())["resynthesised_strong"]
    assert (strong["auroc"], strong["ranked_right"]) == (unseen["auroc"], unseen["ranked_right"])


def test_a_run_says_how_it_does_on_pairs(generators: Path, pairs: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny(generators), pairs=str(pairs), pair_weight=10.0, equalise="off")
    run = train(config, tmp_path / "runs")
    assert run.summary["val_pairs"]["resynthesised_strong"]["ranked_right"] == 1.0
    assert len(list((tmp_path / "runs").glob("pairs-*.npz"))) == 1


def test_pairs_of_a_photo_source_that_is_left_out_go_with_it(generators: Path, pairs: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny(generators), pairs=str(pairs))
    solved = ClosedForm(network_with_two_blocks(), config, find_data(generators), tmp_path / "runs")
    alone = ClosedForm(network_with_two_blocks(), tiny(generators), find_data(generators), tmp_path / "runs")
    assert np.abs(solved.head().weight - alone.head().weight).max() > 1e-6
    without = {"resynthesised_strong", "resynthesised_weak"}
    assert solved.head(without).weight == pytest.approx(alone.head().weight, rel=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs --pairs"),
        ({"pairs": "one"}, "two or more"),
        ({"model": "asrnet"}, "asrnet is not trained with pairs"),
    ],
)
def test_a_resynthesiser_protocol_without_its_pairs_is_refused(
    generators: Path, pairs: Path, tmp_path: Path, given: dict[str, str], message: str
) -> None:
    if given.get("pairs") == "one":
        shutil.rmtree(pairs / "resynthesised_weak")
    given = {**given, **({"pairs": str(pairs)} if "pairs" in given else {})}
    config = recipe(given.pop("model", "asrnet-lite"), data=str(generators), **given)
    with pytest.raises(AsrError, match=message):
        leave_out_protocol("leave-one-resynthesiser-out", config, tmp_path / "runs", progress=False)


def test_learning_curves_end_where_leaving_one_out_stands(generators: Path, tmp_path: Path) -> None:
    result = learning_curves(tiny(generators), tmp_path, at_least=3, progress=False)
    curves = result["curves"]
    assert [p["count"] for p in curves["photo sources"]] == [1, 2]
    assert [p["count"] for p in curves["generators"]] == [1]  # of two, one is judged
    counts = [p["count"] for p in curves["images"]]
    assert counts == sorted(counts)
    assert counts[-1] == len(find_data(generators).train)
    whole = leave_out_protocol("leave-one-generator-out", tiny(generators), tmp_path, at_least=3, progress=False)
    for curve in curves.values():
        assert curve[-1]["auroc"] == pytest.approx(whole["mean_auroc"])
    assert json.loads((tmp_path / "learning-curves.json").read_text()) == json.loads(json.dumps(result))
    assert (tmp_path / "learning-curves.svg").read_text().startswith("<svg ")


def test_learning_curves_of_a_network_trained_by_gradients_are_refused(generators: Path, tmp_path: Path) -> None:
    line = f"--protocol learning-curves --model asrnet --runs {tmp_path} --data {generators}"
    done = CliRunner().invoke(train_command, line.split())
    assert (done.exit_code, "use asrnet-lite" in done.output) == (2, True), done.output


def test_the_command_takes_its_options(generators: Path, tmp_path: Path) -> None:
    line = (
        f"--model asrnet-lite --blocks 2 --scales 1 --scales 2 --crop-size 32 --views 1 --workers 0 --runs {tmp_path}"
    )
    done = CliRunner().invoke(train_command, [*line.split(), "--data", str(generators)])
    assert done.exit_code == 0, done.output
    (checkpoint,) = tmp_path.glob("run-*/checkpoint_asrnet-lite.pth")
    loaded = load_checkpoint(checkpoint)
    assert loaded.options == {"blocks": 2, "scales": (1, 2)}
    assert loaded.training["config"]["augment"]["patch_mask"] == 0.0  # the network's own recipe


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--model asrnet-lite --epochs 3", "--epochs: asrnet-lite is solved for in closed form"),
        ("--model asrnet --pair-weight 0.1", "--pair-weight: asrnet is trained by gradient descent"),
    ],
)
def test_options_that_would_be_ignored_are_refused(generators: Path, line: str, message: str) -> None:
    done = CliRunner().invoke(train_command, [*line.split(), "--data", str(generators)])
    assert (done.exit_code, message in done.output) == (2, True), done.output


def test_missing_pairs_are_refused_by_name(generators: Path, tmp_path: Path) -> None:
    line = f"--model asrnet-lite --blocks 1 --crop-size 32 --workers 0 --runs {tmp_path} --pairs {generators}"
    done = CliRunner().invoke(train_command, [*line.split(), "--data", str(generators)])
    assert done.exit_code == 2
    assert "no pairs of a photo and its twin" in done.output


def test_one_photo_source_cannot_be_left_out(generators: Path, tmp_path: Path) -> None:
    shutil.rmtree(generators / "snaps")
    with pytest.raises(DatasetError, match="two photo sources"):
        leave_out_protocol("leave-one-generator-and-photos-out", tiny(generators), tmp_path, at_least=3)
