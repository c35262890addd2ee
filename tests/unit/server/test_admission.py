from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from moorage.server import auth, tokens
from moorage.server.admission import KEPT, MISSES, Admission, admitting
from moorage.server.replies import error_reply
from moorage.server.tokens import Principal
from moorage.store.base import Statement
from moorage.store.sqlite import SqliteStore, open_sqlite


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(open_sqlite(tmp_path / "moorage.db")) as opened:
        yield opened


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def owner(admission: Admission, token: str) -> Principal:
    return asyncio.run(admission.authenticate(f"Bearer {token}"))


def admit(store: SqliteStore, secret: str, server: str, *, adopt: bool = False) -> int:
    batch = admitting(store, [(secret, "user", "ada")], server, adopt=adopt)
    store.write(batch)
    return len(batch)


def test_a_token_of_any_server_is_known_and_a_wrong_one_not_repeated(store: SqliteStore) -> None:
    assert admit(store, "one", "a") == 1
    assert admit(store, "two", "b") == 1
    admission = Admission(store)
    assert owner(admission, "one") == owner(admission, "two") == Principal("user", "ada")
    with pytest.raises(auth.Unauthorized) as caught:
        owner(admission, "three")
    assert "three" not in str(caught.value)


def test_a_server_replaces_its_own_tokens_only(store: SqliteStore) -> None:
    admit(store, "one", "a")
    admit(store, "two", "b")
    assert admit(store, "new", "b") == 2
    assert admit(store, "new", "b") == 0
    assert {row["hash"] for row in store.read("tokens")} == {
        tokens.digest("one"),
        tokens.digest("new"),
    }


def test_tokens_of_before_are_adopted_only_where_there_is_one_server(store: SqliteStore) -> None:
    row = {"hash": tokens.digest("old"), "kind": "user", "subject": "ada", "created_at": 1.0}
    store.write([Statement("insert_token", {**row, "server": ""})])
    admit(store, "new", "a")
    assert len(store.read("tokens")) == 2
    admit(store, "new", "a", adopt=True)
    assert len(store.read("tokens")) == 1


def test_what_was_found_is_believed_for_a_while(store: SqliteStore) -> None:
    clock = Clock()
    admission = Admission(store, clock)
    admit(store, "one", "a")
    owner(admission, "one")
    with pytest.raises(auth.Unauthorized):
        owner(admission, "two")
    store.write([Statement("delete_token", {"hash": tokens.digest("one")})])
    admit(store, "two", "b")
    assert owner(admission, "one") == Principal("user", "ada")
    clock.now += KEPT + 1
    with pytest.raises(auth.Unauthorized):
        owner(admission, "one")
    assert owner(admission, "two") == Principal("user", "ada")


def test_who_guesses_cannot_keep_the_database_busy(store: SqliteStore) -> None:
    clock = Clock()
    admission = Admission(store, clock)
    admit(store, "one", "a")
    owner(admission, "one")
    clock.now += KEPT
    for number in range(MISSES):
        with pytest.raises(auth.Unauthorized):
            owner(admission, f"guess-{number}")
    with pytest.raises(auth.TooMany, match="too many") as caught:
        owner(admission, "one too many")
    assert error_reply(caught.value).headers["retry-after"] == "1"
    clock.now += 0.5
    assert owner(admission, "one") == Principal("user", "ada"), "known before: looked up again"
    clock.now += 1
    with pytest.raises(auth.Unauthorized):
        owner(admission, "one too many")


def test_tokens_that_are_found_are_not_counted(store: SqliteStore) -> None:
    names = [f"token-{number}" for number in range(2 * MISSES)]
    store.write(admitting(store, [(name, "user", name) for name in names], "a", adopt=False))
    admission = Admission(store, Clock())
    assert [owner(admission, name).subject for name in names] == names


def test_many_with_one_token_are_one_look(store: SqliteStore) -> None:
    admit(store, "one", "a")
    admission = Admission(store)
    looks = []

    def find(digest: str) -> Principal:
        looks.append(digest)
        return Principal("user", "ada")

    async def crowd() -> None:
        coming = [admission.authenticate("Bearer one") for _ in range(4 * MISSES)]
        assert {one.subject for one in await asyncio.gather(*coming)} == {"ada"}

    admission._find = find  # type: ignore[method-assign]
    asyncio.run(crowd())
    assert len(looks) == 1
