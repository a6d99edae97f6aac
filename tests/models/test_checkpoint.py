"""Checkpoints: ours, both published kinds, and everything that is not one."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
import torchvision

from asr_models import (
    ASRNet,
    Checkpoint,
    CheckpointError,
    create_model,
    default_preprocess,
    load_checkpoint,
    save_checkpoint,
)


def _own(path: Path, **options: object) -> Checkpoint:
    torch.manual_seed(0)
    network = create_model("asrnet", **options).eval()
    checkpoint = Checkpoint(
        "asrnet", options, default_preprocess("asrnet"), network, calibration={"temperature": 2.0, "shift": 0.5}
    )
    save_checkpoint(path, checkpoint)
    return checkpoint


def test_what_was_saved_comes_back_and_scores_the_same(tmp_path: Path) -> None:
    saved = _own(tmp_path / "a.pth", dim=8)
    loaded = load_checkpoint(tmp_path / "a.pth")
    assert (loaded.name, dict(loaded.options), dict(loaded.preprocess)) == (
        "asrnet",
        {"dim": 8},
        dict(saved.preprocess),
    )
    frames = torch.randint(0, 256, (2, 50, 60, 3), dtype=torch.uint8)
    with torch.inference_mode():
        for a, b in zip(saved.deployed()(frames), loaded.deployed()(frames), strict=True):
            assert torch.equal(a, b)
    assert len(loaded.sha256) == 64


def test_probability_is_the_calibrated_margin(tmp_path: Path) -> None:
    _own(tmp_path / "a.pth", dim=8)
    with torch.inference_mode():
        probability, logits = load_checkpoint(tmp_path / "a.pth").deployed()(
            torch.full((1, 9, 9, 3), 9, dtype=torch.uint8)
        )
    assert torch.allclose(probability, torch.sigmoid((logits[:, 1] - logits[:, 0]) / 2.0 + 0.5))


def test_a_published_asrnet_checkpoint_loads_and_gives_its_logits(tmp_path: Path) -> None:
    torch.manual_seed(3)
    published = ASRNet(dim=16, prototypes=4, front_end="official").eval()
    torch.save(
        {
            "epoch": 49,
            "model_state": published.state_dict(),
            "optimizer_state": {},
            "scheduler_state": {},
            "val_acc": 0.9,
            "config": argparse.Namespace(lr=2e-4),  # what a training script may well store
        },
        tmp_path / "checkpoint_asrnet.pth",
    )
    loaded = load_checkpoint(tmp_path / "checkpoint_asrnet.pth", "asrnet")
    assert loaded.options == {"dim": 16, "prototypes": 4, "front_end": "official"}
    x = torch.rand(1, 3, 70, 50)
    with torch.inference_mode():
        assert torch.equal(loaded.network(x), published(x))


def test_a_published_lightning_checkpoint_loads(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = torchvision.models.resnet34(num_classes=2).eval()
    state = {f"model.{k}": v for k, v in network.state_dict().items()}
    torch.save({"state_dict": state, "pytorch-lightning_version": "2.5.0", "epoch": 3}, tmp_path / "best.ckpt")
    with pytest.raises(CheckpointError, match="--model fft-resnet34 --spectrum"):
        load_checkpoint(tmp_path / "best.ckpt")
    loaded = load_checkpoint(tmp_path / "best.ckpt", "fft-resnet34", {"spectrum": "patch"})
    assert loaded.preprocess["mode"] == "squash"
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(loaded.network.backbone(x), network(x))  # type: ignore[operator]


def test_a_checkpoint_that_lacks_and_adds_keys_names_the_first_of_each(tmp_path: Path) -> None:
    _own(tmp_path / "a.pth", dim=8)
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    content["model_state"]["stage9.weight"] = content["model_state"].pop("stage1.0.weight")
    torch.save(content, tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match=r"missing stage1\.0\.weight; unexpected stage9\.weight") as caught:
        load_checkpoint(tmp_path / "b.pth")
    assert "\n" not in str(caught.value)


def test_another_width_names_the_first_tensor_that_does_not_fit(tmp_path: Path) -> None:
    _own(tmp_path / "a.pth", dim=8)
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    content["options"] = {"dim": 16}
    torch.save(content, tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match=r"stage1\.0\.weight has shape \(8, 32, 3, 3\)"):
        load_checkpoint(tmp_path / "b.pth")


@pytest.mark.parametrize("cut", [0, 1, 100, 5_000, -1])
def test_a_truncated_checkpoint_is_one_clear_line(tmp_path: Path, cut: int) -> None:
    _own(tmp_path / "a.pth", dim=8)
    (tmp_path / "b.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:cut])
    with pytest.raises(CheckpointError, match=r"b\.pth: not a checkpoint, or damaged") as caught:
        load_checkpoint(tmp_path / "b.pth")
    assert "\n" not in str(caught.value)


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("owned"),))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model_state": _Evil()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "evil.pth")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [{"weights": 1}, [1, 2], {"model_state": {"fc.weight": torch.zeros(1)}}])
def test_a_file_of_something_else_is_refused_by_its_name(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"x\.pth"):
        load_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("options", {"dim": "wide"}, "options or preprocessing cannot be used"),
        ("options", {"depth": 3}, "no option 'depth'"),
        ("preprocess", {"mode": "zoom", "size": 3}, "preprocess mode 'zoom'"),
        ("preprocess", 3, "options or preprocessing cannot be used"),
        ("model_state", {"stage1.0.weight": 3}, "not a mapping of names to tensors"),
        ("format", "asrnet-edge/9", "format asrnet-edge/9, this version reads asrnet-edge/1"),
        ("classes", ["ai", "real"], "classes"),
    ],
)
def test_an_entry_that_cannot_be_used_is_named(tmp_path: Path, entry: str, value: object, message: str) -> None:
    _own(tmp_path / "a.pth", dim=8)
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    content[entry] = value
    torch.save(content, tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(tmp_path / "b.pth")
    assert "\n" not in str(caught.value)


def test_a_wrong_name_and_a_missing_file_are_reported(tmp_path: Path) -> None:
    _own(tmp_path / "a.pth", dim=8)
    with pytest.raises(CheckpointError, match="holds asrnet, not fft-resnet34"):
        load_checkpoint(tmp_path / "a.pth", "fft-resnet34")
    with pytest.raises(CheckpointError, match="No such file"):
        load_checkpoint(tmp_path / "none.pth")
