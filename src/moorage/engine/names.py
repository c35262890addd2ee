"""Names for runs that came without one: `brisk-otter-7`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

MOODS = """
agile amber apt bold brisk calm candid clear crisp deft eager early easy fair fleet fond frank
fresh gentle glad grand hardy keen kind lively lucid mellow merry mild neat nimble noble plain
proud quick quiet rapid ready rosy sage sharp silent sleek sly smart snug solid spry stark steady
still stout sunny sure swift tidy tranquil trim vivid warm wise witty
"""
CREATURES = """
auk badger beaver bison bream carp cod coot crab crane curlew dolphin dunlin eel egret eider
fulmar gannet godwit grebe gull heron ibis kelpie krill lamprey limpet lobster loon manatee
marlin minnow mullet mussel narwhal newt oriole osprey otter oyster pelican perch petrel pike
pipit plaice plover porpoise prawn puffin ray rook salmon seal shad shrike skua smelt snipe sole
sprat squid stork sturgeon swan teal tern trout tuna turbot urchin walrus wren
"""
NUMBERS = 100


def suggestions(below: Callable[[int], int]) -> Iterator[str]:
    """Names without end; `below(n)` gives a number from 0 to n - 1. They may repeat."""
    moods, creatures = MOODS.split(), CREATURES.split()
    while True:
        # One number for all parts: a random one costs a system call, and submits are large.
        rest, number = divmod(below(len(moods) * len(creatures) * NUMBERS), NUMBERS)
        mood, creature = divmod(rest, len(creatures))
        yield f"{moods[mood]}-{creatures[creature]}-{number}"
