"""The command line: text to actions, actions to text. Imports nothing heavy before it must.

    verbs.py      the table of verbs and the page of `--help`
    words.py      plain command lines, without argparse
    parser.py     argparse, for the one verb that was given and all that is not plain
    options.py    options that several verbs have
    show.py       results on stdout, errors on stderr
    terminal.py   the guest's console on this terminal
    signals.py    what ends us while a machine is ours
    session.py    one `run`, from the spawned QEMU to its end
    reports.py    the file of `--report`

The verbs are in run.py, plan.py, check.py, verify.py, platforms.py, host.py, schema.py, drift.py
(drift, record), fleet.py, machines.py (ps, stop) and talk.py (console, qmp).

No traceback reaches a user: `main` turns whatever is raised into lines and an exit status.
"""

from __future__ import annotations

import os
import sys

from launcher.cli.show import forget_stdout, out
from launcher.cli.verbs import VERBS, overview

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from launcher.errors import LauncherError

INTERRUPTED = 130
#: What a shell reports of a program whose reader went away (128 + SIGPIPE).
NO_READER = 141
INTERNAL = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the words ask for.

    Args:
        argv: without the program's name; by default this process's own.

    Returns:
        The exit status.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        _open_streams()
        return _guarded(words, own_process=argv is None)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        forget_stdout()
        return NO_READER


def _guarded(words: list[str], *, own_process: bool) -> int:
    """The exit status, whatever happens but the loss of stdout."""
    try:
        return _dispatch(words, own_process=own_process)
    except BrokenPipeError:
        raise
    except SystemExit as end:  # argparse has printed the help
        return end.code if isinstance(end.code, int) else 0
    except Exception as error:  # noqa: BLE001 (the promise of this module)
        from launcher.errors import LauncherError

        if not isinstance(error, LauncherError):
            error = _internal(error)
        _tell(error, words)
        return error.exit_status


def _dispatch(words: list[str], *, own_process: bool) -> int:
    if not words:
        sys.stderr.write(overview())
        return 2
    verb = words[0]
    if verb in ("-h", "--help", "help"):
        out(overview().rstrip())
        return 0
    if verb == "--version":
        from launcher import __version__

        out(f"qemu-launcher {__version__}")
        return 0
    if verb not in VERBS:
        raise _unknown_verb(verb)
    if own_process:
        # Gone before there is much to collect; `run` collects while it waits for its machine.
        import gc

        gc.disable()
    from launcher.cli.words import read_words

    arguments = read_words(verb, words[1:])
    if arguments is None:
        from launcher.cli.parser import parse

        arguments = parse(verb, words[1:])
    status: int = arguments.run(arguments)
    return status


def _unknown_verb(verb: str) -> LauncherError:
    from launcher.errors import InputError
    from launcher.qapi import nearest

    if verb.startswith("-"):
        words, near = f"the verb comes first, then options such as {verb}", []
    else:
        words, near = f"there is no verb {verb!r}", nearest(verb, VERBS)
    hint = f"did you mean {' or '.join(near)}?" if near else "see `qemu-launcher --help`"
    return InputError(words, hint=hint, code="usage")


def _internal(error: Exception) -> LauncherError:
    """An error of ours: one line for the user, all of it for who asks."""
    import traceback

    from launcher.errors import LauncherError

    if os.environ.get("QEMU_LAUNCHER_DEBUG") == "1":
        traceback.print_exc()
    frames = traceback.extract_tb(error.__traceback__)
    at = ""
    if frames:
        folder = os.path.basename(os.path.dirname(frames[-1].filename))
        at = f" at {folder}/{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}"
    words = " ".join(str(error).split())
    wrapped = LauncherError(
        f"internal error: {type(error).__name__}: {words}{at}; please report it",
        hint="QEMU_LAUNCHER_DEBUG=1 shows where it happened",
        code="internal",
    )
    wrapped.exit_status = INTERNAL
    return wrapped


def _tell(error: LauncherError, words: list[str]) -> None:
    from launcher.cli.show import out_json, show_error

    if _wants_json(words):
        out_json({"error": error.as_json()})
    else:
        show_error(error)


def _wants_json(words: list[str]) -> bool:
    """Whether `--format json` was asked for, also where the words cannot be parsed."""
    pairs = zip(words, [*words[1:], ""], strict=False)
    return any(w == "--format=json" or (w, after) == ("--format", "json") for w, after in pairs)


def _open_streams() -> None:
    """No character that a user's file holds may fail to print; closed streams swallow all."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (for the process's life)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
