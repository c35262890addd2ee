from __future__ import annotations

import asyncio

from moorage.server.peers import Peers
from moorage.store.leader import Server

A, B = "http://127.0.0.1:1", "http://127.0.0.1:2"


def row(url: str, epoch: int = 0, age: float = 0.1) -> Server:
    return Server(url, url, "0", epoch, age)


def test_the_row_of_the_present_epoch_leads() -> None:
    async def main() -> None:
        peers = Peers(B)
        peers.learn([row(A, 3), row(B)], 3)
        assert peers.leader == A
        peers.learn([row(A, 3), row(B)], 4)  # its successor has gone in good order
        assert peers.leader is None
        peers.learn([row(B, 5), row(A, 3)], 5)
        assert peers.leader is None, "a row of an earlier life"
        peers.leading = True
        peers.learn([row(B, 5), row(A, 3)], 5)
        assert peers.leader == B
        assert [view.leads for view in peers.views()] == [True, False]

    asyncio.run(main())


def test_those_not_heard_of_are_no_addresses() -> None:
    async def main() -> None:
        peers = Peers(B)
        peers.learn([row(A, 1), row("http://gone:1", age=100.0)], 1)
        assert peers.addresses == [A, B]

    asyncio.run(main())


def test_a_doubt_lasts_until_the_next_look() -> None:
    async def main() -> None:
        peers = Peers(B)
        peers.learn([row(A, 1)], 1)
        peers.doubt("http://other:1")
        assert peers.leader == A
        peers.doubt(A)
        assert peers.leader is None
        assert peers.doubted.is_set()
        waiting = asyncio.ensure_future(peers.until_leader(5))
        await asyncio.sleep(0)
        peers.learn([row(A, 1)], 1)
        assert await waiting == A

    asyncio.run(main())


def test_a_wait_ends_with_another_leader_or_its_time() -> None:
    async def main() -> None:
        peers = Peers(B)
        assert await peers.until_leader(0.01) is None
        peers.learn([row(A, 1)], 1)
        replaced = asyncio.ensure_future(peers.until_replaced(A))
        await asyncio.sleep(0)
        peers.doubt(A)
        await asyncio.sleep(0)
        assert not replaced.done(), "nobody else leads yet"
        peers.leading = True
        peers.learn([row(B, 2)], 2)
        await asyncio.wait_for(replaced, 30)

    asyncio.run(main())
