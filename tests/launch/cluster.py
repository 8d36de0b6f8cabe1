"""A real SLURM on this machine, for as long as tests need it: one slurmctld, and a slurmd for each of several nodes.

From Debian's packages, which allow several slurmd on a machine. Everything lies under one folder; the nodes are
addresses of the loopback interface. Root on Debian only.

    python tests/launch/cluster.py install     the packages, where they are missing
"""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
HOSTS = Path("/etc/hosts")
LOCK = Path("/run/lock/slurm-for-tests")
NETWORK = "127.0.99"
NUM_CPUS = min(2, os.cpu_count() or 1)

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job may start again once its old credential has expired: after 120 s by default.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
StateSaveLocation={folder}/state
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdSpoolDir={folder}/spool-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
GresTypes=gpu
MpiDefault=none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# submitit's files are named after the job's number, which must not come again from one cluster to the next.
FirstJobId={first_job}
MinJobAge=86400
ReturnToService=2
JobRequeue=1
SlurmdTimeout=30
MessageTimeout=30
KillWait=5
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1
{nodes}
# A job in `urgent` preempts jobs in `main`, which then have 30 s to save.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=node[1-{num_nodes}] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes=node[1-{num_nodes}] MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
# A node that binds each task to its cores, as most clusters do.
PartitionName=bound Nodes={bound} MaxTime=INFINITE State=UP PreemptMode=OFF
"""


class Cluster:
    """`num_nodes` nodes of four CPUs and four GPUs (as far as SLURM knows), each at work once `start` returns.

    One more, `bound`, has the machine's CPUs, up to two, and binds tasks to them.
    """

    bound = "bound1"

    def __init__(self, folder: Path, num_nodes: int) -> None:
        self.folder, self.num_nodes = folder, num_nodes
        self.first_port = free_ports(num_nodes + 2)
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}

    @property
    def nodes(self) -> list[str]:
        return [f"node{number}" for number in range(1, self.num_nodes + 1)]

    def start(self) -> None:
        self.configure()
        add_hosts({f"{NETWORK}.{number}": node for number, node in enumerate([*self.nodes, self.bound], start=1)})
        key, socket_path = self.folder / "munge.key", self.folder / "munge.socket"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        self.daemon(
            "munged", "--force", f"--key-file={key}", f"--socket={socket_path}", f"--pid-file={self.folder}/munged.pid",
            f"--log-file={self.folder}/munged.log", f"--seed-file={self.folder}/munged.seed",
        )  # fmt: skip
        self.daemon("slurmctld", "-i")
        for node in [*self.nodes, self.bound]:
            self.start_node(node)

    def configure(self) -> None:
        (self.folder / "state").mkdir(parents=True)
        for number in range(4):
            (self.folder / f"gpu{number}").symlink_to("/dev/null")
        gpus = f"AutoDetect=off\nNodeName=node[1-{self.num_nodes}] Name=gpu Type=a100 File={self.folder}/gpu[0-3]\n"
        (self.folder / "gres.conf").write_text(gpus)
        (self.folder / "cgroup.conf").write_text("# slurmd asks for this file; nothing here is bound by it\n")
        lines = [
            f"NodeName={node} NodeAddr={NETWORK}.{number} Port={self.first_port + number} CPUs=4 RealMemory=100000 "
            "Feature=volta32gb Gres=gpu:a100:4"
            for number, node in enumerate(self.nodes, start=1)
        ]
        number = self.num_nodes + 1
        lines.append(
            f"NodeName={self.bound} NodeAddr={NETWORK}.{number} Port={self.first_port + number} CPUs={NUM_CPUS}"
        )
        text = CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0],
            port=self.first_port,
            folder=self.folder,
            first_job=int(time.time()) % 10**6 * 60 + 1000,
            nodes="\n".join(lines),
            num_nodes=self.num_nodes,
            bound=self.bound,
        )
        (self.folder / "slurm.conf").write_text(text)
        binding = "TaskPlugin=task/affinity\nTaskPluginParam=autobind=cores"
        (self.folder / "bound.conf").write_text(text.replace("TaskPlugin=task/none", binding))

    def daemon(self, *words: str) -> None:
        subprocess.run(words, env=self.all_environment(), check=True, stdin=subprocess.DEVNULL, timeout=60)

    def all_environment(self) -> dict[str, str]:
        return os.environ | {"PATH": f"/usr/sbin:/sbin:{os.environ['PATH']}"} | self.environment

    def start_node(self, node: str) -> None:
        """Under a host name of its own, where the kernel allows that."""
        own_name = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', node]
        allowed = subprocess.run(["unshare", "--uts", "true"], capture_output=True, check=False).returncode == 0
        configuration = self.folder / ("bound.conf" if node == self.bound else "slurm.conf")
        self.daemon(*(own_name if allowed else []), "slurmd", "-N", node, "-f", str(configuration))
        wait_until(lambda: self.node_state(node) in ("idle", "mixed", "allocated"), f"{node} to come up")

    def kill_node(self, node: str) -> None:
        """Simulate a power failure: kill slurmd, its steps and their tasks at the same time, and notify SLURM."""
        daemon = int((self.folder / f"slurmd-{node}.pid").read_text())
        for pid in [daemon, *self.step_processes(node)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.command("scontrol", "update", f"nodename={node}", "state=down", "reason=test")

    def step_processes(self, node: str) -> list[int]:
        """The slurmstepd of a node, which have its log open, and all below them."""
        children: dict[int, list[int]] = {}
        steps = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(process.name))
                if (process / "exe").readlink().name.startswith("slurmstepd") and any(
                    str(file.readlink()) == f"{self.folder}/slurmd-{node}.log" for file in (process / "fd").iterdir()
                ):
                    steps.append(int(process.name))
        found = []
        while steps:
            found.append(steps.pop())
            steps += children.get(found[-1], [])
        return found

    def node_state(self, node: str) -> str:
        return self.command("sinfo", "--noheader", "--nodes", node, "--format", "%T").strip().rstrip("*")

    def command(self, *words: str) -> str:
        done = subprocess.run(
            words, env=self.all_environment(), text=True, capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout

    def job_state(self, job_id: str) -> str:
        return self.command("squeue", "--noheader", "--states=all", "--jobs", job_id, "--format", "%T").strip()

    def stop(self) -> None:
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            self.command("scancel", "--user=root")
            time.sleep(1)
        for node in [*self.nodes, self.bound]:
            for pid in self.step_processes(node):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for file in self.folder.glob("*.pid"):
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.kill(int(file.read_text()), signal.SIGKILL)
        add_hosts({})


def add_hosts(names: dict[str, str]) -> None:
    """The only lines of /etc/hosts in NETWORK; written in place, since a container's may be a mount."""
    others = [line for line in HOSTS.read_text().splitlines() if not line.startswith(f"{NETWORK}.")]
    HOSTS.write_text("\n".join([*others, *(f"{address} {name}" for address, name in names.items())]) + "\n")


def free_ports(count: int) -> int:
    """The first of `count` ports that nobody listens on."""
    for first in range(16000, 32000, count):
        if all(is_free(first + i) for i in range(count)):
            return first
    raise RuntimeError(f"no {count} free ports")


def is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("", port))
        except OSError:
            return False
    return True


def wait_until(holds: Callable[[], object], what: str, *, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.2)


def why_not() -> str | None:
    """What keeps this machine from running a cluster."""
    if os.geteuid() != 0:
        return "a cluster on this machine wants root"
    if not Path("/etc/debian_version").exists():
        return "a cluster on this machine wants Debian's packages"
    return None


def install() -> None:
    """The packages that are missing; their own services are kept from starting."""
    if all(
        shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") for name in ("slurmctld", "slurmd", "srun", "munged")
    ):
        return
    policy = Path("/usr/sbin/policy-rc.d")
    kept = policy.exists()
    if not kept:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for words in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES]):
            subprocess.run(["apt-get", "-qq", *words], env=environment, check=True, stdout=subprocess.DEVNULL)
    finally:
        if not kept:
            policy.unlink()


@contextlib.contextmanager
def running(folder: Path, num_nodes: int) -> Iterator[Cluster]:
    """A cluster within, found by SLURM's commands; the only one on this machine, whose node names it takes."""
    install()
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield from started(Cluster(folder, num_nodes))


def started(cluster: Cluster) -> Iterator[Cluster]:
    before = dict(os.environ)
    os.environ.update(cluster.environment)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        os.environ.clear()
        os.environ.update(before)


if __name__ == "__main__":
    if sys.argv[1:] != ["install"]:
        sys.exit(__doc__)
    if reason := why_not():
        sys.exit(json.dumps({"installed": False, "reason": reason}))
    install()
