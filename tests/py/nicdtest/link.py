# SPDX-License-Identifier: MIT
"""Two hosts in one guest: the guest itself with a kernel RDMA device, and a network namespace with a nicd, joined by a veth pair.
Only for the guests of tests/vm/, as root."""
import os
import pathlib
import signal
import socket
import subprocess
import time

from .daemon import Nicd, configuration, wait_until
from .paths import soft_binary

NETNS = "nicd"
HERE, THERE = "10.77.0.1", "10.77.0.2"   # the kernel's device; nicd
THERE_PREFIX = ("nsenter", f"--net=/run/netns/{NETNS}")
MTU = 1500
ETH0, ETH1 = "veth0", "veth1"


def sh(command):
    subprocess.run(command, shell=True, check=True)


def answers():
    """Whether the other end has told us its address: a TCP connection is refused."""
    try:
        socket.create_connection((THERE, 9), 1.0).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True


def join(device=None):
    """Makes the pair; `device`: the type of RDMA device on our end, which rdma(8) knows."""
    sh(f"ip netns add {NETNS} && ip link add {ETH0} type veth peer name {ETH1} netns {NETNS}")
    for prefix, dev, address in (("", ETH0, HERE), (f"ip netns exec {NETNS} ", ETH1, THERE)):
        sh(f"{prefix}ip addr add {address}/24 dev {dev} && {prefix}ip link set {dev} up && {prefix}ip link set lo up")
    assert wait_until(answers, 20.0), "the link does not carry"
    if device:
        sh(f"rdma link add {device}0 type {device} netdev {ETH0}")


def set_mtu(mtu):
    sh(f"ip link set {ETH0} mtu {mtu} && ip netns exec {NETNS} ip link set {ETH1} mtu {mtu}")


class LinkNicd(Nicd):
    """A nicd at the other end. `soft_options` are nicd-soft's own."""

    def __init__(self, soft_options="", **kw):
        self.soft_options = soft_options
        super().__init__(THERE, config=configuration(connect={"allow": f"{HERE}/32"}), **kw)

    def arguments(self):
        program = self.directory / "nicd-soft"
        program.write_text(f'#!/bin/sh\nexec {soft_binary()} {self.soft_options} "$@"\n')
        program.chmod(0o755)
        command = super().arguments()
        command[command.index("--soft-program") + 1] = str(program)
        return [*THERE_PREFIX, *command]


class Capture:
    """Every packet of the link, in a file of the folder that the host sees."""

    def __init__(self, name):
        self.path = pathlib.Path(os.environ["OUT"], name)
        self.process = subprocess.Popen(["tcpdump", "-i", ETH0, "-s", "0", "-B", "262144", "-w", "/run/" + name, "tcp"],
                                        stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if "listening on" in line:
                return
        raise AssertionError("tcpdump did not start")

    def stop(self):
        time.sleep(1.0)
        self.process.send_signal(signal.SIGINT)
        told = self.process.stderr.read()
        self.process.wait()
        sh(f"cp /run/{self.path.name} {self.path}")
        assert "\n0 packets dropped by kernel" in told, told


def kernel_log():
    return subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout
