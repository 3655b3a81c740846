"""Tags as IMS reads and writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.images.model import TagFilter
from calotype.images.tagging import Tag, asked, of_key, of_values, read, spellings, with_tags, without_keys

TEXT = st.text(alphabet="ab.=", max_size=6)


def matches(wanted: TagFilter, text: str) -> bool:
    """What the condition of `tags_sql` finds, said the long way."""
    return text in wanted.strings or (
        wanted.key is not None
        and (
            text.startswith(wanted.key + "=")
            or ("." not in wanted.key and text.startswith(wanted.key + ".") and "=" not in text)
        )
    )


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("team=blue", Tag("team", "blue")),
        ("team.blue", Tag("team", "blue")),
        ("team", Tag("team")),
        ("a.b=c", Tag("a.b", "c")),
        ("a=b.c=d", Tag("a", "b.c=d")),
        ("a.b.c", Tag("a", "b.c")),
    ],
)
def test_a_tag_is_split_at_the_first_equals_sign_else_at_the_first_dot(text: str, tag: Tag) -> None:
    assert read(text) == tag


@given(TEXT)
def test_a_tag_is_among_the_spellings_of_what_it_is_read_as(text: str) -> None:
    assert text in spellings(read(text))
    assert {read(other) for other in spellings(read(text))} == {read(text)}


@given(TEXT, TEXT)
def test_a_key_finds_the_tags_that_are_read_with_it_and_no_others(key: str, text: str) -> None:
    assert matches(of_key(key), text) == (read(text).key == key)


@given(TEXT, st.lists(TEXT, max_size=3), TEXT)
def test_a_key_with_values_finds_the_tags_that_have_one_of_them(key: str, values: list[str], text: str) -> None:
    tag = read(text)

    assert matches(of_values(key, values), text) == (tag.key == key and (tag.value in values or not values))


@given(TEXT, TEXT)
def test_a_filter_finds_the_tag_itself_its_older_spelling_and_by_a_bare_key(wanted: str, text: str) -> None:
    found = text == wanted or (read(text).key == wanted if "=" not in wanted else read(text) == read(wanted))

    assert matches(asked(wanted), text) == found


WORD = st.text(alphabet="ab", min_size=1, max_size=2)  # of what IMS takes
ADDED = st.lists(st.builds(Tag, WORD, st.one_of(st.just(""), WORD)), max_size=3, unique_by=lambda tag: tag.key)


@given(st.lists(TEXT, max_size=5), ADDED)
def test_added_tags_are_there_and_all_others_stay(kept: list[str], added: list[Tag]) -> None:
    after = with_tags(kept, added)
    keys = {tag.key for tag in added}

    assert sorted(text for text in after if read(text).key in keys) == sorted(map(str, added))
    assert [text for text in after if read(text).key not in keys] == [
        text for text in dict.fromkeys(kept) if read(text).key not in keys
    ]
    assert with_tags(after, added) == after


@given(st.lists(TEXT, max_size=5), st.lists(TEXT, max_size=3))
def test_removed_keys_are_gone_and_all_others_stay(kept: list[str], keys: list[str]) -> None:
    assert list(without_keys(kept, keys)) == [text for text in kept if read(text).key not in keys]
