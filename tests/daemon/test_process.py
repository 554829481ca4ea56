# SPDX-License-Identifier: MIT
"""nicd as a process: start, stop, sockets, what is left behind."""
import os
import signal
import socket
import stat
import subprocess
import time

import pytest

from nicdtest.daemon import Nicd, children, sanitizer_environment, wait_until
from nicdtest.memory import Buffer
from nicdtest.pair import ALL, Pair
from nicdtest.paths import nicd_binary, soft_binary
from nicdtest.pb import pb
from nicdtest.wire import Refused


def test_start_and_stop(own_nicd):
    # mutation: leave the socket or nicd-soft behind (the fixture looks)
    nicd = own_nicd()
    assert len(nicd.soft) == 1
    with nicd.session() as s:
        s.create_pd()


def test_stop_with_clients(own_nicd):
    # mutation: wait for the clients to go, or die over their objects
    nicd = own_nicd()
    with Pair(nicd, nicd) as p:
        p.by_export(uses=3)
        for _ in range(4):
            p.start(pb.Read, 0, 0, 65536)
        nicd.stop()
        p.user.session.wait_end()
        p.owner.session.wait_end()


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_signals(own_nicd, sig):
    # mutation: leave a signal at its default
    nicd = own_nicd()
    nicd.process.send_signal(sig)
    assert nicd.process.wait(10) == 0


def test_soft_dies_with_nicd(own_nicd):
    # mutation: start nicd-soft so that it lives on
    nicd = own_nicd()
    pid = nicd.soft_pid
    nicd.process.kill()
    nicd.process.wait()
    assert wait_until(lambda: not os.path.exists(f"/proc/{pid}") or open(f"/proc/{pid}/stat").read().split()[2] == "Z", 5)
    nicd.kill()
    nicd.stop = lambda: None


def test_device_gone(own_nicd):
    # mutation: go on as if the device were there
    nicd = own_nicd()
    with nicd.session() as s, Buffer(4096) as buffer:
        mr = s.region(s.create_pd(), buffer.fd, 4096, ALL)
        door = s.export(mr, "lost", ALL)
        os.kill(nicd.soft_pid, signal.SIGKILL)
        event = s.wait_event(pb.Event.DEVICE_STATE)
        assert event.object == s.hello.adapters[0].id
        assert nicd.alive()
        adapter = s.call(pb.QueryAdapter(adapter=pb.Ref(id=s.hello.adapters[0].id))).adapter
        # mutation: tell the owner of an export that it was revoked
        assert s.wait_event(pb.Event.REVOKED, door.serial).error.name == "DEVICE_LOST"
        assert not adapter.up or adapter.incarnation != s.hello.adapters[0].incarnation
        assert mr
    nicd.soft = children(nicd.pid)


def test_socket_modes(nicd):
    # mutation: take the umask's mode for the admin socket
    for path in (nicd.socket, nicd.admin_socket):
        mode = path.stat().st_mode
        assert stat.S_ISSOCK(mode)
    assert nicd.admin_socket.stat().st_mode & 0o007 == 0


def test_a_live_socket_is_not_stolen(own_nicd):
    # mutation: unlink whatever is in the way
    nicd = own_nicd()
    thief = subprocess.run(nicd.arguments(), env=sanitizer_environment(nicd.directory), stdin=subprocess.DEVNULL, capture_output=True,
                           timeout=20)
    assert thief.returncode != 0
    with nicd.session() as s:
        s.create_pd()


def test_a_dead_socket_is_taken_over(own_nicd):
    # mutation: stop when the path exists
    nicd = own_nicd(start=False)
    for path in (nicd.socket, nicd.admin_socket):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
            dead.bind(str(path))
    nicd.start()
    with nicd.session() as s:
        s.create_pd()


@pytest.mark.parametrize("arguments", [["--no-such-option"], ["--provider", "none-such"], ["--data-listen", "nonsense"],
                                       ["--config", "/nonexistent"], ["surplus"], ["--allow-connect", "300.0.0.0/8"]])
def test_bad_command_lines(tmp_path, arguments):
    # mutation: ignore what is not understood
    run = subprocess.run([str(nicd_binary()), "--rootless", "--socket", str(tmp_path / "s"), "--admin-socket", str(tmp_path / "a"),
                          "--soft-program", str(soft_binary()), "--data-listen", "127.0.0.1:0", *arguments],
                         env=sanitizer_environment(tmp_path), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
    assert run.returncode not in (0, 86, 87) and run.returncode > 0, run
    assert run.stderr.strip() and "Sanitizer" not in run.stderr
    assert not list(tmp_path.glob("[sa]"))


@pytest.mark.parametrize("text", ["[limits]\npds = many\n", "[limits]\nno-such = 1\n", "[nonsense]\nx = 1\n", "[connect]\nallow = x\n",
                                  "[limits]\npds = -1\n", "[limits]\npds = 99999999999999999999999\n", "nonsense\n"])
def test_bad_configuration(own_nicd, text):
    # mutation: take the default for a value that is none
    with pytest.raises(AssertionError, match="did not become ready"):
        Nicd(config=text)


def rootless(directory, listen, *arguments):
    return [str(nicd_binary()), "--rootless", "--socket", str(directory / "s"), "--admin-socket", str(directory / "a"),
            "--soft-program", str(soft_binary()), "--data-listen", listen, *arguments]


def test_port_in_use(tmp_path):
    # mutation: say that nicd-soft did not say Hello
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        run = subprocess.run(rootless(tmp_path, f"127.0.0.1:{taken.getsockname()[1]}"), env=sanitizer_environment(tmp_path),
                             stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
    assert run.returncode == 1
    assert "Address already in use" in run.stderr and "nicd-soft could not start" in run.stderr
    assert "--data-listen ADDR:PORT" in run.stderr and "Hello" not in run.stderr


@pytest.mark.parametrize("allow, warned", [(None, True), ("[connect]\nallow = 127.0.0.0/8\n", False)])
def test_locators_that_policy_forbids(own_nicd, allow, warned):
    # mutation: be silent about them, or warn of what is allowed
    nicd = own_nicd(config=allow or "")
    host, port = nicd.data_address()
    assert (f"--allow-connect {host}:{port}" in nicd.log_text()) == warned


def test_forbidden_connection_in_the_journal(own_nicd):
    # mutation: log what policy forbids like any other failure, or tell the client
    nicd = own_nicd(config="[connect]\nallow = 127.0.0.9\n")
    with pytest.raises(Refused, match="CONNECT"), Pair(nicd, nicd) as p:
        p.by_export()
    assert "ConnectQp: NETWORK: " in nicd.log_text() and "--allow-connect" in nicd.log_text()


def test_revocation_in_the_journal(own_nicd):
    # mutation: log a success like a refusal, with a limit
    nicd = own_nicd()
    with nicd.session() as s, Buffer(4096) as buffer:
        mr = s.region(s.create_pd(), buffer.fd, 4096, ALL)
        nicd.admin().call(pb.Revoke(serial=mr.serial))
        assert f"Revoke: accepted, serial {mr.serial}\n" in nicd.log_text()


def test_version_and_help():
    # mutation: print them to stderr, or end with a failure
    for argument, text in (("--version", "nicd 0."), ("--help", "--rootless")):
        run = subprocess.run([str(nicd_binary()), argument], capture_output=True, text=True, timeout=20)
        assert run.returncode == 0 and text in run.stdout


def test_terminal_log_has_no_tokens(own_nicd):
    # mutation: log a token, a ticket or a resume secret
    from nicdtest import locator
    nicd = own_nicd(options=["--log-level", "debug"])
    with Pair(nicd, nicd) as p:
        p.by_export()
        p.read(0, 0, 100)
        secrets = [p.owner.mr.remote_token, p.owner.mr.local_token, p.user.mr.local_token, p.grant.remote_token]
        ticket = locator.parse(p.door.locator).ticket
        hello = p.owner.session.hello
    nicd.assert_clean()
    text = nicd.log_text().lower()
    for token in secrets:
        for form in (f"{token:08x}", str(token)):
            assert form not in text
    assert ticket.hex() not in text and p.door.locator.lower() not in text
    assert hello.resume_secret.hex() not in text


def test_time_to_start_and_stop(own_nicd):
    # mutation: sleep instead of waiting for nicd-soft
    started = time.monotonic()
    nicd = own_nicd()
    assert time.monotonic() - started < 10
    started = time.monotonic()
    nicd.stop()
    assert time.monotonic() - started < 5
