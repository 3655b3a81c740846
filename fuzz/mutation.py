"""Bending a sound file where it hurts: numbers at the bounds of what can be, pieces cut, doubled and exchanged."""

import random
import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

from msgspec import Struct

WIDTHS: Final = (1, 2, 4, 8)
VALUES: Final = tuple(
    sorted(
        {
            *range(20),
            *(1 << bit for bit in range(64)),
            *((1 << bit) - 1 for bit in range(1, 65)),
            *(at + by for at in (512, 4096, 65536, 2**20, 2**26, 2**32, 2**40, 2**63) for by in (-512, -1, 1, 512)),
        }
    )
)


class Kind(IntEnum):
    SET = 0
    ADD = 1
    FLIP = 2
    CUT = 3
    DOUBLE = 4
    EXCHANGE = 5
    REMOVE = 6


class Edit(Struct, frozen=True, kw_only=True):
    """Every number is taken modulo what there is."""

    kind: Kind
    at: int
    value: int = 0  # an index into `VALUES`, or another place
    width: int = 2  # an index into `WIDTHS`
    big: bool = False


def applied(data: bytes, edits: Sequence[Edit]) -> bytes:
    out = bytearray(data)
    for edit in edits:
        if out:
            _apply(out, edit)
    return bytes(out)


def _apply(out: bytearray, edit: Edit) -> None:
    width = WIDTHS[edit.width % len(WIDTHS)]
    # Fields lie at multiples of two, nearly always.
    at = edit.at % len(out)
    at -= at % min(width, 2)
    order = ">" if edit.big else "<"
    form = f"{order}{'BHIQ'[WIDTHS.index(width)]}"
    value = VALUES[edit.value % len(VALUES)] & ((1 << 8 * width) - 1)
    if edit.kind is Kind.FLIP:
        out[at] ^= 1 << edit.value % 8
    elif edit.kind is Kind.CUT:
        del out[edit.at % (len(out) + 1) :]
    elif edit.kind is Kind.DOUBLE:
        out[at:at] = out[at : at + 516]
    elif edit.kind is Kind.EXCHANGE:
        other = edit.value * 4 % len(out)
        out[at : at + width], out[other : other + width] = out[other : other + width], out[at : at + width]
    elif edit.kind is Kind.REMOVE:
        del out[at : at + edit.value % 516]
    elif at + width <= len(out):
        if edit.kind is Kind.ADD:
            value = (struct.unpack_from(form, out, at)[0] + edit.value % 35 - 17) % (1 << 8 * width)
        struct.pack_into(form, out, at, value)


def drawn(source: random.Random) -> list[Edit]:
    kinds = (Kind.SET,) * 5 + (Kind.ADD,) * 3 + tuple(Kind)
    return [
        Edit(
            kind=source.choice(kinds),
            at=source.randrange(1 << 32),
            value=source.randrange(1 << 16),
            width=source.randrange(4),
            big=source.random() < 0.5,
        )
        for _ in range(source.choice((1, 1, 1, 2, 2, 3, 5, 8)))
    ]
