"""One folder on two hosts, over the network: GlusterFS with its own client on each.

Its two daemons are told all they need by files, so nothing outside of a test's folder is written
and no service of the machine's is used.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time

from integration.conftest import needs
from integration.namespaces import BROKER, Network

SECONDS = 20
_PORT = 24100
_SERVER = """\
volume files
  type storage/posix
  option directory {brick}
end-volume
volume shared
  type features/locks
  subvolumes files
end-volume
volume server
  type protocol/server
  option transport-type tcp
  option transport.socket.bind-address {address}
  option transport.socket.listen-port {port}
  option auth.addr.shared.allow *
  subvolumes shared
end-volume
"""
#: With the caches that a volume has unless it is told otherwise.
_CLIENT = """\
volume remote
  type protocol/client
  option transport-type tcp
  option remote-host {address}
  option remote-port {port}
  option remote-subvolume shared
end-volume
volume later
  type performance/write-behind
  subvolumes remote
end-volume
volume ahead
  type performance/read-ahead
  subvolumes later
end-volume
volume quick
  type performance/quick-read
  subvolumes ahead
end-volume
volume about
  type performance/md-cache
  subvolumes quick
end-volume
"""


class NetworkStorage:
    """What the first host of a network has as `mounts[0]`, the second as `mounts[1]`, and so on.

    Args:
        network: of the hosts; the files are where the broker is.
        folder: a new one for all of it.
    """

    def __init__(self, network: Network, folder: str) -> None:
        there = os.path.exists("/dev/fuse") and shutil.which("glusterfsd") is not None
        needs(there, "a network file system needs /dev/fuse and glusterfs-client")
        self._folder, self._daemons = folder, []
        self.mounts: list[str] = []
        brick = self._made("brick")
        named = {"brick": brick, "address": BROKER, "port": _PORT}
        try:
            self._start(network.network_only(None), "server", "glusterfsd", _SERVER, named)
            for number in range(len(network.addresses)):
                mount = self._made(f"mount{number}")
                words = network.network_only(number)
                self._start(words, f"client{number}", "glusterfs", _CLIENT, named, mount)
                self.mounts.append(mount)
        except BaseException:
            self.close()
            raise

    def _made(self, name: str) -> str:
        folder = os.path.join(self._folder, name)
        os.makedirs(folder)
        return folder

    def _start(self, prefix, name, program, text, named, *mount) -> None:
        path = os.path.join(self._folder, name)
        with open(f"{path}.vol", "w") as file:
            file.write(text.format(**named))
        words = [program, "--no-daemon", "-f", f"{path}.vol", "-l", f"{path}.log", *mount]
        words += ["-p", f"{path}.pid"]
        self._daemons.append(subprocess.Popen([*prefix, *words], stdin=subprocess.DEVNULL))
        until = time.monotonic() + SECONDS
        while mount and not os.path.ismount(mount[0]):
            with open(f"{path}.log", "a+") as file:
                file.seek(0)
                assert time.monotonic() < until, file.read()[-2000:]
            time.sleep(0.05)  # nothing tells that it is mounted; up to SECONDS

    def close(self) -> None:
        """Unmount it; whoever used it has ended by then."""
        for mount in self.mounts:
            subprocess.run(["umount", mount], check=True, timeout=SECONDS)
        for daemon in self._daemons:
            daemon.terminate()
        for daemon in self._daemons:
            daemon.wait(SECONDS)
