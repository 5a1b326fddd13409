"""Keys are stable across machines and versions: a run resumed next year draws what it would have drawn."""

from lorakiln.base import chance


def test_keys_are_literal_numbers():
    assert chance.key(42, "noise", 7, 0) == chance.key(42, "noise", 7, 0)
    assert chance.key(42, "noise", 7, 0) == KEY


def test_every_part_of_a_key_counts():
    keys = {
        chance.key(*place) for place in [(1, "a", 0), (2, "a", 0), (1, "b", 0), (1, "a", 1), (1, "a", 0, 0), (1, "a")]
    }
    assert len(keys) == 6
    assert chance.key(1, "a", 11, 1) != chance.key(1, "a", 1, 11)


def test_rng_starts_anew_each_time():
    assert chance.rng(1, "order", 3).random() == chance.rng(1, "order", 3).random()


KEY = 2187347880177503190
