"""Features that trials share: the columns of the widest network are the features of every other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from loaded_features import views_of, windows_of

from asr_models import ASRNetLite
from asr_train.fitting.config import ClosedFormConfig, recipe
from asr_train.fitting.extraction import Extractor
from asr_train.fitting.features import FeatureStore
from asr_train.tuning.shared_features import SharedFeatures, statistic_columns, widest
from asr_train.tuning.space import CLOSED_FORM, Choice, Range

WIDEST = {"blocks": 4, "activations": (0, 2), "correlations": 3, "scales": (1, 2)}


@pytest.mark.parametrize(
    "options",
    [
        WIDEST,
        {"blocks": 3, "activations": None, "scales": (2,)},
        {"blocks": 3, "activations": (1, 2), "correlations": 2, "scales": (2, 1)},
    ],
)
def test_a_networks_features_are_columns_of_the_widest(options: dict[str, object]) -> None:
    x = torch.rand(2, 3, 40, 40) * 2 - 1
    wide, own = ASRNetLite(**WIDEST).eval(), ASRNetLite(**options).eval()  # type: ignore[arg-type]
    wide.load_pretrained("imagenet")
    own.load_pretrained("imagenet")
    with torch.inference_mode():
        expected, features = own.features(x), wide.features(x)
    torch.testing.assert_close(features[:, statistic_columns(options, WIDEST)], expected)


def test_a_trial_reads_what_it_would_have_extracted(generators: Path, tmp_path: Path) -> None:
    given = {"data": str(generators), "views": 1, "workers": 0, "preprocess": {"mode": "crop", "size": 48}}
    config = recipe("asrnet-lite", **given, options={"blocks": 2, "scales": (2, 1), "activations": (1, 1)})
    assert isinstance(config, ClosedFormConfig)
    shared = SharedFeatures(config.pictures(), tmp_path, {"blocks": 3, "activations": (0, 1), "scales": [1, 2]})
    shared.extract(config)
    written = sorted((tmp_path / "features").iterdir())
    table = shared(config)
    assert sorted((tmp_path / "features").iterdir()) == written
    alone = shared.alone(config)(config)
    assert windows_of(alone).shape == windows_of(table).shape
    np.testing.assert_allclose(windows_of(table), windows_of(alone), rtol=1e-4, atol=1e-5)
    network = ASRNetLite(blocks=2, scales=(2, 1), activations=(1, 1))
    network.load_pretrained("imagenet")
    expected = FeatureStore(Extractor(network, config), config.pictures(), tmp_path / "own")
    assert table.samples(np.arange(len(table))) == expected.samples(np.arange(len(expected)))
    np.testing.assert_allclose(windows_of(table), windows_of(expected), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(views_of(table), views_of(expected), rtol=1e-4, atol=1e-5)


def test_the_widest_network_has_every_statistic_of_the_space() -> None:
    assert widest(CLOSED_FORM, {}) == {"blocks": 15, "activations": (0, 11), "correlations": 5, "scales": [1, 2]}
    assert widest({"options.blocks": Choice((3, 5)), "ridge": Range(0.1, 1.0)}, {"scales": (2,)}) == {
        "blocks": 5,
        "activations": None,
        "correlations": 0,
        "scales": [2],
    }
