"""A Slurm of two nodes on this machine: its own key, sockets, ports on loopback, and folders."""

from __future__ import annotations

import os
import pwd
import random
import re
import select
import signal
import subprocess
import time

from integration.conftest import ROOT, needs
from integration.ports import free_ports
from launcher.cache import cache_folder

SECONDS = 60
NODES = ("n1", "n2")


def slurm_folder() -> str:
    folder = os.environ.get("QEMU_LAUNCHER_SLURM") or os.path.join(cache_folder(), "slurm", "bin")
    there = os.path.exists(os.path.join(folder, "slurmctld"))
    needs(there, "Slurm is not there; scripts/slurm brings it")
    return folder


#: No control groups (a container may not make any), no accounting daemon, no mail. The job
#: completion file stands in for accounting: `sacct --completion` reads it.
_CONFIG = """\
ClusterName=test
FirstJobId={first}
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
PluginDir={plugins}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobcomp.log
Epilog={epilog}
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
CommunicationParameters=NoInAddrAny
JobRequeue=0
ReturnToService=2
InactiveLimit=0
KillWait=100
SlurmdTimeout=120
MessageTimeout=60
BatchStartTimeout=100
UnkillableStepTimeout=300
PartitionName=all Nodes={nodes} Default=YES MaxTime=10 State=UP
"""


class Cluster:
    """One controller and a daemon for each node; all of it ends with `close`."""

    def __init__(self, folder: str) -> None:
        self.programs, self.folder = slurm_folder(), folder
        # Jobs of another cluster on this machine have other numbers, and so other folders in /tmp.
        self.first = random.randrange(1, 60000) * 1000
        # munged refuses a socket that not everyone can reach; its key is for its user alone.
        os.chmod(folder, 0o755)
        for name in ("munge", "state", *(f"spool-{node}" for node in NODES)):
            os.mkdir(os.path.join(folder, name), 0o755)
        controller, *ports = free_ports(1 + len(NODES))
        library = os.path.join(os.path.dirname(self.programs), "root/usr/lib/x86_64-linux-gnu")
        config = _CONFIG.format(
            controller=controller,
            epilog=os.path.join(ROOT, "packaging/slurm/epilog.sh"),
            first=self.first,
            folder=folder,
            nodes=",".join(NODES),
            plugins=os.path.join(library, "slurm-wlm"),
            user=pwd.getpwuid(os.geteuid()).pw_name,
        )
        for node, port in zip(NODES, ports, strict=True):
            config += (
                f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=4\n"
            )
        self._write("slurm.conf", config)
        # That of version 2 asks systemd over D-Bus, which need not run here; this one only if used.
        self._write("cgroup.conf", "CgroupPlugin=cgroup/v1\n")
        self._write("munge/key", os.urandom(128))
        self.environment = {
            **{name: value for name, value in os.environ.items() if "SLURM" not in name},
            "SLURM_CONF": os.path.join(folder, "slurm.conf"),
        }
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def _write(self, name: str, text: str | bytes) -> None:
        path = os.path.join(self.folder, name)
        with open(path, "wb", opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
            file.write(text.encode() if isinstance(text, str) else text)

    def __enter__(self) -> Cluster:
        try:
            munge = os.path.join(self.folder, "munge")
            names = {"key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
            words = [f"--{option}={munge}/{name}" for option, name in names.items()]
            words += [f"--socket={munge}/socket", "--num-threads=2", "--foreground"]
            self._start("munged", "munged", *words)
            self.wait(lambda: os.path.exists(f"{munge}/socket"), "munged does not listen")
            self._start("slurmctld", "slurmctld", "-D", "-c")
            for node in NODES:
                self.start_node(node)
            self.wait(lambda: self.states() == dict.fromkeys(NODES, "idle"), "no idle nodes")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for name in reversed(list(self.daemons)):
            self.end(name, signal.SIGTERM)

    def _start(self, name: str, program: str, *words: str) -> None:
        with open(os.path.join(self.folder, f"{name}.log"), "ab") as log:
            self.daemons[name] = subprocess.Popen(
                [os.path.join(self.programs, program), *words],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def start_node(self, node: str) -> None:
        helper = os.path.join(self.programs, "slurmstepd")
        self._start(node, "slurmd", "-D", "-N", node, "-d", helper)

    def end(self, name: str, number: int = signal.SIGKILL) -> None:
        """End one daemon: `slurmctld`, `munged` or a node."""
        daemon = self.daemons.pop(name)
        daemon.send_signal(number)
        try:
            daemon.wait(SECONDS / 4)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait(SECONDS)

    def wait(self, test: object, otherwise: str, seconds: float = SECONDS) -> None:
        end = time.monotonic() + seconds
        while not test():
            dead = [name for name, one in self.daemons.items() if one.poll() is not None]
            if dead or time.monotonic() > end:
                raise AssertionError(f"{otherwise} (ended: {dead}): {self.logs()}")
            select.select([], [], [], 0.05)

    def logs(self) -> str:
        found = []
        for name in sorted(os.listdir(self.folder)):
            if name.endswith(".log"):
                with open(os.path.join(self.folder, name), errors="replace") as file:
                    found.append(f"--- {name}\n{file.read()[-2000:]}")
        return "\n".join(found)

    def fail_node(self, node: str) -> None:
        """What the controller does by itself once a node was silent for SlurmdTimeout."""
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=killed")

    def bring_back(self, node: str) -> None:
        """Start a node's daemon again, and wait until it takes jobs."""
        self.start_node(node)
        # Refused where it has come back by itself.
        self.run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)
        self.wait(lambda: self.states().get(node) == "idle", f"{node} does not come back")

    # -- what a user does ---------------------------------------------------------------------

    def run(
        self, program: str, *words: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """One command of Slurm's to its end."""
        return subprocess.run(
            [os.path.join(self.programs, program), *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=check,
            cwd=self.folder,
        )

    def submit(self, *words: str) -> str:
        """`sbatch`; the job's number."""
        return self.run("sbatch", "--parsable", *words).stdout.strip()

    def states(self) -> dict[str, str]:
        """The nodes' states by name."""
        done = self.run("sinfo", "-h", "-N", "-o", "%N %T", check=False)
        return dict(line.split() for line in done.stdout.splitlines())

    def job(self, number: str) -> dict[str, str]:
        """What `scontrol show job` says of one job, or one of an array."""
        text = self.run("scontrol", "show", "job", number).stdout
        return dict(re.findall(r"(\w+)=(\S*)", text))

    def wait_job(self, number: str, *states: str, seconds: float = SECONDS) -> dict[str, str]:
        """What is said of a job once it is in one of these states."""
        found: dict[str, str] = {}

        def there() -> bool:
            nonlocal found
            found = self.job(number)
            return found["JobState"] in states

        self.wait(there, f"job {number} is {found} and not {states}", seconds)
        return found

    def output(self, name: str) -> str:
        """What a job wrote; a job that begins has no file yet."""
        try:
            with open(os.path.join(self.folder, name)) as file:
                return file.read()
        except FileNotFoundError:
            return ""
