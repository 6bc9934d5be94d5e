"""The world: catalogue, entities, and what each video is about in truth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corewrite.domain import Catalogue
from corewrite.simulation.config import WorldConfig
from corewrite.simulation.vocabulary import ASPECTS, CATEGORIES, FILLERS, pseudo_words

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

SLANG_BEGINS = 5
"""First week in which a word of the day comes up."""
WEEKS = 22
"""Weeks after the first in which something new comes up."""
NONE = -1
"""Entity of an exploratory intent, aspect of an entity-only one, second entity of most videos."""


@dataclass(frozen=True, eq=False)
class World:
    """All that exists on the platform. What videos are about is truth: only simulation and measuring may read it.

    Attributes:
        config: What it was made from.
        names: Name of each entity, one or two words.
        aliases: Short name of each entity; some stand for two entities.
        category: Category of each entity, int64 [entities].
        popularity: Share of interest of each entity before drift, float64 [entities], sums to 1.
        birth: First week in which people know the entity, int64 [entities]; 0 for most.
        rival: The other entity of a shared alias, or NONE, int64 [entities].
        slang: Words of the day: the word, the aspect it stands for, the first week in which people say it.
        aspect_weight: Interest in each aspect within a category, float64 [categories, aspects], rows sum to 1.
        catalogue: What the search engine sees.
        video_entity, video_second, video_aspect: What each video shows, int64 [videos].
        video_clickbait: Whether its title promises another entity, bool [videos].
        video_quality: How well made it is, float64 [videos] in (0, 1).
    """

    config: WorldConfig
    names: tuple[str, ...]
    aliases: tuple[str, ...]
    category: IntArray
    popularity: FloatArray
    birth: IntArray
    rival: IntArray
    slang: tuple[tuple[str, int, int], ...]
    aspect_weight: FloatArray
    catalogue: Catalogue
    video_entity: IntArray
    video_second: IntArray
    video_aspect: IntArray
    video_clickbait: npt.NDArray[np.bool_]
    video_quality: FloatArray

    def interest(self, week: int) -> FloatArray:
        """Share of interest per entity in `week`: newborns surge, the rest swing slowly; float64 [entities]."""
        rng = np.random.default_rng([self.config.seed, 11])
        phase, pace = rng.uniform(0, 2 * np.pi, len(self.names)), rng.uniform(0.1, 0.5, len(self.names))
        swing = np.exp(0.5 * np.sin(phase + pace * week))
        age = week - self.birth
        born = np.where(self.birth == 0, 1.0, np.where(age < 0, 0.0, 1.0 + 1.5 * np.exp(-np.maximum(age, 0) / 3.0)))
        weight = self.popularity * swing * born
        return np.asarray(weight / weight.sum())

    def fashion(self, week: int) -> dict[int, tuple[str, float]]:
        """The word of the day of each aspect that has one in `week`, and how much in fashion it is, in (0, 1].

        A word comes up within three weeks, stays for about eight and fades; the newest of an aspect is the one that is said.
        """
        known = sorted((birth, aspect, word) for word, aspect, birth in self.slang if birth <= week)
        return {
            aspect: (word, min(1.0, (week - birth + 1) / 3) * float(np.exp(-max(0, week - birth - 8) / 4)))
            for birth, aspect, word in known
        }


def make_world(config: WorldConfig) -> World:
    """Make a world from its seed; the same config gives the same world, byte for byte."""
    rng = np.random.default_rng([config.seed, 1])
    n = config.entities
    category = rng.integers(0, len(CATEGORIES), n)
    pool = pseudo_words(3 * n, rng)
    two_words = rng.random(n) < 0.6
    names = tuple(pool[i] + (" " + pool[n + i] if two_words[i] else "") for i in range(n))
    popularity = (np.arange(n) + 2.0) ** -1.1
    popularity = (popularity / popularity.sum())[rng.permutation(n)]

    aliases = [pool[2 * n + i] for i in range(n)]
    rival = np.full(n, NONE)
    pairs = rng.permutation(n)[: 2 * int(n * config.shared_alias / 2)].reshape(-1, 2)
    for first, second in pairs:
        aliases[second] = aliases[first]
        rival[first], rival[second] = second, first
        # 70/30: the first sense of a shared alias is the more popular one.
        both = popularity[first] + popularity[second]
        popularity[first], popularity[second] = 0.7 * both, 0.3 * both

    newborn = rng.random(n) < min(0.33, WEEKS * config.births_per_week)
    birth = np.where(newborn, rng.integers(1, WEEKS + 1, n), 0)

    aspect_weight = np.zeros((len(CATEGORIES), len(ASPECTS)))
    for c, (_, allowed) in enumerate(CATEGORIES):
        weight = (np.arange(len(allowed)) + 1.5) ** -0.7
        aspect_weight[c, rng.permutation(allowed)] = weight / weight.sum()
    slang = _slang(config, {*pool})
    return _film(config, names, tuple(aliases), category, popularity, birth, rival, slang, aspect_weight)


def _slang(config: WorldConfig, taken: set[str]) -> tuple[tuple[str, int, int], ...]:
    rng = np.random.default_rng([config.seed, 12])
    births = np.repeat(np.arange(SLANG_BEGINS, WEEKS + 3), config.slang_per_week)
    words = [w for w in pseudo_words(2 * len(births) + 20, rng) if w not in taken][: len(births)]
    # Aspects in turn, so that a fashion lasts before the next word for the same aspect comes.
    turns = np.concatenate([rng.permutation(len(ASPECTS)) for _ in range(len(births) // len(ASPECTS) + 1)])
    return tuple((word, int(aspect), int(birth)) for word, aspect, birth in zip(words, turns, births, strict=False))


def _film(
    config: WorldConfig,
    names: tuple[str, ...],
    aliases: tuple[str, ...],
    category: IntArray,
    popularity: FloatArray,
    birth: IntArray,
    rival: IntArray,
    slang: tuple[tuple[str, int, int], ...],
    aspect_weight: FloatArray,
) -> World:
    """Fill the catalogue."""
    rng = np.random.default_rng([config.seed, 2])
    n, dims = config.videos, config.visual_dimensions
    supply = popularity**0.5
    entity = rng.choice(len(names), n, p=supply / supply.sum())
    second = np.where(rng.random(n) < 0.10, rng.choice(len(names), n, p=supply / supply.sum()), NONE)
    second[second == entity] = NONE
    aspect = np.array([rng.choice(len(ASPECTS), p=aspect_weight[category[e]]) for e in entity])
    clickbait = rng.random(n) < config.clickbait
    bait = rng.choice(len(names), n, p=popularity / popularity.sum())
    quality = rng.beta(2.5, 2.5, n)
    seconds = np.clip(rng.lognormal(3.3, 0.7, n), 5, 600)

    creators = pseudo_words(n // 40, rng, (3, 4))
    home = rng.integers(0, len(CATEGORIES), len(creators))  # a creator stays within a category
    by_category = [np.flatnonzero(home == c) for c in range(len(CATEGORIES))]
    hide_aspect = rng.random(n) < config.aspect_only_in_picture
    hide_entity = rng.random(n) < config.entity_only_in_picture
    titles, texts = [], []
    for i in range(n):
        e = int(entity[i])
        parts = list(rng.choice(FILLERS, int(rng.integers(2, 5))))
        if not hide_entity[i]:
            parts.insert(int(rng.integers(0, 2)), aliases[e] if rng.random() < 0.25 else names[e])
        if second[i] != NONE:
            parts.append(names[second[i]])
        if not hide_aspect[i]:
            canonical, typed = ASPECTS[aspect[i]]
            word = str(rng.choice(typed)) if rng.random() < 0.10 else canonical
            parts.insert(int(rng.integers(1, len(parts) + 1)), word)
        if clickbait[i]:
            parts.insert(0, names[bait[i]])
        titles.append(" ".join(parts))
        makers = by_category[category[e]]
        maker = creators[int(rng.choice(makers))] if len(makers) else creators[0]
        texts.append(f"{CATEGORIES[category[e]][0]} {maker}")
    tagged = _tags(titles, names, aliases, rival, birth)
    texts = [f"{text} {tags}".strip() for text, tags in zip(texts, tagged, strict=True)]

    entity_vector = _unit(rng.normal(size=(len(names), dims)))
    aspect_vector = _unit(rng.normal(size=(len(ASPECTS), dims)))
    picture = entity_vector[entity] + 1.1 * aspect_vector[aspect] + 3.3 * _unit(rng.normal(size=(n, dims)))
    picture += np.where((second != NONE)[:, None], 0.5 * entity_vector[second], 0.0)
    views = quality * rng.lognormal(0, 0.8, n) * (0.3 + popularity[entity] / popularity.max())
    catalogue = Catalogue(
        ids=tuple(f"v{i:06d}" for i in range(n)),
        titles=tuple(titles),
        texts=tuple(texts),
        visual=_unit(picture).astype(np.float32),
        seconds=np.round(seconds, 1),
        prior=_prior(config, views, quality),
    )
    return World(
        config,
        names,
        aliases,
        category,
        popularity,
        birth,
        rival,
        slang,
        aspect_weight,
        catalogue,
        entity,
        second,
        aspect,
        clickbait,
        quality,
    )


def _tags(
    titles: Sequence[str], names: tuple[str, ...], aliases: tuple[str, ...], rival: IntArray, birth: IntArray
) -> list[str]:
    """Other names of what each title says, by the engine's dictionary: synonyms at the time of indexing.

    The dictionary is that of a mature engine: the short names of entities that were there before week 0, of an ambiguous one
    too, and the usual words for aspects. It knows no slang and no newborn, and it reads titles: it is wrong about clickbait
    and silent about what only the picture shows.
    """
    other = {name: aliases[i] for i, name in enumerate(names) if birth[i] == 0}
    # An ambiguous short name in a title says nothing about which of the two it is.
    other |= {aliases[i]: name for i, name in enumerate(names) if birth[i] == 0 and rival[i] == NONE}
    other |= {canonical: " ".join(typed) for canonical, typed in ASPECTS}
    other |= {word: " ".join((canonical, *(w for w in typed if w != word))) for canonical, typed in ASPECTS for word in typed}
    tags = []
    for title in titles:
        said = title.split()
        spans = [" ".join(said[i:j]) for i in range(len(said)) for j in (i + 1, i + 2)]
        found = dict.fromkeys(w for span in spans if span in other for w in other[span].split())
        tags.append(" ".join(w for w in found if w not in said))
    return tags


def _prior(config: WorldConfig, views: FloatArray, quality: FloatArray) -> FloatArray:
    """What the engine knows of each video before any query, in (0, 1]: recent views, times how well it was received.

    Both are statistics of the months before week 0, drawn here instead of simulated search by search: a video was seen by
    searchers a number of times that grows with its views, and satisfied a share of them that grows with its quality. The
    engine knows the counts alone and shrinks the shares towards the mean of all, as much as the counts say (empirical Bayes
    for a binomial; Casella 1985).
    """
    rng = np.random.default_rng([config.seed, 13])
    rank = np.argsort(np.argsort(views)) / (len(views) - 1)
    seen = rng.poisson(np.clip(config.history_impressions * views / views.mean(), 0.5, None))
    satisfied = rng.binomial(seen, 0.15 + 0.5 * quality)
    mean = satisfied.sum() / seen.sum()
    strength = _prior_strength(seen, satisfied, mean)
    received = (satisfied + strength * mean) / (seen + strength) / mean
    product = (0.2 + 0.8 * rank) * received
    return np.asarray(np.round(np.clip(product / np.quantile(product, 0.999), 0.05, 1.0), 4))


def _prior_strength(seen: IntArray, satisfied: IntArray, mean: float) -> float:
    """Pseudo-counts of the beta prior of shares, by moments: the variance of shares beyond what counting alone gives."""
    used = seen >= 5
    shares = satisfied[used] / seen[used]
    counting = float(np.mean(mean * (1 - mean) / seen[used]))
    between = max(1e-4, float(shares.var()) - counting)
    return mean * (1 - mean) / between - 1.0


def _unit(x: FloatArray) -> FloatArray:
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))
