"""The closed-form head: the same as refitting from scratch, whatever is left out."""

from __future__ import annotations

import dataclasses
import gc
import tracemalloc
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loaded_features import with_features
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from asr_train.fitting import ridge
from asr_train.fitting.ridge import Pictures, RidgeFit

_SIZE = 5


def _pictures(seed: int) -> tuple[NDArray[np.float32], NDArray[np.int_], NDArray[np.str_]]:
    rng = np.random.default_rng(seed)
    sources = np.array(["a"] * 9 + ["b"] * 4 + ["c"] * 16 + ["d"] * 6)
    labels = np.isin(sources, ["c", "d"]).astype(int)
    views = rng.normal(3.0, 2.0, (2, len(labels), _SIZE)) + labels[None, :, None] * rng.normal(0, 1, _SIZE)
    return views.astype(np.float32), labels, sources


def _reference(
    views: NDArray[np.float32], labels: NDArray[np.int_], sources: NDArray[np.str_], penalty: float
) -> NDArray[np.float64]:
    """scikit-learn's ridge on standardised features, with the same weights written out.

    A feature's rounding, 2^-9 of itself, counts as variance of its own.
    """
    weights = np.array([(sources == s).sum() ** -0.5 for s in sources])
    for label in (0, 1):
        weights[labels == label] /= 2 * weights[labels == label].sum()
    x, w = views.reshape(-1, _SIZE).astype(np.float64), np.tile(weights, len(views)) / len(views)
    mean = w @ x
    deviation = np.sqrt(w @ (x - mean) ** 2 + 2.0**-18 * (w @ x**2) / penalty)
    model = Ridge(alpha=penalty).fit((x - mean) / deviation, np.tile(2.0 * labels - 1, len(views)), sample_weight=w)
    return np.asarray(model.predict((views[0] - mean) / deviation))


@given(seed=st.integers(0, 1000), penalty=st.floats(1e-3, 10.0))
def test_it_is_weighted_ridge_regression_on_standardised_features(seed: int, penalty: float) -> None:
    views, labels, sources = _pictures(seed)
    head = RidgeFit(with_features(views, labels, sources), penalty).head()
    assert head(views[0]) == pytest.approx(_reference(views, labels, sources, penalty), abs=1e-6)


def test_a_feature_that_varies_less_than_its_rounding_has_no_say() -> None:
    views, labels, sources = _pictures(3)
    tells = np.broadcast_to((1000 * (1 + 1e-5 * labels))[None, :, None], (*views.shape[:2], 1)).astype(np.float32)
    both = np.concatenate([views, tells], axis=2)
    head = RidgeFit(with_features(both, labels, sources), 1e-3).head()
    rounded = np.concatenate([views, tells * np.float32(1 + 2**-9)], axis=2)
    assert np.abs(head(rounded) - head(both)).max() < 0.01


def test_a_view_of_twice_the_weight_counts_as_two() -> None:
    views, labels, sources = _pictures(5)
    twice = RidgeFit(with_features(views[[0, 0, 1]], labels, sources), 0.1)
    weighted = RidgeFit(with_features(views, labels, sources), 0.1, view_weights=np.array([2 / 3, 1 / 3]))
    rows = np.arange(0, len(labels), 2)
    for one, other in ((twice, weighted), (twice.subset(rows), weighted.subset(rows))):
        assert other.head({"b"}).weight == pytest.approx(one.head({"b"}).weight, rel=1e-9)
    plain = RidgeFit(with_features(views, labels, sources), 0.1)
    assert plain.head().weight != pytest.approx(weighted.head().weight, rel=1e-3)


@pytest.mark.parametrize("without", [{"a"}, {"c"}, {"b", "d"}])
def test_a_source_left_out_leaves_no_trace(without: set[str]) -> None:
    views, labels, sources = _pictures(7)
    kept = ~np.isin(sources, list(without))
    changed = views.copy()
    changed[:, ~kept] = 100.0  # whatever the pictures that are left out look like
    full = RidgeFit(with_features(views, labels, sources), 0.1).head(without)
    never = RidgeFit(with_features(views[:, kept], labels[kept], sources[kept]), 0.1).head()
    assert full.weight == pytest.approx(never.weight, rel=1e-6)
    assert RidgeFit(with_features(changed, labels, sources), 0.1).head(without).weight == pytest.approx(
        never.weight, rel=1e-4
    )


@pytest.mark.parametrize("without", [(), ("b",), ("a", "d")])
def test_pictures_left_out_leave_no_trace(without: tuple[str, ...]) -> None:
    views, labels, sources = _pictures(11)
    gone = np.array([1, 4, 5, 14, 20])  # of a and c
    changed = views.copy()
    changed[:, gone] = 100.0
    head = RidgeFit(with_features(changed, labels, sources), 0.1).head(without, gone)
    assert head.weight == pytest.approx(
        RidgeFit(with_features(views, labels, sources), 0.1).head(without, gone).weight, rel=1e-4
    )
    kept = np.setdiff1d(np.flatnonzero(~np.isin(sources, without)), gone)
    if len(set(sources[kept])) == 2:  # each class has one source: its weight does not matter
        never = RidgeFit(with_features(views[:, kept], labels[kept], sources[kept]), 0.1).head()
        assert head.weight == pytest.approx(never.weight, rel=1e-4)


def test_what_was_left_out_before_is_not_read_again() -> None:
    """A protocol that leaves many sources out of every head reads their pictures once."""
    views, labels, sources = _pictures(5)
    sources[np.flatnonzero(sources == "c")[:5]] = "e"
    pictures = with_features(views, labels, sources)
    read: list[int] = []

    def blocks(chosen: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.int_], NDArray[np.float32]]]:
        read.append(int(chosen.sum()))
        return pictures.blocks(chosen)

    fit = RidgeFit(dataclasses.replace(pictures, blocks=blocks), 0.1)
    fit.head({"c"})
    read.clear()
    both = fit.head({"c", "d"})
    assert read == [6]  # the pictures of d
    assert both.weight == pytest.approx(RidgeFit(pictures, 0.1).head({"c", "d"}).weight, rel=1e-9)
    fit.head({"c", "d"})
    assert len(read) == 1


def test_a_lone_source_is_the_only_one_of_its_class() -> None:
    fit = RidgeFit(with_features(*_pictures(1)), 0.1)
    assert not fit.lone(0, "a")
    assert fit.lone(0, "a", {"b"})
    assert not fit.lone(1, "a", {"b"})
    assert fit.lone(1, "d", {"c", "a"})


def test_a_fit_that_is_deleted_frees_its_memory_at_once() -> None:
    fit = RidgeFit(with_features(*_pictures(9)), 0.1)
    fit.head({"b"})
    gone = weakref.ref(fit)
    gc.disable()
    try:
        del fit
        assert gone() is None
    finally:
        gc.enable()


def test_a_class_left_without_pictures_is_refused() -> None:
    views, labels, sources = _pictures(1)
    with pytest.raises(ValueError, match="no pictures left"):
        RidgeFit(with_features(views, labels, sources), 0.1).head({"a", "b"})


def test_pairs_teach_a_trace_that_the_pictures_do_not_show() -> None:
    views, labels, sources = _pictures(3)
    trace = np.array([0, 0, 0, 0, 1], np.float32)
    views[..., 4] = np.random.default_rng(0).normal(size=views.shape[:2])  # tells nothing about the label
    differences = 0.5 * np.tile(trace, (40, 1)) + np.random.default_rng(1).normal(0, 0.01, (40, 5)).astype(np.float32)
    belongs = np.array([["a", "first"], ["b", "second"]]).repeat(20, axis=0)
    alone = RidgeFit(with_features(views, labels, sources), 0.1).head()
    paired = RidgeFit(with_features(views, labels, sources), 0.1, differences, belongs, 1.0)
    assert paired.head().weight[4] > alone.weight[4] + 0.3
    rest = RidgeFit(with_features(views, labels, sources), 0.1, differences[20:], belongs[20:], 1.0)
    assert paired.head({"a"}).weight == pytest.approx(rest.head({"a"}).weight)
    assert paired.head({"first"}).weight == pytest.approx(rest.head().weight)
    # A pair holds a picture of its photo source, whichever: where one picture is left out, all pairs of its source go.
    one = np.array([0])
    assert paired.head((), one).weight == pytest.approx(rest.head((), one).weight)


def test_both_classes_must_be_left() -> None:
    fit = RidgeFit(with_features(*_pictures(1)), 0.1)
    assert fit.solvable(())
    assert fit.solvable({"a", "c"})
    assert not fit.solvable({"a", "b"})
    assert not fit.solvable({"c", "d", "a"})
    every = np.flatnonzero(fit.pictures.of({"c", "d"}))
    with pytest.raises(ValueError, match="no pictures left"):
        fit.head((), every)
    assert np.isfinite(fit.head((), every[1:]).weight).all(), "one picture is enough"


def test_many_features_are_solved_in_float32_with_hardly_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    views, labels, sources = _pictures(13)
    differences = np.random.default_rng(0).normal(0, 0.1, (20, _SIZE)).astype(np.float32)
    given = (with_features(views, labels, sources), 0.1, differences, np.array([["a", "x"]] * 20), 0.5)
    exact = RidgeFit(*given)
    monkeypatch.setattr(ridge, "_DOUBLE", _SIZE)
    assert RidgeFit(*given)._dtype is np.float64
    monkeypatch.setattr(ridge, "_DOUBLE", _SIZE - 1)
    rough = RidgeFit(*given)
    assert rough._dtype is np.float32
    for without in ((), ("b",), ("a", "d")):
        assert rough.head(without).weight == pytest.approx(exact.head(without).weight, rel=1e-3, abs=1e-4)
        assert rough.head(without).weight.dtype == np.float64


def test_a_feature_that_never_varies_changes_nothing_for_the_others() -> None:
    views, labels, sources = _pictures(17)
    constant = np.full((*views.shape[:2], 1), 1000.0, np.float32)
    more = RidgeFit(with_features(np.concatenate([views, constant], axis=2), labels, sources), 0.1).head()
    alone = RidgeFit(with_features(views, labels, sources), 0.1).head()
    assert more.weight[:-1] == pytest.approx(alone.weight, rel=1e-6)
    assert abs(more.weight[-1]) < 1e-6
    assert more(np.concatenate([views, constant], axis=2)[0]) == pytest.approx(alone(views[0]), abs=1e-6)


def test_a_head_asked_for_again_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """More sets of sources than moments are kept of."""
    fit = RidgeFit(with_features(*_pictures(19)), 0.1)
    sets = [(), ("a",), ("b",), ("c",), ("d",), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d")]
    first = [fit.head(without).weight for without in sets]
    for without, weight in zip(sets, first, strict=True):
        assert np.array_equal(fit.head(without).weight, weight)
        assert np.array_equal(RidgeFit(with_features(*_pictures(19)), 0.1).head(without).weight, weight)


def test_a_source_of_four_times_as_many_pictures_weighs_twice() -> None:
    """Each source of constant pictures: the mean of a class is that of its sources, weighted by sqrt(m)."""
    sources = np.array(["few"] * 4 + ["many"] * 16 + ["ai"] * 5)
    labels = (sources == "ai").astype(int)
    values = np.select([sources == "few", sources == "many"], [3.0, 0.0], 10.0)
    views = values[None, :, None].astype(np.float32)
    head = RidgeFit(with_features(views, labels, sources), 1e-9).head()
    half_way = (3.0 * 1 / 3 + 10.0) / 2
    assert head(np.array([[half_way]]))[0] == pytest.approx(0.0, abs=1e-6)
    assert head(views[0])[-1] > 0 > head(views[0])[0]


@pytest.mark.parametrize("double", [2048, 0])
def test_a_feature_that_is_constant_in_what_is_left_is_solved_whatever_rounding_leaves(
    monkeypatch: pytest.MonkeyPatch, double: int
) -> None:
    monkeypatch.setattr(ridge, "_DOUBLE", double)
    for seed in range(20):
        views, labels, sources = _pictures(seed)
        by_source = np.where(np.isin(sources, ["b", "d"]), 0.0, 1000.0 + seed / 7)
        more = np.concatenate([views, np.tile(by_source[None, :, None], (len(views), 1, 1))], axis=2).astype(np.float32)
        weight = RidgeFit(with_features(more, labels, sources), 1e-3).head({"b", "d"}).weight
        alone = RidgeFit(with_features(views, labels, sources), 1e-3).head({"b", "d"}).weight
        assert weight[:-1] == pytest.approx(alone, rel=1e-2, abs=1e-3)


@pytest.mark.parametrize("without", [(), ("b",), ("a", "d")])
def test_blocks_change_nothing_and_no_more_than_a_few_are_multiplied_at_once(
    monkeypatch: pytest.MonkeyPatch, without: tuple[str, ...]
) -> None:
    views, labels, sources = _pictures(23)
    whole = RidgeFit(with_features(views, labels, sources, len(labels)), 0.1).head(without)
    monkeypatch.setattr(ridge, "_ROWS", 8)
    sizes: list[int] = []
    squared = ridge._squared
    monkeypatch.setattr(ridge, "_squared", lambda rows: sizes.append(sum(map(len, rows))) or squared(rows))
    parted = RidgeFit(with_features(views, labels, sources, 3), 0.1).head(without)
    assert parted.weight == pytest.approx(whole.weight, rel=1e-9)
    assert max(sizes) < 8 + 2 * 3


def _peak(count: int) -> int:
    """Bytes at the peak of a fit and two heads on made pictures of 300 features."""
    group_of = np.arange(count, dtype=np.int32) % 20
    groups = [(group % 2, f"source {group}") for group in range(20)]

    def blocks(chosen: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.int_], NDArray[np.float32]]]:
        for start in range(0, count, 64):
            rows = np.arange(start, min(start + 64, count))
            if (own := rows[chosen[rows]]).size:
                features = np.random.default_rng(start).normal(size=(2, len(rows), 300)).astype(np.float32)
                yield own, features[:, chosen[rows]]

    tracemalloc.start()
    fit = RidgeFit(Pictures(groups, group_of, 300, blocks), 0.1)
    fit.head()
    fit.head({"source 3"})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_number_of_pictures() -> None:
    """Twenty times the pictures: 2,400 bytes each as features, some tens as weights."""
    small, large = _peak(4_000), _peak(80_000)
    assert large - small < 76_000 * 60
    assert large < 76_000 * 2_400 / 4
