from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vae_ops_provider.partitions import partition_directory

KEYS = st.text(min_size=1, max_size=250)


@given(KEYS)
def test_any_key_names_one_directory_directly_below(key: str) -> None:
    below = partition_directory("/out/", key).removeprefix("/out/partition=")
    assert below
    assert "/" not in below
    assert below.isascii()
    assert below.isprintable()
    assert set(below).isdisjoint('*?[]{}:\\"<>| ')
    assert len(f"partition={below}") <= 230


@given(KEYS.filter(lambda key: len(key) <= 15))
def test_readers_of_hive_partitions_get_the_key_back(key: str) -> None:
    assert unquote(partition_directory("out", key).partition("=")[2], errors="strict") == key


@given(KEYS, KEYS)
def test_two_keys_never_share_a_directory(one: str, other: str) -> None:
    assert (partition_directory("out", one) == partition_directory("out", other)) == (one == other)


@pytest.mark.parametrize(
    ("directory", "key", "expected"),
    [
        ("/data/out", "2026-11-23", "/data/out/partition=2026-11-23"),
        ("s3://lake@bucket/out/", "2026-11-23T02:00:00", "s3://lake@bucket/out/partition=2026-11-23T02%3A00%3A00"),
        ("out", "../../etc", "out/partition=..%2F..%2Fetc"),
        ("out", "..", "out/partition=.."),
    ],
)
def test_what_a_directory_is_called(directory: str, key: str, expected: str) -> None:
    assert partition_directory(directory, key) == expected


def test_long_keys_with_the_same_beginning_differ() -> None:
    names = {partition_directory("out", "ü" * 200 + last) for last in "ab"}
    assert len(names) == 2
    assert all(name.startswith("out/partition=%C3%BC") for name in names)
