# SPDX-License-Identifier: MIT
"""nicd under a service manager: sockets that are handed in, what the manager is told, and a nicd-soft that comes and goes."""
import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import pathlib
import time

import pytest

from nicdtest.daemon import SANITIZER_WORDS, sanitizer_environment, wait_until
from nicdtest.paths import nicd_binary, soft_binary
from nicdtest.pb import pb
from nicdtest.wire import Session


class Manager:
    """Plays systemd: makes sockets, hands them over, hears what it is told, starts nicd-soft apart."""

    def __init__(self, directory):
        self.directory = directory
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(directory / "notify"))
        self.notify.setblocking(False)
        self.told = []
        self.processes = []
        self.log = directory / "log"

    def listener(self, name, kind=socket.SOCK_SEQPACKET):
        s = socket.socket(socket.AF_UNIX, kind)
        s.bind(str(self.directory / name))
        if kind != socket.SOCK_DGRAM:
            s.listen(16)
        return s

    def run(self, argv, passed=()):
        """`passed`: pairs of a socket and its name, from descriptor 3 on."""
        env = sanitizer_environment(self.directory)
        env["NOTIFY_SOCKET"] = str(self.directory / "notify")
        script = 'exec "$@"'
        fds = []
        if passed:
            env["LISTEN_FDS"] = str(len(passed))
            env["LISTEN_FDNAMES"] = ":".join(name for _, name in passed)
            # In front of what Python may have there.
            fds = [os.dup(s.fileno()) for s, _ in passed]
            moves = " ".join(f"{60 + i}<&{fd}" for i, fd in enumerate(fds)) + " " + \
                " ".join(f"{3 + i}<&{60 + i}" for i in range(len(fds)))
            closes = " ".join(f"{60 + i}<&-" for i in range(len(fds)))
            script = f'exec {moves}; exec {closes}; LISTEN_PID=$$ exec "$@"'
        with open(self.log, "ab") as log:
            process = subprocess.Popen(["bash", "-c", script, "bash", *map(str, argv)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       pass_fds=fds, env=env, cwd=self.directory)
        for fd in fds:
            os.close(fd)
        self.processes.append(process)
        return process

    def nicd(self, *options, passed=()):
        return self.run([nicd_binary(), "--socket", self.directory / "s", "--admin-socket", self.directory / "a", "--soft-socket",
                         self.directory / "soft", "--soft-uid", os.getuid(), *options], passed)

    def soft(self, *options, passed=()):
        return self.run([soft_binary(), "--data-listen", "127.0.0.1:0", *options], passed)

    def hear(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                self.told += self.notify.recv(4096).decode().splitlines()
        return self.told

    def hears(self, line, timeout=10):
        return wait_until(lambda: line in self.hear(), timeout)

    def text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def stop(self):
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        codes = []
        for process in self.processes:
            try:
                codes.append(process.wait(15))
            except subprocess.TimeoutExpired:
                process.kill()
                codes.append("hung")
        self.notify.close()
        for word in SANITIZER_WORDS:
            assert word not in self.text(), self.text()[-6000:]
        return codes


@pytest.fixture
def manager():
    with tempfile.TemporaryDirectory(prefix="nicd-") as directory:
        manager = Manager(pathlib.Path(directory))
        yield manager
        assert "hung" not in manager.stop(), manager.text()


def rootless(manager, *options, passed=()):
    return manager.nicd("--rootless", "--soft-program", soft_binary(), "--data-listen", "127.0.0.1:0", *options, passed=passed)


def test_told_when_ready_and_when_stopping(manager):
    # mutation: say READY before the device is there, or not at all
    process = rootless(manager)
    assert manager.hears("READY=1"), manager.text()
    assert any(line.startswith("STATUS=socket ") and "soft0 data 127.0.0.1:" in line for line in manager.told)
    assert "STOPPING=1" not in manager.told
    with Session(manager.directory / "s") as s:
        assert s.hello.adapters[0].up
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0
    # mutation: leave out notify_stopping
    assert "STOPPING=1" in manager.hear()
    # mutation: pass NOTIFY_SOCKET on to nicd-soft (it would say READY too)
    assert manager.told.count("READY=1") == 1


@pytest.mark.parametrize("names", [("nicd", "admin"), ("nicd.socket", "nicd-admin.socket"), ("admin", "nicd")])
def test_sockets_handed_in(manager, names):
    # mutation: go by the order of the descriptors
    listeners = {name: manager.listener(name) for name in names}
    rootless(manager, passed=[(listeners[name], name) for name in names])
    assert manager.hears("READY=1"), manager.text()
    for name in names:
        with Session(manager.directory / name) as s:
            assert s.hello.role == (pb.ADMIN if "admin" in name else pb.CLIENT)
    # mutation: bind the default paths besides
    assert not (manager.directory / "s").exists() and not (manager.directory / "a").exists()
    manager.processes[0].send_signal(signal.SIGTERM)
    assert manager.processes[0].wait(15) == 0
    # The manager's sockets stay where they are, for the next start. mutation: unlink them
    for name in names:
        assert (manager.directory / name).is_socket()
    for listener in listeners.values():
        listener.close()


def test_one_socket_handed_in(manager):
    # mutation: take all or nothing
    listener = manager.listener("mine")
    rootless(manager, passed=[(listener, "nicd")])
    assert manager.hears("READY=1"), manager.text()
    with Session(manager.directory / "mine") as s, Session(manager.directory / "a") as a:
        assert (s.hello.role, a.hello.role) == (pb.CLIENT, pb.ADMIN)
    listener.close()


@pytest.mark.parametrize("name,kind", [("unknown", socket.SOCK_SEQPACKET), ("nicd", socket.SOCK_STREAM), ("nicd", socket.SOCK_DGRAM)])
def test_wrong_sockets_handed_in(manager, name, kind):
    # mutation: listen on whatever comes
    listener = manager.listener("mine", kind)
    process = rootless(manager, passed=[(listener, name)])
    assert process.wait(15) == 1
    assert "cannot start" in manager.text()
    assert "READY=1" not in manager.hear()
    listener.close()


def test_soft_activated_by_its_socket(manager):
    # mutation: ask nicd-soft for its socket's path although it was handed in
    listener = manager.listener("soft")
    manager.soft(passed=[(listener, "control")])
    manager.nicd()
    assert wait_until(lambda: manager.hear().count("READY=1") == 2), manager.text()
    with Session(manager.directory / "s") as s:
        assert s.hello.adapters[0].up
    listener.close()


def test_waits_for_soft(manager):
    """nicd first, nicd-soft later: clients are let in and told that there is no device; READY comes with it."""
    manager.nicd()
    assert wait_until(lambda: (manager.directory / "s").exists()), manager.text()
    with Session(manager.directory / "s") as s:
        assert not s.hello.adapters
    # mutation: READY without a device
    assert "READY=1" not in manager.hear()
    # mutation: try once and give up
    manager.soft("--socket", manager.directory / "soft")
    assert wait_until(lambda: manager.hear().count("READY=1") == 2), manager.text()
    with Session(manager.directory / "s") as s:
        assert s.hello.adapters[0].up
    # The reason was told once. mutation: a line for each attempt
    assert manager.text().count("does not answer") == 1


def test_soft_comes_back(manager):
    soft = manager.soft("--socket", manager.directory / "soft")
    assert manager.hears("READY=1")
    manager.nicd()
    assert wait_until(lambda: manager.hear().count("READY=1") == 2), manager.text()
    for _ in range(3):
        with Session(manager.directory / "s") as s:
            before = s.hello.adapters[0]
            pd = s.create_pd()
            assert before.up and pd
            soft.send_signal(signal.SIGKILL)
            soft.wait()
            assert s.wait_event(pb.Event.DEVICE_STATE).serial == before.serial
            (manager.directory / "soft").unlink()
            soft = manager.soft("--socket", manager.directory / "soft")

            def again():
                with Session(manager.directory / "s") as other:
                    return other.hello.adapters[0] if other.hello.adapters[0].up else None
            after = wait_until(again)
            # mutation: reconnect into the old adapter
            assert after and after.serial != before.serial and after.incarnation != before.incarnation, manager.text()
            with Session(manager.directory / "s") as other:
                # The new one comes first, so that who names none gets it. mutation: the oldest first
                other.create_pd()
                # mutation: keep every adapter there ever was
                assert len(other.hello.adapters) <= 2


def test_soft_of_a_stranger(manager):
    """Somebody else's process at nicd-soft's address is told nothing."""
    if os.getuid() != 0:
        pytest.skip("needs root to be somebody else")
    listener = manager.listener("soft")
    os.chmod(manager.directory, 0o755)
    os.chmod(manager.directory / "soft", 0o666)
    # SO_PEERCRED of a connection is who called listen().
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.setuid(60103)
            listener.listen(16)
            conn, _ = listener.accept()
            os._exit(1 if conn.recv(65536) else 0)
        os._exit(2)
    time.sleep(0.2)
    process = manager.nicd()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    # mutation: say Hello to whoever listens
    assert wait_until(lambda: "is uid 60103, not 0" in manager.text()), manager.text()
    assert process.poll() is None
    listener.close()


def test_busy_manager(manager):
    """A manager that takes nothing any more does not hold up the clients."""
    process = rootless(manager)
    assert manager.hears("READY=1"), manager.text()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                s.sendto(b"STATUS=x", str(manager.directory / "notify"))
    with Session(manager.directory / "s") as s:
        s.create_pd()
        process.send_signal(signal.SIGTERM)
        # mutation: sd_notify for everything (it waits)
        assert process.wait(10) == 0
