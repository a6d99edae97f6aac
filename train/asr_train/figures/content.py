"""The content-only control: what a detector could have learnt from subject matter alone.

A picture is reduced to 48 x 48 pixels, where no generator's trace is left, and described by an ImageNet network. What
separates the classes there is the subject: a detector that does no better has learnt the data set, not the traces.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from asr_models.efficientnet_lite import EfficientNetLite0, pretrained_state
from asr_runtime.caches import cache_folder
from asr_runtime.errors import DatasetError, InputError, OutputError, SourceError
from asr_runtime.media.image import decode_image
from asr_runtime.reports.progress import progress_bar
from asr_runtime.whole_file import whole_file
from asr_train.data.draws import source_weights
from asr_train.data.layouts import Sample, picture_counts

__all__ = [
    "SMALLEST_SIDE",
    "THUMBNAIL",
    "ContentProbe",
    "content_features",
    "fit_content_probe",
    "fit_features",
    "picture_weights",
    "too_small",
]

THUMBNAIL = 48
"""Side of the thumbnail in pixels."""
SMALLEST_SIDE = 2 * THUMBNAIL
"""Shorter side from which on a thumbnail shows content only; smaller pictures keep some of their traces in it."""

_INPUT = 224  # what the network was trained with
_FEATURES = 1280
_STRENGTH = 1e-3  # inverse regularisation of the logistic regression
_LARGEST_FIT = 10_000  # images; more would take hours and hardly change the probe
_BATCH = 32
_VERSION = "content-1"  # of the cached features; changes with everything above


@dataclass(frozen=True)
class ContentProbe:
    """A content-only classifier, fitted.

    Attributes:
        classifier: standardisation and logistic regression on the features of `content_features`.
        images: how many images it was fitted on.
        fitted_on: names the data, for people.
    """

    classifier: Pipeline
    images: int
    fitted_on: str = ""

    def score(self, samples: Sequence[Sample], progress: bool = True) -> NDArray[np.float64]:
        """Return the log-odds of AI-generated (n,), by content alone; NaN where a file cannot be read."""
        return self.score_features(content_features(samples, progress))

    def score_features(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """As `score`, for features (n, 1280) that are at hand."""
        scores = np.full(len(features), np.nan)
        readable = ~np.isnan(features[:, 0])
        if readable.any():
            scores[readable] = self.classifier.decision_function(features[readable])
        return scores


def fit_content_probe(samples: Sequence[Sample], fitted_on: str = "", progress: bool = True) -> ContentProbe:
    """Fit the probe: standardised features, logistic regression, both classes weighing the same.

    The probe stands for what a content-only detector could have learnt, so it must be fitted on **the training data of
    the detector that it judges**: for a detector that never saw a generator, without that generator. Holding its score
    fixed is stratification by a propensity score (Rosenbaum and Rubin 1984, "Reducing bias in observational studies
    using subclassification on the propensity score"). A probe that has seen the generator that was left out ranks its
    images as no such detector could, and makes even a detector by content look far below chance (measured with eight
    bins and nine generators: 0.20 on average, against 0.54 with the probe of the same protocol).

    Args:
        samples: training images; of more than 10,000 that many are drawn at random.
        fitted_on: names them, for people.
        progress: show a progress bar on stderr while features are computed.

    Raises:
        DatasetError: fewer than two readable images, or one class.
    """
    drawn = np.arange(len(samples))
    if len(drawn) > _LARGEST_FIT:
        drawn = np.sort(np.random.default_rng(0).choice(len(samples), _LARGEST_FIT, replace=False))
    chosen = [samples[i] for i in drawn.tolist()]
    return fit_features(content_features(chosen, progress), chosen, fitted_on)


def fit_features(features: NDArray[np.float32], samples: Sequence[Sample], fitted_on: str = "") -> ContentProbe:
    """As `fit_content_probe`, for features (n, 1280) that are at hand.

    Raises:
        DatasetError: fewer than two readable images, or one class.
    """
    readable = np.flatnonzero(~np.isnan(features[:, 0]))
    usable = [samples[i] for i in readable.tolist()]
    labels = np.array([s.label for s in usable])
    if len(set(labels.tolist())) < 2:
        raise DatasetError("the content-only probe needs readable training images of both classes")
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=_STRENGTH, max_iter=1000))
    classifier.fit(features[readable], labels, logisticregression__sample_weight=picture_weights(usable))
    return ContentProbe(classifier, len(usable), fitted_on)


def picture_weights(samples: Sequence[Sample]) -> NDArray[np.float64]:
    """Return weights (n,) of mean 1: classes weigh the same, within a class a source of n images weighs sqrt(n)."""
    weights = source_weights(picture_counts(samples), "sources")
    return np.array([weights[s.label, s.source] * len(samples) for s in samples])


def too_small(samples: Sequence[Sample]) -> int | None:
    """Return the typical shorter side in pixels if thumbnails of such pictures still show traces, else None."""
    sides = []
    for sample in samples[:: max(1, len(samples) // 20)]:
        with contextlib.suppress(InputError):
            sides.append(min(sample.read().shape[:2]))
    typical = int(np.median(sides)) if sides else SMALLEST_SIDE
    return typical if typical < SMALLEST_SIDE else None


def content_features(samples: Sequence[Sample], progress: bool = True) -> NDArray[np.float32]:
    """Describe what pictures show: EfficientNet-Lite0's pooled features of their 48 x 48 thumbnails.

    The central square is area-averaged to 48 x 48 pixels and enlarged to the network's 224. About 30 ms per image on
    one processor core; kept under the file's SHA-256 in the user's cache folder ($XDG_CACHE_HOME or ~/.cache), so a
    picture is described once. A cache that cannot be written is no error.

    Args:
        samples: n images.
        progress: show a progress bar on stderr, where that is a terminal.

    Returns:
        float32 (n, 1280); rows of unreadable files are NaN.

    Raises:
        WeightsError: the package with the network's weights is not installed.
    """
    features = np.full((len(samples), _FEATURES), np.nan, np.float32)
    network: EfficientNetLite0 | None = None
    waiting: list[tuple[int, str, NDArray[np.uint8]]] = []
    for index, sample in enumerate(progress_bar(samples, "looking at content", visible=progress)):
        try:
            data = sample.data()
        except SourceError:
            continue
        key = hashlib.sha256(data).hexdigest()
        cached = _cached(key)
        if cached is not None:
            features[index] = cached
            continue
        with contextlib.suppress(InputError):
            waiting.append((index, key, _thumbnail(decode_image(data, str(sample.path)))))
        if len(waiting) == _BATCH:
            network = network or _network()
            _describe(network, waiting, features)
            waiting = []
    if waiting:
        _describe(network or _network(), waiting, features)
    return features


def _network() -> EfficientNetLite0:
    network = EfficientNetLite0(16, head=True)
    state = {k: v for k, v in pretrained_state().items() if not k.startswith("_fc.")}
    network.load_state_dict(state)
    # (N, C, H, W) channels last: the faster layout, and that of decoded pictures.
    return network.to(_device()).to(memory_format=torch.channels_last).eval()


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _thumbnail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the central square at 48 x 48, enlarged to (224, 224, 3), BGR."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = image[top : top + side, left : left + side]
    small = cv2.resize(square, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (_INPUT, _INPUT), interpolation=cv2.INTER_CUBIC), np.uint8)


@torch.inference_mode()
def _describe(
    network: EfficientNetLite0, waiting: Sequence[tuple[int, str, NDArray[np.uint8]]], features: NDArray[np.float32]
) -> None:
    """Compute the rows that wait, and write them to the cache."""
    frames_nhwc = torch.from_numpy(np.stack([image[..., ::-1] for _, _, image in waiting]))
    x = (frames_nhwc.permute(0, 3, 1, 2).float() - 127) / 128  # (N, 224, 224, 3) -> (N, 3, 224, 224)
    pooled = network(x.to(_device()))[-1].mean((2, 3)).cpu().numpy()  # (N, 1280, 7, 7) -> (N, 1280)
    for (index, key, _), row in zip(waiting, pooled, strict=True):
        features[index] = row
        _cache(key, row)


def _cache_path(key: str) -> Path:
    return cache_folder(_VERSION) / key[:2] / f"{key}.npy"


def _cached(key: str) -> NDArray[np.float32] | None:
    """Return what the cache holds; a damaged entry counts as none."""
    try:
        row = np.load(_cache_path(key), allow_pickle=False)
    except (OSError, ValueError, EOFError, RuntimeError):
        return None
    return row if row.shape == (_FEATURES,) and row.dtype == np.float32 else None


def _cache(key: str, row: NDArray[np.float32]) -> None:
    """Write an entry; it appears whole or not at all, whoever else writes it."""
    with contextlib.suppress(OutputError, RuntimeError), whole_file(_cache_path(key)) as part:
        np.save(part, row)
