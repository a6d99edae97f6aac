"""Which sources a head must not have seen, so that its margins of a picture are those of an unseen picture."""

from __future__ import annotations

from collections.abc import Mapping

from asr_train.data.families import Families

__all__ = ["sources_left_out_together"]

_LARGEST_KIND = 0.25  # share of the real pictures; a larger kind is parted by sources


def sources_left_out_together(
    pictures: Mapping[tuple[int, str], int], families: Families | None
) -> list[frozenset[str]]:
    """Part the sources of training pictures into groups; every group is left out once.

    Without families every source is a group. With families a group is one family of generators and one kind of photos
    together, so that margins are those of pictures whose family and kind were never seen. There are as many groups as
    there are families or kinds, whichever are more. A kind that holds more than a quarter of the real pictures is
    parted by sources: a training without most of its photos would say little about the one with them.

    Args:
        pictures: label and source -> number of training pictures.
        families: of their sources.
    """
    if families is None:
        return [frozenset({source}) for source in sorted({source for _, source in pictures})]
    by_class = []
    for label in (0, 1):
        counts: dict[str, dict[str, int]] = {}
        for (kind, source), number in pictures.items():
            if kind == label:
                counts.setdefault(families.of(label, source), {})[source] = number
        parts = [part for _, sources in sorted(counts.items()) for part in _parts(sources, counts, label)]
        by_class.append(sorted(parts, key=lambda part: (-len(part), sorted(part))))
    groups: dict[int, frozenset[str]] = {}
    number = max(len(parts) for parts in by_class)
    for parts in by_class:
        for place, part in enumerate(parts):
            groups[place] = groups.get(place, frozenset()) | part
    return _disjoint([groups[place] for place in range(number)])


def _parts(sources: dict[str, int], counts: dict[str, dict[str, int]], label: int) -> list[frozenset[str]]:
    """Return a family as one set of sources; a kind of photos that is too large in several of about the same size."""
    share = sum(sources.values()) / sum(sum(others.values()) for others in counts.values())
    if label == 1 or share <= _LARGEST_KIND:
        return [frozenset(sources)]
    number = min(len(sources), max(2, round(2 * share / _LARGEST_KIND)))
    ordered = sorted(sources, key=lambda name: (-sources[name], name))
    return [frozenset(ordered[start::number]) for start in range(number)]


def _disjoint(groups: list[frozenset[str]]) -> list[frozenset[str]]:
    """A source with pictures of both classes may stand in two groups: it stays in the first."""
    seen: set[str] = set()
    result = []
    for group in groups:
        if rest := group - seen:
            result.append(frozenset(rest))
            seen |= rest
    return result
