# SPDX-License-Identifier: MIT
"""Three users: nicd under one uid, its nicd-soft under another, clients under more. Needs root to begin with, to become them."""
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest

from nicdtest import paths
from nicdtest.daemon import SANITIZER_WORDS, sanitizer_environment, wait_until

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root to become three users")

NICD, SOFT, ALICE, BOB = 60101, 60102, 60103, 60104


def as_user(uid, argv, **kw):
    return subprocess.Popen(["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", "--no-new-privs", *argv], **kw)


class House:
    """nicd and nicd-soft as systemd would start them: each under its own user, with its own directory."""

    def __init__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="nicd-root-"))
        self.directory.chmod(0o755)
        self.bin = self.directory / "bin"
        shutil.copytree(paths.SOURCE / "tests" / "py", self.directory / "py", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(paths.SOURCE / "proto", self.directory / "proto")
        self.bin.mkdir()
        for program in (paths.nicd_binary(), paths.soft_binary()):
            shutil.copy(program, self.bin)
        for path in self.directory.rglob("*"):
            path.chmod(0o755)
        self.soft_dir, self.nicd_dir = self.directory / "soft", self.directory / "nicd"
        for path, uid in ((self.soft_dir, SOFT), (self.nicd_dir, NICD)):
            path.mkdir()
            os.chown(path, uid, uid)
            path.chmod(0o711)
        self.socket, self.admin_socket = self.nicd_dir / "s", self.nicd_dir / "a"
        self.soft_socket = self.soft_dir / "c"
        self.processes = []

    def spawn(self, uid, argv, directory):
        log = open(directory / "log", "ab")
        env = sanitizer_environment(directory)
        process = as_user(uid, argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, cwd=directory)
        log.close()
        self.processes.append(process)
        return process

    def start_soft(self, controller=NICD):
        self.soft = self.spawn(SOFT, [str(self.bin / "nicd-soft"), "--socket", str(self.soft_socket), "--controller-uid",
                                      str(controller), "--data-listen", "127.0.0.1:0"], self.soft_dir)
        assert wait_until(self.soft_socket.exists, 10), self.log(self.soft_dir)

    def start_nicd(self, soft_uid=SOFT):
        self.nicd = self.spawn(NICD, [str(self.bin / "nicd"), "--provider", "soft", "--socket", str(self.socket), "--admin-socket",
                                      str(self.admin_socket), "--soft-socket", str(self.soft_socket), "--soft-uid", str(soft_uid),
                                      "--allow-connect", "127.0.0.0/8"], self.nicd_dir)

    def ready(self):
        def answers():
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
                return s.connect_ex(str(self.socket)) == 0
        return wait_until(lambda: self.nicd.poll() is not None or answers(), 10) and self.nicd.poll() is None

    @staticmethod
    def log(directory):
        path = directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def client(self, uid, code):
        """Runs Python as this user; what it prints."""
        prelude = (f"import sys; sys.dont_write_bytecode = True; sys.path.insert(0, {str(self.directory / 'py')!r})\n"
                   f"SOCKET, ADMIN, SOFT = {str(self.socket)!r}, {str(self.admin_socket)!r}, {str(self.soft_socket)!r}\n"
                   "from nicdtest.wire import *\nfrom nicdtest.memory import Buffer\nfrom nicdtest.pb import *\n")
        env = {**os.environ, "NICD_SOURCE": str(self.directory), "TMPDIR": "/tmp", "HOME": "/"}
        process = as_user(uid, [sys.executable, "-c", prelude + code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        out, err = process.communicate(timeout=40)
        assert process.returncode == 0, err
        return out.split()

    def stop(self):
        codes = []
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                codes.append(process.wait(10))
            except subprocess.TimeoutExpired:
                process.kill()
                codes.append("hung")
        text = self.log(self.soft_dir) + self.log(self.nicd_dir)
        shutil.rmtree(self.directory, ignore_errors=True)
        for word in SANITIZER_WORDS:
            assert word not in text, text[-6000:]
        return codes, text


@pytest.fixture
def house():
    house = House()
    yield house
    codes, text = house.stop()
    assert set(codes) <= {0}, f"{codes}\n{text[-4000:]}"


@pytest.fixture
def running(house):
    house.start_soft()
    house.start_nicd()
    assert house.ready(), house.log(house.nicd_dir)
    return house


REGISTER = """
s = Session(SOCKET)
with Buffer(8192, 1) as b:
    mr = s.region(s.create_pd(), b.fd, 8192, 7)
    door = s.export(mr, "mine", 2)
    print(s.hello.account, pb.Role.Name(s.hello.role), mr.serial, door.serial, s.hello.session, flush=True)
"""


def test_each_client_is_its_own_account(running):
    # mutation: take the daemon's own uid, or a field of the protocol, for the client's
    assert running.client(ALICE, REGISTER)[:2] == [f"uid:{ALICE}", "CLIENT"]
    assert running.client(BOB, REGISTER)[:2] == [f"uid:{BOB}", "CLIENT"]
    assert running.client(0, REGISTER)[:2] == ["uid:0", "CLIENT"]


HOLD = REGISTER.replace("flush=True)", "flush=True)\n    sys.stdin.read()\n    assert s.remote_token(mr) == mr.remote_token")


def test_another_users_objects(running):
    # mutation: leave the account out of a look-up by serial
    held = as_user(ALICE, [sys.executable, "-c", f"""
import sys; sys.dont_write_bytecode = True; sys.path.insert(0, {str(running.directory / 'py')!r})
SOCKET = {str(running.socket)!r}
from nicdtest.wire import *
from nicdtest.memory import Buffer
from nicdtest.pb import *
{HOLD}"""], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "NICD_SOURCE": str(running.directory)})
    try:
        _, _, mr, door, session = held.stdout.readline().split()
        code = f"""
s = Session(SOCKET)
for type_ in (pb.MR, pb.EXPORT, pb.PD, pb.MEMORY):
    assert s.list(type_) == []
assert [i.serial for i in s.list(pb.SESSION)] == [s.hello.session]
errors = set()
for serial in ({mr}, {door}, {session}, 10 ** 15):
    for call in (pb.Revoke(serial=serial), pb.Who(serial=serial)):
        reply, = s.wait([s.start(call)])
        error = check_refused(reply, "SERIAL")
        error.observed = 0   # what was asked for
        errors.add(error.SerializeToString())
assert len(errors) == 1
try:
    accounts = {{a.account for a in s.ledger().accounts}}
    assert accounts <= {{s.hello.account}}, accounts
except Refused as r:
    check_error(r.error, "NOT_PERMITTED")
print("ok")
"""
        assert running.client(BOB, code) == ["ok"]
        admin = f"""
s = Session(ADMIN)
print(pb.Role.Name(s.hello.role), len(s.list(pb.MR)), s.call(pb.Who(serial={door})).list.cursor)
"""
        assert running.client(0, admin) == ["ADMIN", "1", "0"]
    finally:
        held.stdin.close()
        assert held.wait(20) == 0
        held.stdout.close()


@pytest.mark.parametrize("uid", [ALICE, SOFT])
def test_admin_socket_is_for_admins(running, uid):
    # mutation: decide the role by the socket alone, or leave its mode to the umask
    code = """
try:
    s = Session(ADMIN)
except (PermissionError, ConnectionError, Ended, Refused):
    print("refused")
else:
    print(pb.Role.Name(s.hello.role))
"""
    assert running.client(uid, code) == ["refused"]
    assert running.client(0, code) == ["ADMIN"]


def test_client_socket_is_for_everybody(running):
    # mutation: leave the mode of the client socket to the umask
    assert running.socket.stat().st_mode & 0o666 == 0o666


@pytest.mark.parametrize("uid", [ALICE, 0])
def test_soft_has_one_controller(running, uid):
    # mutation: let nicd-soft take any peer, or root
    code = """
import socket
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
    s.settimeout(5)
    try:
        s.connect(SOFT)
        s.send(bytes.fromhex("0a060801520208 01".replace(" ", "")))
        print("closed" if not s.recv(65536) else "served")
    except OSError:
        print("closed")
"""
    assert running.client(uid, code) == ["closed"]
    assert running.client(ALICE, REGISTER)[1] == "CLIENT"


def test_nicd_trusts_only_its_soft(house):
    # mutation: do not look at who serves the device's socket
    house.start_soft(controller=NICD)
    house.start_nicd(soft_uid=ALICE)
    ready = house.ready()
    if ready:   # it may serve without a device, and must say so
        assert house.client(ALICE, "s = Session(SOCKET)\nprint(any(a.up for a in s.hello.adapters))") == ["False"]
    else:
        assert house.nicd.wait(10) != 0
        house.processes.remove(house.nicd)


def test_no_privileges_are_left(running):
    # mutation: keep a capability
    time.sleep(0.1)
    for process, uid in ((running.nicd, NICD), (running.soft, SOFT)):
        status = open(f"/proc/{process.pid}/status").read()
        assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}" in status
        assert "CapEff:\t0000000000000000" in status


def test_release_across_users(running):
    # mutation: charge the daemon's account
    running.client(ALICE, REGISTER)
    running.client(BOB, REGISTER)
    code = """
import time
s = Session(ADMIN)
for _ in range(200):
    ledger = s.ledger()
    used = [c.used for a in ledger.accounts for c in a.charges if c.used]
    if not used and not ledger.objects and not ledger.sessions and not ledger.provider_tags and not ledger.held_fds:
        print("clean")
        break
    time.sleep(0.02)
"""
    assert running.client(0, code) == ["clean"]
