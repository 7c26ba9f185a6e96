from typing import Any

import pytest

from vae_ops.errors import SettingsError
from vae_ops.settings import RunSettings, TrainSettings
from vae_ops_provider.rendering import named_settings, parse_integer, parse_settings, parse_text


@pytest.mark.parametrize(
    ("section", "name", "rendered", "meant"),
    [
        ("generate", "rows", "500", 500),
        ("generate", "rows", "None", None),
        ("generate", "rows", "", None),
        ("generate", "ratio", "0.5", 0.5),
        ("generate", "ratio", "2", 2.0),
        ("generate", "ratio", "auto", "auto"),
        ("utility", "target", "income", "income"),
        ("utility", "target", "2024", "2024"),
        ("utility", "target", "None", None),
        ("utility", "doses", "[0.5, 2]", (0.5, 2.0)),
        ("utility", "task", "None", None),
        ("train", "variational", "False", False),
        ("train", "variational", "true", True),
        ("train", "decoder", "factorised", "factorised"),
        ("read", "exclude", "['a, b', \"it's\"]", ("a, b", "it's")),
        ("read", "exclude", '["a"]', ("a",)),
        ("read", "exclude", "a, b", ("a", "b")),
        ("read", "exclude", "7", ("7",)),
        ("read", "exclude", "[]", ()),
        ("read", "semantic_types", "{'zip': 'categorical'}", {"zip": "categorical"}),
    ],
)
def test_text_becomes_the_declared_type(section: str, name: str, rendered: str, meant: Any) -> None:
    settings = parse_settings({section: {name: rendered}})
    assert getattr(getattr(settings, section), name) == meant


def test_native_values_stay() -> None:
    assert parse_settings({"train": {"seed": 3}, "read": {"exclude": ["a"]}}).to_dict()["read"]["exclude"] == ["a"]


@pytest.mark.parametrize("layers", [None, {}, "", "None", "{}", [], [{}, "{}"], {"train": "None"}])
def test_nothing_means_the_defaults(layers: Any) -> None:
    assert parse_settings(layers) == RunSettings()


def test_a_whole_mapping_or_section_may_be_text() -> None:
    expected = RunSettings(train=TrainSettings(seed=4))
    assert parse_settings("{'train': {'seed': 4}}") == expected
    assert parse_settings({"train": '{"seed": 4}'}) == expected


def test_later_layers_win_and_none_leaves_a_value() -> None:
    settings = parse_settings([{"train": {"seed": 1, "steps": 10}}, {"train": {"seed": 2, "steps": "None"}}])
    assert (settings.train.seed, settings.train.steps) == (2, 10)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ({"train": {"stepz": 1}}, "did you mean 'steps'"),
        ({"trane": {}}, "did you mean 'train'"),
        ({"train": {"steps": "many"}}, "TrainSettings.steps expects int, got 'many'"),
        ({"train": {"steps": "1.5"}}, r"expects int, got 1\.5"),
        ({"generate": {"rows": "-1"}}, "at least 0"),
        ({"train": "fast"}, "train expects an object"),
        ("fast", "settings expects an object"),
        ("[1]", "settings expects an object"),
        ({"generate": {"rows": "1", "ratio": "1"}}, "rows or ratio"),
    ],
)
def test_nonsense_is_refused_in_words(layers: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        parse_settings(layers)


def test_one_seed_decides_all() -> None:
    named = named_settings(rows="5", ratio=None, target="b", exclude=("a",), seed="9", time_budget_seconds="30")
    settings = parse_settings(named)
    assert (settings.read.seed, settings.train.seed, settings.generate.seed) == (9, 9, 9)
    assert (settings.generate.rows, settings.train.time_budget_seconds) == (5, 30.0)
    assert (settings.read.exclude, settings.utility.target) == (("a",), "b")


def test_text_and_integers() -> None:
    assert [parse_text(value) for value in (None, "", "None", "/store")] == [None, None, None, "/store"]
    assert [parse_integer(value, "shard") for value in (3, "3")] == [3, 3]
    with pytest.raises(SettingsError, match="shard expects a whole number, got 'x'"):
        parse_integer("x", "shard")
