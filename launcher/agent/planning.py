"""A request to a plan, as far as the host's policy allows it."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

from launcher.agent.policy import check_binary, check_plan, check_request
from launcher.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    from launcher.agent.policy import Policy
    from launcher.prepare import Prepared

    T = TypeVar("T")


class Planner:
    """Plans one request after the other, beside the loop.

    Args:
        policy: what may be started.
        profiles: the folder of the profiles that have names; "" for none.
    """

    def __init__(self, policy: Policy, profiles: str) -> None:
        self.policy = policy
        self.profiles = profiles
        # Planning holds the interpreter for tens of milliseconds, and may start a throw-away QEMU.
        self._worker = ThreadPoolExecutor(1, "plan")

    async def prepare(
        self, arguments: Mapping[str, Any], lock: Mapping[str, Any] | None = None
    ) -> Prepared:
        """The plan of a request.

        Args:
            arguments: as of `start`.
            lock: what is to be kept, where it was sent; else `locked` means the host's own file.

        Raises:
            PolicyError: policy does not allow it.
            LauncherError: as `launcher.prepare.prepare`.
        """
        check_request(self.policy, arguments)
        return await self.aside(lambda: self._prepare(arguments, lock))

    async def aside(self, work: Callable[[], T]) -> T:
        """Do something that takes a while where it does not hold up the loop."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    def close(self) -> None:
        """End the thread once it is idle."""
        self._worker.shutdown(cancel_futures=True)

    def _prepare(
        self, arguments: Mapping[str, Any], sent: Mapping[str, Any] | None = None
    ) -> Prepared:
        from launcher.prepare import Request, load, prepare_now

        profile = arguments["profile"]
        path = self._path_of(profile) if isinstance(profile, str) else profile
        settings = tuple(arguments.get("settings", ()))
        name = arguments.get("name") or (profile if isinstance(profile, str) else "")
        if name:
            # Commands for one machine wait for each other under the name that their words tell.
            settings = (*settings, f"name={name}")
        lock = ""
        if arguments.get("locked"):
            if not isinstance(path, str):
                raise InputError("`locked` is for a profile of the host", code="locked")
            from launcher.lock_files import lock_path

            lock = lock_path(path)
        platform, qemu = arguments.get("platform", ""), arguments.get("qemu", "")
        loaded = load(Request(path, platform, qemu, settings, lock=lock, lock_sent=sent))
        check_binary(self.policy, loaded.binary, os.path.realpath)
        prepared = prepare_now(loaded)
        check_plan(self.policy, prepared.plan, os.path.realpath)
        return prepared

    def _path_of(self, name: str) -> str:
        path = os.path.join(self.profiles, f"{name}.yaml")
        if not self.profiles or not os.path.isfile(path):
            raise InputError(f"this host has no profile {name}", code="absent")
        return path
