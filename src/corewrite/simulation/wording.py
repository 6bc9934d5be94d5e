"""How likely a text is to be typed for each intent: `queries.type_query` the other way round, by enumeration of its branches.

A text is first read as words that may have been meant (as typed, or one word misspelt; with or without a word that says
nothing; the entity before or after the aspect), then each reading is weighted for every intent that it can stand for.

Simplified is who types the previous text again, slip included, and therefore words it in full: whether that text has the slip
too goes by its chance over all attempts, and a slip in another word than before is left out. What these simplifications make
impossible has the chance of a rare accident.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from corewrite.simulation.config import TrafficConfig
from corewrite.simulation.intent_space import IntentSpace
from corewrite.simulation.misspelling import meant_words
from corewrite.simulation.queries import (
    CATEGORY_SAID,
    EXPLICIT_MISSPELL,
    PLAIN_REPAIR,
    PLAIN_SLANG_REPAIR,
    REVERSED,
    VAGUE,
    Told,
)
from corewrite.simulation.vocabulary import ASPECTS, CATEGORIES, MISSPELT_FROM, PADDING
from corewrite.simulation.world import NONE

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

TOLD = (Told.NOTHING, Told.ENTITY, Told.ASPECT)
"""Order of the axis `told`."""
NAMES = 2
"""Length of the axis of which name comes to mind: 0 the full one, 1 the short one."""
_PLAIN = 0
_ACCIDENT = 1e-6
"""Chance that an attempt is the previous text for no reason that is modelled."""


@dataclass(frozen=True)
class Reading:
    """Words that a text may stand for, and how likely they are typed so.

    Attributes:
        subject: Name, short name or category; "" where the text has none.
        aspect: Word of an aspect; "" where the text has none.
        order: 0 subject first, 1 aspect first, -1 only one of them.
        misspelt, padded: Whether a word is misspelt, and whether one says nothing.
        usual, in_full: Probability of order, padding and spelling in a usual query, and in an attempt that says all.
    """

    subject: str
    aspect: str
    order: int
    misspelt: bool
    padded: bool
    usual: float
    in_full: float


@dataclass(frozen=True, eq=False)
class TextLikelihood:
    """Likelihood of a text for the intents that it can stand for.

    Attributes:
        places: These intents, as places in the space, ascending, [n].
        first: Probability of the text as the first query of an intent, [told, names, words, n].
        later: The same as a later attempt, before texts that equal the previous one are typed anew.
        full: Whether the text is the intent in full, in plain words and without padding, slips aside, bool [n].
        misspelt: Whether a word of it is misspelt, bool [n].
        order: Order of subject and aspect in it (see `Reading`), int [n].
        subject: Whether it names a subject, bool [n].
        exploratory: Whether the intent is one without an entity, bool [n].
    """

    places: IntArray
    first: FloatArray
    later: FloatArray
    full: npt.NDArray[np.bool_]
    misspelt: npt.NDArray[np.bool_]
    order: IntArray
    subject: npt.NDArray[np.bool_]
    exploratory: npt.NDArray[np.bool_]

    def at(self, places: IntArray) -> "TextLikelihood":
        """Of `places` only, which must be among its own."""
        i = np.searchsorted(self.places, places)
        about = self.full[i], self.misspelt[i], self.order[i], self.subject[i], self.exploratory[i]
        return TextLikelihood(places, self.first[..., i], self.later[..., i], *about)

    def after(self, before: "TextLikelihood", same_text: bool, mended: float) -> FloatArray:
        """Probability of the text as the attempt after `before` (both over the same places), [told, names, words, n].

        Args:
            before: The text before.
            same_text: Whether it is the same.
            mended: Chance that who types a misspelt text again makes no slip where it is then worded in full.
        """
        of_single = np.select([self.order == 0, self.order == 1], [1 - REVERSED, REVERSED], 1.0)
        ordered = np.where(before.order == -1, of_single, self.order == before.order)
        # Who wants no entity says the category both times or not at all.
        again = ordered * (self.full & ~(self.exploratory & (self.subject != before.subject)))
        clean = np.where(before.misspelt, mended, 1.0)
        again = again * np.where(self.misspelt, same_text * (1 - clean), clean)
        return np.asarray(before.later * again + (_ACCIDENT if same_text else 1.0) * self.later)


class Wordings:
    """Likelihoods of texts in one week of a world; each text is read once.

    Attributes:
        space: The intents.
        habits: Probability of each name and word that may come to mind, [names, words, intents].
        mended: See `TextLikelihood.after`: a usual attempt slips more often than one in full.
    """

    def __init__(self, space: IntentSpace, traffic: TrafficConfig, fashion: Mapping[int, tuple[str, float]]) -> None:
        if traffic.abbreviate + VAGUE > 1:
            raise ValueError(f"abbreviate is {traffic.abbreviate}: give at most {1 - VAGUE}, or queries may be left empty")
        world = space.world
        self.space, self._traffic = space, traffic
        self._named, self._called = _by_text(world.names), _by_text(world.aliases)
        self._categories = {name: c for c, (name, _) in enumerate(CATEGORIES)}
        self._usual, self._in_full, prior = _words(traffic, fashion)
        self._aspects: dict[str, list[int]] = defaultdict(list)
        for a, said in enumerate(self._usual):
            for word in said:
                self._aspects[word].append(a)
        self._subjects = {*self._named, *self._called, *self._categories}
        vocabulary = {word for subject in self._subjects for word in subject.split()} | {*self._aspects, *PADDING}
        self._meant = meant_words(vocabulary)
        name = np.where(space.intents.entity == NONE, 0.0, traffic.alias)
        words = prior.T[:, space.intents.aspect]
        words[:, space.intents.aspect == NONE] = np.eye(len(words))[:, [_PLAIN]]
        self.habits = np.stack([1 - name, name])[:, None, :] * words[None, :, :]
        good = traffic.good_reformulation
        slips = (1 - good) + good * EXPLICIT_MISSPELL
        self.mended = (1 - good) * (1 - EXPLICIT_MISSPELL) / slips
        self._known: dict[str, TextLikelihood] = {}

    def __getitem__(self, text: str) -> TextLikelihood:
        if text not in self._known:
            self._known[text] = self._likelihood(text)
        return self._known[text]

    def readings(self, text: str) -> list[Reading]:
        """All that `text` may stand for."""
        typed, slip = tuple(text.split()), self._traffic.misspell
        if not typed:
            return []
        found = []
        safe = max(map(len, typed)) < MISSPELT_FROM
        found += self._read(typed, 1.0 if safe else 1 - slip, 1.0 if safe else 1 - slip * EXPLICIT_MISSPELL, misspelt=False)
        for i, word in enumerate(typed):
            for meant, probability in self._meant.get(word, ()):
                clean = (*typed[:i], meant, *typed[i + 1 :])
                if max(range(len(clean)), key=lambda k: len(clean[k])) == i:
                    found += self._read(clean, slip * probability, slip * EXPLICIT_MISSPELL * probability, misspelt=True)
        return found

    def _read(self, words: tuple[str, ...], usual: float, in_full: float, misspelt: bool) -> list[Reading]:
        padding = self._traffic.padding
        found = self._split(words, usual * (1 - padding), in_full, misspelt, padded=False)
        if len(words) > 1 and words[-1] in PADDING:
            share = PADDING.count(words[-1]) / len(PADDING)
            found += self._split(words[:-1], usual * padding * share, 0.0, misspelt, padded=True)
        return found

    def _split(self, words: tuple[str, ...], usual: float, in_full: float, misspelt: bool, padded: bool) -> list[Reading]:
        found = []
        whole = " ".join(words)
        if whole in self._subjects:
            found.append(Reading(whole, "", -1, misspelt, padded, usual, in_full))
        if whole in self._aspects:
            found.append(Reading("", whole, -1, misspelt, padded, usual, in_full))
        for aspect, rest, order, share in (
            (words[-1], " ".join(words[:-1]), 0, 1 - REVERSED),
            (words[0], " ".join(words[1:]), 1, REVERSED),
        ):
            if aspect in self._aspects and rest in self._subjects:
                found.append(Reading(rest, aspect, order, misspelt, padded, usual * share, in_full * share))
        return found

    def _likelihood(self, text: str) -> TextLikelihood:
        shape = (len(TOLD), *self.habits.shape[:2])
        first: dict[int, FloatArray] = defaultdict(lambda: np.zeros(shape))
        later: dict[int, FloatArray] = defaultdict(lambda: np.zeros(shape))
        about: dict[int, tuple[bool, bool, int, bool]] = {}
        for reading in self.readings(text):
            for place, usual_first, usual_later, in_full, plain in self._stands_for(reading):
                good = self._traffic.good_reformulation
                first[place] += reading.usual * usual_first
                later[place] += (1 - good) * reading.usual * usual_later + good * reading.in_full * in_full
                was = about.get(place, (False, reading.misspelt, reading.order, bool(reading.subject)))
                about[place] = (was[0] or (plain and not reading.padded), *was[1:])
        places = sorted(p for p in later if later[p].any() or first[p].any())
        n, ids = len(places), np.array(places, np.int64)

        def stacked(parts: Mapping[int, FloatArray]) -> FloatArray:
            return np.stack([parts[p] for p in places], -1) if n else np.zeros((*shape, 0))

        def column(k: int, dtype: type) -> npt.NDArray[Any]:
            return np.array([about[p][k] for p in places], dtype)

        flags = column(0, np.bool_), column(1, np.bool_), column(2, np.int64), column(3, np.bool_)
        return TextLikelihood(ids, stacked(first), stacked(later), *flags, self.space.intents.entity[ids] == NONE)

    def _stands_for(self, reading: Reading) -> list[tuple[int, FloatArray, FloatArray, FloatArray, bool]]:
        """Intents that a reading can stand for: the probability of its parts, usual first and later and in full, and whether it
        is plain and full; probabilities broadcast to [told, names, words]."""
        space, found = self.space, []
        subject, word = reading.subject, reading.aspect
        aspects = self._aspects.get(word, []) if word else []
        left_out = [_left_out(self._traffic, later) for later in (False, True)]  # [told] each: entity, aspect
        if word and (not subject or subject in self._categories):
            said = CATEGORY_SAID if subject else 1 - CATEGORY_SAID
            for a in aspects:
                usual, in_full = said * self._word(a, word)
                for i in space.of_entity[NONE]:
                    category = int(space.intents.category[i])
                    if space.intents.aspect[i] == a and (not subject or self._categories[subject] == category):
                        found.append((int(i), usual, usual, in_full, word == ASPECTS[a][0]))
        if word and not subject:  # the entity is left out
            for a in aspects:
                usual, _ = self._word(a, word)
                for i in space.of_aspect[a]:
                    if space.intents.entity[i] != NONE:
                        first, later = (part[0][:, None, None] * usual for part in left_out)
                        found.append((int(i), first, later, np.zeros(1), False))
        for e in {*self._named.get(subject, ()), *self._called.get(subject, ())}:
            named = np.array([subject == self.space.world.names[e], subject == self.space.world.aliases[e]], float)
            full_name = named[0]
            for i in space.of_entity[e]:
                a = int(space.intents.aspect[i])
                name = named[None, :, None]
                if a == NONE and not word:
                    found.append((int(i), name, name, np.full((1, 1, 1), full_name), bool(full_name)))
                elif a != NONE and not word:  # the aspect is left out
                    first, later = (part[1][:, None, None] * name for part in left_out)
                    found.append((int(i), first, later, np.zeros(1), False))
                elif a in aspects:
                    usual, in_full = self._word(a, word)
                    first, later = ((1 - part.sum(0))[:, None, None] * name * usual for part in left_out)
                    found.append((int(i), first, later, full_name * in_full, bool(full_name) and word == ASPECTS[a][0]))
        return found

    def _word(self, aspect: int, word: str) -> FloatArray:
        """Probability of the word by what comes to mind, usually and in full, [2, words]."""
        return np.stack([self._usual[aspect].get(word, _zero), self._in_full[aspect].get(word, _zero)])


_WORDS = 2 + max(len(typed) for _, typed in ASPECTS)
"""Length of the axis of which word comes to mind: the plain one, each of those typed instead, the word of the day."""
_zero = np.zeros(_WORDS)


def _words(
    traffic: TrafficConfig, fashion: Mapping[int, tuple[str, float]]
) -> tuple[list[dict[str, FloatArray]], list[dict[str, FloatArray]], FloatArray]:
    """By aspect and word: probability given what comes to mind, usually and in full; and of what comes to mind."""
    usual, in_full = [], []
    prior = np.zeros((len(ASPECTS), _WORDS))
    for a, (canonical, typed) in enumerate(ASPECTS):
        slang, height = fashion.get(a, ("", 0.0))
        said = [canonical, *typed, *[""] * (_WORDS - 2 - len(typed)), slang]
        keeps = [1.0, *[1 - PLAIN_REPAIR] * (_WORDS - 2), 1 - PLAIN_SLANG_REPAIR]
        prior[a, 1 : 1 + len(typed)] = traffic.synonym / len(typed)
        prior[a, -1] = traffic.slang * height
        prior[a, _PLAIN] = 1 - prior[a].sum()
        ways: tuple[dict[str, FloatArray], dict[str, FloatArray]] = (defaultdict(_zero.copy), defaultdict(_zero.copy))
        for k in np.flatnonzero(prior[a]):
            ways[0][said[k]][k] += 1.0
            ways[1][said[k]][k] += keeps[k]
            ways[1][canonical][k] += 1 - keeps[k]
        usual.append(dict(ways[0]))
        in_full.append(dict(ways[1]))
    return usual, in_full, prior


def _left_out(traffic: TrafficConfig, later: bool) -> FloatArray:
    """Probability that a usual query for an entity in an aspect leaves out the entity, and the aspect; [2, told]."""
    short = traffic.abbreviate * np.array([[told is Told.ENTITY for told in TOLD], [told is Told.ASPECT for told in TOLD]])
    vague = VAGUE * later * np.array([[False] * len(TOLD), [told is not Told.ASPECT for told in TOLD]])
    return np.asarray(short + vague)


def _by_text(names: tuple[str, ...]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for e, name in enumerate(names):
        found[name].append(e)
    return dict(found)
