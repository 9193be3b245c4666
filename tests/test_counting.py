"""The table that a run of the tests ends with."""

from __future__ import annotations

import json
import struct

from counting import CHECKED, EMULATED, INTERPRETED, Counts


def cubin(*names: str) -> bytes:
    return b"\x7fELF" + b"".join(b"\0.text.%s\0.nv.constant0.%s\0" % (name.encode(), name.encode()) for name in names)


def process(threads: int) -> Counts:
    counts = Counts()
    counts.note_cubin(cubin("first", "second"), "sm_90")
    counts.note_cubin(cubin("first", "second"), "sm_90")  # the same again
    counts.note_cubin(cubin("first") + struct.pack("<q", threads), "sm_120")
    counts.runs[INTERPRETED].note("first", 1, threads, 0.5)
    counts.runs[INTERPRETED].note("first", 0, threads, 0.25)  # its second batch
    counts.runs[EMULATED].note(f"axpy {threads}", 1, 10, 1e-5)
    return counts


def test_counts_of_several_processes_add_up() -> None:
    total = Counts()
    assert total.lines() == []
    for threads in (3000, 1000):
        total.add(json.loads(json.dumps(process(threads).packed())))
    assert total.lines() == [
        "compiled to machine code: 4 (sm_90 2, sm_120 2)",
        "                          kernels  launches      threads   threads/s     at best",
        "emulated                        2         2           20   1,000,000   1,000,000",
        "interpreted as PTX              1         2         8000       5,333      12,000",
    ]
    assert total.runs[CHECKED].launches == 0
