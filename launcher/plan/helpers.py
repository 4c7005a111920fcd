"""Which programs run beside QEMU, and how they are told what to do."""

from __future__ import annotations

from launcher.plan.model import Helper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.profiles import Profile


#: What swtpm is told for a version of the TPM.
_VERSIONS = {"2.0": ("--tpm2",), "1.2": ()}


def tpm_version(helper: Helper) -> str:
    """Which version of the TPM a swtpm emulates."""
    return next(one for one, words in _VERSIONS.items() if set(words) <= set(helper.words))


def decide_helpers(profile: Profile) -> tuple[Helper, ...]:
    """The helpers that a profile needs; none for one that names sockets of its own."""
    tpm = profile.tpm
    if tpm is None:
        return ()
    # The state's folder is the working directory: swtpm takes commas in a path for more options.
    # It ends when QEMU's end of the socket does.
    words = (
        *("socket", "--tpmstate", "dir=.,mode=0600", "--terminate"),
        *("--ctrl", "type=unixio,{end}"),
        *_VERSIONS[tpm.version],
    )
    helper = Helper(
        chardev=tpm.chardev,
        program="swtpm",
        words=words,
        connected="clientfd={fd}",
        listening="path={path}",
        folder=tpm.state.text,
        path="tpm",
        place=tpm.state.place,
    )
    return (helper,)
