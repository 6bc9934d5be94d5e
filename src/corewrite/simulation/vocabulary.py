"""Words of the simulated platform: names from syllables, aspects and fillers from fixed lists."""

import numpy as np

ONSETS = ("b br ch d dr f fl g gr h j k kl l m n p pr r s sh sk st t tr v w y z").split()
NUCLEI = ("a e i o u ai ei ia io ou").split()
CODAS = ("", "", "", "n", "r", "l", "s", "k", "x", "m")

# (canonical word of titles, words that users type instead)
ASPECTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("highlights", ("bestmoments", "recap")),
    ("interview", ("talk", "qna")),
    ("tutorial", ("howto", "lesson")),
    ("reaction", ("reacts",)),
    ("trailer", ("teaser",)),
    ("dance", ("choreo", "moves")),
    ("cover", ("sings",)),
    ("concert", ("live", "gig")),
    ("prank", ("pranked",)),
    ("unboxing", ("unbox", "haul")),
    ("review", ("opinion", "verdict")),
    ("fails", ("bloopers", "oops")),
    ("training", ("workout", "drills")),
    ("goals", ("scores",)),
    ("skills", ("tricks", "dribbles")),
    ("makeup", ("glam", "mua")),
    ("outfit", ("ootd", "fit")),
    ("recipe", ("cook", "homemade")),
    ("mukbang", ("eating",)),
    ("vlog", ("dayinlife", "routine")),
    ("speedrun", ("anypercent", "wr")),
    ("gameplay", ("playthrough", "letsplay")),
    ("cheats", ("glitch", "exploit")),
    ("lore", ("explained", "story")),
    ("cosplay", ("costume",)),
    ("edit", ("fanedit", "amv")),
    ("remix", ("mashup", "dj")),
    ("lyrics", ("words", "karaoke")),
    ("freestyle", ("improv",)),
    ("behindthescenes", ("bts", "makingof")),
    ("cute", ("adorable", "aww")),
    ("rescue", ("saved",)),
    ("obedience", ("commands",)),
    ("drawing", ("sketch", "art")),
    ("diy", ("crafts", "handmade")),
    ("tour", ("walkthrough", "inside")),
    ("travel", ("trip", "itinerary")),
    ("drift", ("slide", "burnout")),
    ("race", ("lap", "grandprix")),
    ("crash", ("wreck",)),
    ("tuning", ("mods", "build")),
    ("knockout", ("ko", "finisher")),
    ("comedy", ("funny", "sketchshow")),
    ("parody", ("spoof",)),
    ("finale", ("ending", "lastepisode")),
)

CATEGORIES: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("football", (0, 1, 12, 13, 14, 11, 3, 25, 19)),
    ("music", (5, 6, 7, 26, 27, 28, 1, 29, 3)),
    ("gaming", (2, 20, 21, 22, 23, 10, 0, 11, 3)),
    ("series", (4, 44, 23, 29, 25, 1, 10, 24)),
    ("beauty", (15, 16, 2, 9, 10, 19, 34)),
    ("food", (17, 18, 2, 10, 9, 11, 35)),
    ("pets", (30, 31, 32, 11, 12, 8)),
    ("cars", (37, 38, 39, 40, 10, 35, 9)),
    ("comedy", (8, 42, 43, 3, 11, 19, 28)),
    ("fighting", (41, 0, 12, 1, 3, 38, 14)),
    ("places", (35, 36, 19, 33, 34, 17)),
    ("anime", (24, 25, 23, 33, 44, 4, 26)),
)

FILLERS = (
    "the best of this week new daily official clip part you must see watch now today crazy moment amazing real full short "
    "compilation everyone never again with my friends when they said wait for it end pov omg trending viral fyp tiktok "
    "season episode first time ever world top ten why how was it is that night morning home school street city summer "
    "winter love life good bad big small fast slow old young happy angry secret truth story time challenge update news "
    "review2 hd quality original sound slowed version extra special bonus behind front back again more less only just "
    "people guys girls boys team club house studio stage park road river sea sky light dark red blue green gold silver"
).split()

PADDING = ("video", "best", "videos", "clip", "new", "tiktok")


def pseudo_words(n: int, rng: np.random.Generator, syllables: tuple[int, int] = (2, 3)) -> list[str]:
    """`n` distinct pronounceable words that are none of the fixed words above."""
    taken = {*FILLERS, *PADDING, *(w for c, s in ASPECTS for w in (c, *s)), *(c for c, _ in CATEGORIES)}
    found: list[str] = []
    while len(found) < n:
        count = int(rng.integers(syllables[0], syllables[1] + 1))
        word = "".join(rng.choice(ONSETS) + rng.choice(NUCLEI) for _ in range(count)) + rng.choice(CODAS)
        if len(word) >= 4 and word not in taken:
            taken.add(word)
            found.append(word)
    return found


MISSPELT_FROM = 4
"""Letters from which on people misspell a word."""
LETTER_DRAWS = 7919
"""The letter typed instead changes this many times over a draw."""


def misspell(word: str, draw: float) -> str:
    """`word` with one character dropped, doubled, swapped or replaced, chosen by `draw` in [0, 1).

    Words under four letters come back unchanged, as people seldom misspell them.
    """
    if len(word) < MISSPELT_FROM:
        return word
    operation, rest = divmod(draw * 4, 1)
    return slip(word, int(operation), 1 + int(rest * (len(word) - 2)), chr(ord("a") + int(rest * LETTER_DRAWS) % 26))


def slip(word: str, operation: int, place: int, letter: str) -> str:
    """`word` with one slip at `place`: 0 drops a character, 1 doubles it, 2 swaps it with the next, 3 types `letter`."""
    head, here, tail = word[:place], word[place], word[place + 1 :]
    if operation == 0:
        return head + tail
    if operation == 1:
        return head + here + here + tail
    if operation == 2 and tail and tail[0] != here:
        return head + tail[0] + here + tail[1:]
    return head + (letter if letter != here else "e" if here != "e" else "o") + tail
