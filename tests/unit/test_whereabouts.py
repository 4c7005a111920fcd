"""Where a vCPU is, from the text of `info registers -a`."""

from __future__ import annotations

import pytest

from launcher.whereabouts import vcpu_lines

pytestmark = pytest.mark.hermetic

# QEMU 11.1, two vCPUs of a Linux guest, shortened to the lines that matter.
X86 = """
CPU#0
RAX=0000000000000000 RBX=0000000000000000 RCX=0000000000000001 RDX=000000000000081c
RIP=ffffffff81a2f0cf RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1
CS =0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]

CPU#1
EAX=00000000 EBX=00000000 ECX=00000000 EDX=00000663
EIP=0000fff0 EFL=00000002 [-------] CPL=3 II=0 A20=1 SMM=0 HLT=0
"""


def test_each_vcpu_has_a_line():
    assert vcpu_lines(X86, {0: 100, 1: 101, 2: 102}) == [
        "vCPU 0: at 0xffffffff81a2f0cf, ring 0, halted (thread 100)",
        "vCPU 1: at 0x0000fff0, ring 3 (thread 101)",
        "vCPU 2: not told (thread 102)",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("CPU#0\n PC=ffffffc010080000 X00=0000000000000000\n", "vCPU 0: at 0xffffffc010080000"),
        ("CPU#0\n pc       80000000 x1 0\n", "vCPU 0: at 0x80000000"),
        ("CPU#0\nnothing known\n", "vCPU 0: somewhere"),
    ],
)
def test_other_targets(text, line):
    assert vcpu_lines(text, {0: 5}) == [f"{line} (thread 5)"]
