"""Reading PTX: what is understood, and how errors say what is not."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from ptx_snippets import HEAD

from gpucompute.errors import OptionError, PtxError
from gpucompute.testing.ptx import (
    access,
    assembler,
    floating,
    flow,
    instructions,
    integers,
    numba_arguments,
    run_ptx,
    warps,
)

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
    assert instructions(unknown("foo.b32 [%r1 * 2];", "", ")"), "z") == {"foo.b32": 1, "ret": 1}  # not known, but there


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
        (".version 8.0\n.entry k() { add.u32 %r1, %r2 }", "PTX line 2: got '}', expected ','"),
        (".version 8.0\n.global .align 4 .b8 x[];\n.entry k( { }", "PTX line 3: got '{', expected a state space"),
    ],
)
def test_errors_name_the_line(text: str, message: str) -> None:
    with pytest.raises(PtxError) as caught:
        instructions(text)
    assert message in str(caught.value)


# What is not known is an error to whoever reaches it


def unknown(body: str, declared: str = "", header: str = "") -> str:
    """A module with a kernel that sets p[0] to 7 and, if it was 1 before, goes on to a body; `z` goes there at once."""
    registers = ".reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .f32 %f<9>; .reg .pred %q;"
    return f"""{HEAD}
{declared}
.visible .entry k(.param .u64 p) {{ {registers}
    ld.param.u64 %rd1, [p]; ld.global.u32 %r1, [%rd1]; mov.u32 %r2, 7; st.global.u32 [%rd1], %r2;
    setp.eq.u32 %q, %r1, 1; @!%q bra END;
    {body}
    END: ret;
}}
.visible .entry z(.param .u64 p{header} {{ {registers} {body} ret; }}
.visible .entry last(.param .u64 p) {{ {registers} ld.param.u64 %rd1, [p]; mov.u32 %r2, 5; st.global.u32 [%rd1], %r2; }}
"""


TENSOR = "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
UNKNOWN = {  # body, declarations outside, what the error says
    "texture": (
        "tex.2d.v4.f32.s32 {%f1, %f2, %f3, %f4}, [t, {%r1, %r2}];",
        ".global .texref t;",
        r"\(tex.2d.v4.f32.s32\).* not known to the interpreter: tex.2d.v4.f32.s32 {%f1, .*}, \[t, {%r1, %r2}\]",
    ),
    "a copy of a tensor": (
        f"{TENSOR} [%r1], [%rd1, {{%r2, %r3}}], [%r4];",
        "",
        rf"\({TENSOR}\).* not known to the interpreter: .*\[%r4\] \(PTX line \d+: got ',', expected '\]'\)",
    ),
    "operands over several lines": ("foo.b32 %r1,\n  [%r2 * 4]\n  ;", "", r"foo.b32 %r1, \[%r2 \* 4\] \(PTX line"),
    "matrices": (
        "mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {%f1}, {%r1}, {%r2}, {%f2};",
        "",
        r"\(mma.sync.*f32\), thread \(0, 0, 0\) .*: this instruction is not known to the interpreter",
    ),
    "a directive": (".hint 3;", "", r"\(.hint\).*not known to the interpreter: .hint 3 \(.* expected an instruction\)"),
    "registers": (
        ".reg .b128 %wide<3>; { mov.b64 %rd1, %wide2; }",
        "",
        r"\(mov.b64\).*: %wide2 is declared in a form not .*: PTX line \d+, .reg .b128 %wide<3>$",
    ),
    "a variable": (
        "mov.u64 %rd1, image;",
        ".global .surfref other, image;\n.tex .u64 old;",
        r"\(mov.u64\).*: image is declared in .* interpreter: PTX line 5, .global .surfref other, image$",
    ),
    "values": (
        "ld.global.b32 %r1, [masks];",
        ".visible .global .b32 masks[2] = {0xFF(k), 3};",
        r"\(ld.global.b32\).*: masks is declared in a form not known",
    ),
    "no semicolon": (
        "ld.global.u32 %r1, [future];",
        ".future 3, 4\n.other",
        r"\(ld.global.u32\).*: future is not decl",
    ),
    "a function": (
        "call.uni f, (%r1);",
        ".func (.reg .b32 %out) f (.reg .b32 %in) { add.u32 %out, %in, 1; ret; }",
        r"\(call.uni\).*: the kernel calls f, which cannot be run: PTX line 5: got '.reg', expected a state space",
    ),
    "a product of 128 bits": ("mul.wide.u64 %rd1, %rd1, %rd1;", "", r"\(mul.wide.u64\).*: this instruction is"),
    "a smallest one of one": ("min.f16x2 %r1, %r1;", "", r"\(min.f16x2\).*: this instruction is"),
    "saturation": ("cvt.rn.satfinite.f16x2.f32 %r1, %f1, %f2;", "", r"\(cvt.rn.satfinite.*\).*: this instruction is"),
    "a predicate": ("@%nobody add.u32 %r1, %r1, %r1;", "", r"\(add.u32\).*: %nobody is not declared"),
    "operands that are missing": (
        "shfl.sync.idx.b32 %r1, %r2;",
        "",
        r"\(shfl.sync.idx.b32\).*: this instruction is not",
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_is_an_error_where_it_is_reached(name: str) -> None:
    body, declared, message = UNKNOWN[name]
    text = unknown(body, declared, ")")
    x = np.zeros(1, np.int32)
    run_ptx(text, "k", 1, 1, [x])
    assert x[0] == 7
    run_ptx(text, "last", 1, 1, [x])
    assert x[0] == 5
    for kernel, start in (("k", 1), ("z", 0)):
        x[0] = start
        with pytest.raises(PtxError, match=message):
            run_ptx(text, kernel, 1, 1, [x])


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            ") .maxntid 32 .newattribute 4, 4",
            r"z cannot be run: PTX line \d+: got '.newattribute', expected an attribute",
        ),
        (") .explicitcluster .reqnctapercluster 2, 1, 1", "got '.reqnctapercluster'"),
        (", .param .texref t)", r"z cannot be run: PTX line \d+: got '.texref', expected a type"),
        (", .param .u64 .ptr .newspace .align 4 q)", "got '.newspace'"),
    ],
)
def test_kernels_with_unknown_headers(header: str, message: str) -> None:
    text = unknown("", "", header)
    x = np.zeros(1, np.int32)
    for kernel in ("k", "last"):
        run_ptx(text, kernel, 1, 1, [x])
    with pytest.raises(PtxError, match=message):
        run_ptx(text, "z", 1, 1, [x])


def test_attributes_that_change_nothing() -> None:
    header = ') .explicitcluster .reqnctapercluster 1, 1, 1 .maxntid 32, 1, 1\n.minnctapersm 2 .pragma "nounroll";'
    run_ptx(unknown("", "", header), "z", 1, 1, [np.zeros(1, np.int32)])


def test_an_unknown_instruction_for_nobody() -> None:
    # its predicate is false in every thread, then in all but one
    text = unknown("", "", ")").replace(
        "mov.u32 %r2, 5;", "mov.u32 %r2, %tid.x; setp.gt.u32 %q, %r2, 30; @%q foo [%r1*2];"
    )
    run_ptx(text, "last", 1, 31, [np.zeros(1, np.int32)])
    with pytest.raises(PtxError, match=r"\(foo\), thread \(31, 0, 0\) of block \(0, 0, 0\): .* not known"):
        run_ptx(text, "last", 1, 32, [np.zeros(1, np.int32)])


def test_any_statement_runs_or_is_an_error() -> None:
    random = Random(0)
    tables = (access.TABLE, flow.TABLE, warps.TABLE, integers.TABLE, floating.TABLE, assembler.ANY_TYPE)
    opcodes = sorted({name for table in tables for name in table})
    modifiers = [
        "u32",
        "s64",
        "f32",
        "f16x2",
        "b128",
        "pred",
        "global",
        "shared",
        "v2",
        "rn",
        "wide",
        "sync",
        "add",
        "cas",
    ]
    operands = ["%r1", "%rd2", "%f1", "%q", "%r1|%q", "3", "[%rd1]", "[%q]", "{%r1, %r2}", "{}", "END", "p", "%tid.x"]
    errors = []
    for _ in range(600):
        opcode = ".".join([random.choice(opcodes), *random.choices(modifiers, k=random.randrange(4))])
        text = unknown(f"{opcode} {', '.join(random.choices(operands, k=random.randrange(5)))};", "", ")")
        try:
            run_ptx(text, "k", 1, 32, [np.ones(64, np.int32)])
        except PtxError as error:
            errors.append((opcode, str(error)))
    assert 300 < len(errors) < 600
    assert not [(opcode, error) for opcode, error in errors if f"({opcode})" not in error]


def test_numbas_arguments() -> None:
    x = np.zeros((3, 4), np.int16)
    spread = numba_arguments(x, np.float32(2))
    assert [int(v) for v in spread[:4] + spread[5:]] == [0, 0, 12, 2, 3, 4, 8, 2, 2]
    assert spread[4] is x
