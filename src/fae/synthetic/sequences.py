"""Draw inputs with histories, shaped like Taobao's user behaviour: a user, up to 20 items, a candidate, categories.

The interface is that of `fae.synthetic.inputs.TableInputs`. The last used slot of ``item`` and ``category`` is the
candidate; the slots before it are the history, oldest first; unused slots come last. An item belongs to one category. A
user has a few favourite categories, from which most of the history comes. The clicks depend on whether the history
shows the candidate's category, on the user, the item, and the agreement of user and category.

How a user's inputs follow one another in time is not imitated.
"""

from __future__ import annotations

import numpy as np

from fae.synthetic.columns import Int32Array, Marginal, mixed_bits, random_bits
from fae.synthetic.config import SyntheticConfig
from fae.synthetic.inputs import ColumnFacts, DrawnInputs, Effects

HISTORY = 20
_LENGTH = HISTORY + 1
# Numbers of values: the log as TBSM prepares it. The curves are guesses.
_NUM_USERS, _NUM_ITEMS, _NUM_CATEGORIES = 987_994, 4_162_024, 9_439
_NUM_FAVOURITES = 4
_FAVOURITE_SHARE = 0.7
_FEW = 1000  # tables never shrink below this many values


class SequenceInputs:
    """Inputs of one user, a history and a candidate."""

    dense_names: tuple[str, ...] = ()

    def __init__(self, config: SyntheticConfig) -> None:
        def size(published: int) -> int:
            return max(round(published * config.scale), _FEW)

        num_users, num_items, num_categories = map(size, (_NUM_USERS, _NUM_ITEMS, _NUM_CATEGORIES))
        self._users = Marginal(num_users, 0.0, 1000.0 * config.scale + 1.0, 0.6).table()
        self._categories = Marginal(num_categories, 0.0, 5.0, 1.2).table()
        # A category is a range of item numbers, in proportion to its popularity, and at least one item.
        share = np.diff(self._categories.share_below(np.arange(num_categories + 1.0)))
        spare = max(num_items - num_categories, 0)
        self._first_item = np.concatenate([[0], np.cumsum(1 + np.floor(share * spare))]).astype(np.int32)
        # Within a category a few items are popular. The curve is over shares of its items, to fit all sizes.
        self._within = Marginal(1 << 20, 0.0, 2000.0, 1.05).table()
        self._effects = Effects(config.seed)
        items = int(self._first_item[-1])
        self.columns = (
            ColumnFacts(name="user", num_values=num_users),
            ColumnFacts(name="item", num_values=items, length=_LENGTH),
            ColumnFacts(name="category", num_values=num_categories, length=_LENGTH),
        )

    def draw(self, random: np.random.Generator, start: int, size: int) -> DrawnInputs:
        """Draw `size` inputs; `start`, their place in the log, makes no difference."""
        users = self._users.draw(random_bits(random, size))
        lengths = np.minimum(random.geometric(0.07, size), HISTORY).astype(np.int32)
        taste = mixed_bits(users, 1)
        categories, items = (np.empty((_LENGTH, size), np.int32) for _ in range(2))
        for step in range(_LENGTH):
            anything = self._categories.draw(random_bits(random, size))
            which = random.integers(0, _NUM_FAVOURITES, size, np.uint32)
            favourite = self._categories.draw(mixed_bits(taste + which, 2))
            chosen = np.where(random.random(size, np.float32) < _FAVOURITE_SHARE, favourite, anything)
            categories[step] = chosen
            items[step] = self._item_of(chosen, random)
        candidate_item, candidate = items[HISTORY].copy(), categories[HISTORY].copy()
        seen = np.zeros(size, np.float32)
        for step in range(HISTORY):
            used = step < lengths
            seen += used & (categories[step] == candidate)
            categories[step][~used] = -1
            items[step][~used] = -1
        for rows, last in ((items, candidate_item), (categories, candidate)):
            rows[HISTORY] = -1
            rows[lengths, np.arange(size)] = last
        parts = {
            "user": self._effects.number(users, 104),
            "item": self._effects.number(candidate_item, 106) + self._effects.number(candidate, 105),
            "affinity": self._effects.agreement(users, candidate),
            "counts": np.sqrt(seen),
        }
        ids = np.concatenate([users[None], items, categories])
        return DrawnInputs(ids=ids, counts=np.empty((0, size), np.int32), parts=parts)

    def _item_of(self, categories: Int32Array, random: np.random.Generator) -> Int32Array:
        first = self._first_item.take(categories)
        number = self._first_item.take(categories + np.int32(1)) - first
        place = self._within.draw(random_bits(random, len(categories)))
        inside: Int32Array = ((place.astype(np.int64) * number) >> 20).astype(np.int32)
        return first + inside
