"""Settings of the simulated platform: sizes, and habits of its users."""

from pydantic import Field

from corewrite.domain import Settings


class WorldConfig(Settings):
    """The catalogue and the entities; defaults are the embedded default of `corewrite demo`."""

    seed: int = 0
    """The one seed of the run."""
    videos: int = Field(default=20_000, ge=500)
    """Videos in the catalogue."""
    entities: int = Field(default=320, ge=20)
    """People, games, series, ... that videos are about."""
    visual_dimensions: int = Field(default=48, ge=8)
    """Dimensions of the picture embedding."""
    aspect_only_in_picture: float = Field(default=0.40, ge=0, le=1)
    """Share of videos whose text never names the aspect."""
    entity_only_in_picture: float = Field(default=0.20, ge=0, le=1)
    """Share of videos whose text never names the entity."""
    clickbait: float = Field(default=0.15, ge=0, le=1)
    """Share of videos whose title names a popular entity that is not in them."""
    history_impressions: float = Field(default=30.0, ge=1)
    """Times searchers saw a video in the months before week 0, mean over videos; the prior is learnt from them."""
    shared_alias: float = Field(default=0.30, ge=0, le=1)
    """Share of entities whose short name also means another entity."""
    births_per_week: float = Field(default=0.015, ge=0, le=0.2)
    """Share of entities that appear in each week after week 0."""
    slang_per_week: int = Field(default=3, ge=0, le=20)
    """New words for an aspect that come up in each week from week 5 on, when a first log and the launches after it are over."""


class TrafficConfig(Settings):
    """Who searches and how; probabilities unless said otherwise."""

    sessions_per_user: float = 1.3
    """Mean sessions of an active user in a week."""
    exploratory: float = 0.12
    """Searches for a kind of video, with no entity in mind."""
    entity_only: float = 0.10
    """Searches for an entity, whatever the aspect."""
    related_context: float = 0.40
    """First searches that follow from a video just watched."""
    told_entity: float = 0.52
    """Of those, the ones after a video of the entity; the others saw the aspect on another entity."""
    empty_context: float = 0.10
    """First searches with nothing watched before."""
    abbreviate: float = 0.65
    """Users who leave out what the context already says."""
    misspell: float = 0.10
    """Searches with one word misspelt."""
    alias: float = 0.30
    """Entities called by their short name."""
    synonym: float = 0.35
    """Aspects called by a word that titles seldom use."""
    slang: float = 0.30
    """Aspects called by a word of the day, where one is at the height of its fashion."""
    padding: float = 0.12
    """Queries with a word that says nothing (`video`, `best`)."""
    scan_on: float = 0.92
    """Going on to the next result after one that did not end the search (mean over users)."""
    stop_when_satisfied: float = 0.62
    """Leaving the list after a satisfying video."""
    change_query: float = 0.95
    """Typing another query after an unsatisfying list that showed something of what was wanted, rather than giving up."""
    change_query_blind: float = 0.7
    """The same after a list that showed nothing of it: without a scent, people despair (Pirolli & Card 1999)."""
    good_reformulation: float = 0.62
    """Reformulations that say the intent in full; the others are again vague, misspelt or beside it."""
    next_search: float = 0.36
    """Searching again in the session after a search that ended."""
    same_entity: float = 0.55
    """Such next searches that stay with the entity."""
    same_aspect: float = 0.25
    """Such next searches that want to see the same of another entity."""
    attempts: int = 5
    """Queries a user types for one intent, at most."""
