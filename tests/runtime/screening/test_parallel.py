"""Files are scored side by side, and the records are the same as one after another."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from runtime_samples import Runner, build_model, encoded, picture, write_clip

from asr_runtime import Detector, screen
from asr_runtime.errors import ConfigurationError
from asr_runtime.inference.looking import Look, LookChoice
from asr_runtime.records import ImageRecord, Record, SummaryRecord


@pytest.fixture
def everything(tmp_path: Path, mixed_folder: Path) -> Path:
    """Pictures, broken ones, a video, a broken video, and the same frame twice."""
    for index in range(12):
        # Sizes differ, so that a picture is often done before those in front of it.
        side = 600 if index % 3 == 0 else 40
        (mixed_folder / f"{index:02}.png").write_bytes(encoded(picture(index, side, side), ".png"))
    write_clip(mixed_folder / "05-clip.avi", 30)
    broken = write_clip(mixed_folder / "07-broken.avi", 40)
    broken.write_bytes(broken.read_bytes()[:12_000])
    return mixed_folder


def _without_time(records: list[Record]) -> list[Record]:
    return [replace(r, seconds=0.0) if isinstance(r, SummaryRecord) else r for r in records]


@pytest.mark.parametrize("isolate", [False, True])
def test_records_and_their_order_do_not_depend_on_jobs(everything: Path, model_bytes: bytes, isolate: bool) -> None:
    alone = list(screen([everything], Detector(model_bytes, device="cpu"), isolate=isolate))
    together = list(screen([everything], Detector(model_bytes, device="cpu", jobs=3), isolate=isolate))
    assert len(alone) > 50
    assert _without_time(together) == _without_time(alone)


@pytest.mark.parametrize("model", ["asrnet-lite", "asrnet-lite-tiny"])
def test_probabilities_of_the_built_in_models_are_the_same_to_the_last_bit(model: str, examples: Path) -> None:
    sources = [examples / name for name in ("real/coffee.png", "real/dress.jpg", "ai/sd3-1.jpg", "ai/uvit-1.webp")]
    alone = list(screen(sources, Detector(model, device="cpu"), windows=True))
    together = list(screen(sources, Detector(model, device="cpu", jobs=4, deadline=60), windows=True))
    assert _without_time(together) == _without_time(alone)


def test_pictures_come_with_their_records(everything: Path, model_bytes: bytes) -> None:
    detector = Detector(model_bytes, device="cpu", jobs=3)
    pictures = [
        (record.probability, image)
        for record, image in screen([everything], detector).with_pictures()
        if isinstance(record, ImageRecord)
    ]
    assert len(pictures) == 15
    for probability, image in pictures:
        assert image is not None
        assert detector.look(image).probability == probability


def test_few_pictures_are_in_memory_while_nobody_takes_records(tmp_path: Path, model_bytes: bytes) -> None:
    class Counting(Detector):
        looks = 0

        def look(self, image: NDArray[np.uint8], choice: LookChoice = "auto") -> Look:
            self.looks += 1
            return super().look(image, choice)

    for index in range(40):
        (tmp_path / f"{index:02}.png").write_bytes(encoded(picture(index), ".png"))
    detector = Counting(model_bytes, device="cpu", jobs=3)
    run = screen([tmp_path], detector)
    next(run)
    time.sleep(1.0)
    assert 1 < detector.looks <= 3 + 2 + 2  # in the queue, the one that waits for it, the one that was taken
    assert len(list(run)) == 40
    assert detector.looks == 40


def test_a_run_that_is_stopped_ends_with_its_account(tmp_path: Path, model_bytes: bytes) -> None:
    for index in range(60):
        (tmp_path / f"{index:02}.png").write_bytes(encoded(picture(index), ".png"))
    stop = threading.Event()
    records = []
    for record in screen([tmp_path], Detector(model_bytes, device="cpu", jobs=3), stop=stop):
        records.append(record)
        if len(records) == 7:
            stop.set()
    *images, summary = records
    assert isinstance(summary, SummaryRecord)
    assert (summary.read, summary.scored) == (7, 7)
    assert [Path(image.source).name for image in images] == [f"{index:02}.png" for index in range(7)]  # type: ignore[union-attr]


def test_the_threads_of_a_run_end_with_it(everything: Path, model_bytes: bytes) -> None:
    def jobs() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name.startswith("asr-job")}

    before = jobs()
    run = screen([everything], Detector(model_bytes, device="cpu", jobs=4))
    next(run)
    started = jobs() - before
    run.close()
    for thread in started:
        thread.join(5)
    assert len(started) == 4
    assert not any(thread.is_alive() for thread in started)


def test_inferences_without_end_end_the_run(tmp_path: Path) -> None:
    for index in range(9):
        shutil.copyfile(_white(tmp_path / "white"), tmp_path / f"{index}.png")
    detector = Detector(build_model(endless=True), device="cpu", threads=1, deadline=0.2, jobs=3)
    *errors, summary = screen([str(tmp_path / "*.png")], detector)
    assert isinstance(summary, SummaryRecord)
    assert (len(errors), summary.failed, summary.given_up) == (3, 3, 1)


def _white(path: Path) -> Path:
    path.write_bytes(encoded(np.full((8, 8, 3), 255, np.uint8), ".png"))
    return path


def test_fewer_than_one_job_is_refused(model_bytes: bytes) -> None:
    with pytest.raises(ConfigurationError, match="jobs 0: expected 1 to 1024"):
        Detector(model_bytes, jobs=0)


def test_the_command_takes_jobs(everything: Path, model_path: Path, run_command: Runner) -> None:
    arguments = [everything, "--model", model_path, "--format", "csv"]
    outputs = [run_command("screen", *arguments, *more).stdout for more in ([], ["--jobs", 1], ["--jobs", 5])]
    assert outputs[0] == outputs[1] == outputs[2]
    assert outputs[0].count(b"\n") > 50
