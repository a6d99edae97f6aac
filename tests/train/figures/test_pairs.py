"""Content-matched pairs: which images form a pair, and figures that content does not change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from asr_train.data.layouts import Sample
from asr_train.figures.pairs import content_matched_pairs, pair_figures


def _samples(count: int, source: str = "resynthesised_taef2") -> list[Sample]:
    return [
        Sample(Path(source, "val", folder, f"{i}.png"), label, source)
        for label, folder in enumerate(("nature", "ai"))
        for i in range(count)
    ]


def test_a_pair_shares_source_and_name_and_nothing_else_is_one() -> None:
    first, second, third = (f"resynthesised_{name}" for name in "abc")
    alone, chance = Sample(Path(third, "val/nature/0.png"), 0, third), _samples(3, "midjourney")
    samples = [*_samples(2, first), *chance, *_samples(1, second), alone]
    assert [(p.path.parts, t.path.parts) for p, t in content_matched_pairs(samples)] == [
        ((first, "val", "nature", "0.png"), (first, "val", "ai", "0.png")),
        ((first, "val", "nature", "1.png"), (first, "val", "ai", "1.png")),
        ((second, "val", "nature", "0.png"), (second, "val", "ai", "0.png")),
    ]
    ambiguous = [*_samples(1, first), Sample(Path(first, "val/nature/below/0.jpg"), 0, first)]
    assert content_matched_pairs(ambiguous) == []
    assert pair_figures(ambiguous, np.zeros(3)) == {}


def test_a_detector_of_content_is_at_one_half_and_a_detector_of_traces_at_one() -> None:
    rng = np.random.default_rng(0)
    samples, content = _samples(200), np.tile(rng.normal(size=200), 2)
    [blind] = pair_figures(samples, content).values()
    assert (blind["auroc"], blind["ranked_right"], blind["pairs"]) == (0.5, 0.5, 200)
    traces = np.repeat([0.0, 1.0], 200)
    [seeing] = pair_figures(samples, traces).values()
    assert (seeing["auroc"], seeing["ranked_right"]) == (1.0, 1.0)
    # Small traces below large differences of content: pairs are ranked right although the AUROC says little.
    [mixed] = pair_figures(samples, content + 0.01 * traces).values()
    assert mixed["ranked_right"] == 1.0
    assert 0.5 < mixed["auroc"] < 0.52


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=40))
def test_figures_are_what_their_definitions_say(scores: list[tuple[int, int]]) -> None:
    photo, twin = np.array(scores, float).T
    [figures] = pair_figures(_samples(len(scores)), np.concatenate([photo, twin])).values()
    labels = np.repeat([0, 1], len(scores))
    assert figures["auroc"] == pytest.approx(roc_auc_score(labels, np.concatenate([photo, twin])))
    assert figures["ranked_right"] == pytest.approx(np.mean([(t > p) + (t == p) / 2 for p, t in scores]))


def test_intervals_cover_what_other_draws_give_and_shrink_with_more_pairs() -> None:
    def draw(count: int, seed: int) -> dict[str, object]:
        rng = np.random.default_rng(seed)
        scores = np.concatenate([rng.normal(0, 1, count), rng.normal(1, 1, count)])
        [figures] = pair_figures(_samples(count), scores).values()
        return figures

    true = 0.7602  # P(N(1, 1) > N(0, 1))
    covered = []
    for seed in range(20):
        low, high = draw(80, seed)["interval"]["auroc"]  # type: ignore[index]
        covered.append(low < true < high)
    assert sum(covered) >= 17
    widths = [np.diff(draw(count, 1)["interval"]["ranked_right"])[0] for count in (50, 800)]  # type: ignore[index]
    assert widths[1] < widths[0] / 2.5


def test_pooled_figures_compare_within_sources_only() -> None:
    # The second source scores 10 higher altogether: across sources its photos would beat the first one's twins.
    samples = [*_samples(30, "resynthesised_a"), *_samples(30, "resynthesised_b")]
    scores = np.concatenate([np.zeros(30), np.ones(30), np.full(30, 10.0), np.full(30, 11.0)])
    figures = pair_figures(samples, scores)
    assert list(figures) == ["resynthesised_a", "resynthesised_b", "all"]
    assert (figures["all"]["pairs"], figures["all"]["auroc"]) == (60, 1.0)
