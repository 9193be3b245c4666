"""Reading PTX: what is understood, and how errors say what is not."""

from __future__ import annotations

import numpy as np
import pytest
from ptx_snippets import HEAD

from gpucompute.errors import OptionError, PtxError
from gpucompute.testing.ptx import instructions, numba_arguments, run_ptx

TWO = f"""{HEAD}
.file 1 "kernel.cu"
/* a comment
   of two lines */
.visible .entry _Z5firstPf(.param .u64 .ptr .global .align 4 p) .maxntid 128, 1, 1 .minnctapersm 2
{{
    .reg .f32 %f<3>; .reg .b64 %rd<2>;
    .loc 1 3 5
    .pragma "nounroll";
    ld.param.u64 %rd1, [p]; ld.global.f32 %f1, [%rd1]; // one
    fma.rn.f32 %f1, %f1, %f1, %f1;
    fma.rn.f32 %f1, %f1, %f1, %f1;
    st.global.f32 [%rd1], %f1;
    ret;
}}
.weak .entry _ZN4name6secondEv() {{ .reg .f32 %f<3>; add.f32 %f1, %f2, %f2; }}
.section .debug_str {{ .b8 1, 2
    {{ .b8 3 }} }}
"""


def test_instructions_are_counted() -> None:
    assert instructions(TWO)["fma.rn.f32"] == 2
    assert instructions(TWO, "second") == {"add.f32": 1}


def test_kernels_by_part_of_their_name() -> None:
    x = np.ones(1, np.float32)
    for name in ("_Z5firstPf", "first", "rst"):
        run_ptx(TWO, name, 1, 1, [x])
    assert x[0] == 2 * 3 * 7 * 43 * 1807 * 3263443  # 1, 2, 6, 42, ...: x -> x * x + x, six times
    with pytest.raises(OptionError, match="name='s': several kernels match; expected one of: _Z5firstPf, _ZN4name6sec"):
        run_ptx(TWO, "s", 1, 1, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (".version 8.0\n.entry k() { add.u32 `1; }", "PTX line 2: cannot read '`1;"),
        (
            ".version 8.0\n.target sm_90\nadd.u32 %r1, %r2;",
            "PTX line 3: got 'add.u32', expected a directive of a module",
        ),
        (".version 8.0\n.entry k() {\n ret;\n", "PTX line 4: got 'the end of the text', expected '}'"),
        (".version 8.0\n.entry k() { .reg .q32 %r; }", "PTX line 2: got '.q32', expected a type of registers"),
        (".version 8.0\n.global .align 4 .b8 x[];\n.entry k( { }", "PTX line 3: got '{', expected a state space"),
    ],
)
def test_errors_name_the_line(text: str, message: str) -> None:
    with pytest.raises(PtxError) as caught:
        instructions(text)
    assert message in str(caught.value)


def test_numbas_arguments() -> None:
    x = np.zeros((3, 4), np.int16)
    spread = numba_arguments(x, np.float32(2))
    assert [int(v) for v in spread[:4] + spread[5:]] == [0, 0, 12, 2, 3, 4, 8, 2, 2]
    assert spread[4] is x
