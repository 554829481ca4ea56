# SPDX-License-Identifier: MIT
"""nicctl as people and scripts use it: the real program against the real daemons."""
import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess

import pytest

from nicdtest.daemon import children, sanitizer_environment, wait_until
from nicdtest.paths import BUILD
from nicdtest.pb import pb
from nicdtest.root import lacking

NICCTL = BUILD / "client" / "nicctl"
REFUSED, USAGE, NO_DAEMON = 1, 2, 3
FACTS = {"name", "status", "text", "limit", "observed", "cure"}


def command(nicd, *args):
    return [str(NICCTL), "--socket", str(nicd.socket), *map(str, args)]


def run(nicd, *args, code=0, stdin=b""):
    """Runs to the end; answers (stdout, stderr) as bytes."""
    result = subprocess.run(command(nicd, *args), input=stdin, capture_output=True, timeout=40,
                            env=sanitizer_environment(nicd.directory))
    assert result.returncode == code, (result.returncode, result.stdout[-2000:], result.stderr[-4000:])
    return result.stdout, result.stderr


def run_json(nicd, *args, **kw):
    return json.loads(run(nicd, "--json", *args, **kw)[0])


def documents(text):
    """The JSON documents of a stream."""
    text, decoder, found = text.decode().strip(), json.JSONDecoder(), []
    while text:
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:].lstrip()
    return found


def failure(nicd, *args, code=REFUSED, **kw):
    """The error that nicctl tells with --json: one document on stderr."""
    stdout, stderr = run(nicd, "--json", *args, code=code, **kw)
    assert stdout == b""
    error, = [d["error"] for d in documents(stderr) if "error" in d]
    assert FACTS <= set(error[0])
    return error[0]


@contextlib.contextmanager
def exporting(nicd, *args, end=signal.SIGTERM, code=0):
    """`nicctl export create` while the body runs: its JSON record. Afterwards it is ended by a signal, unless it ended itself."""
    process = subprocess.Popen(command(nicd, "--json", "export", "create", *args), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=sanitizer_environment(nicd.directory))
    try:
        text = b""
        while not text.endswith(b"\n}\n"):
            line = process.stdout.readline()
            assert line, process.communicate()[1].decode()
            text += line
        record = json.loads(text)["export"][0]
        record["process"] = process
        yield record
        if end:
            process.send_signal(end)
        record["stderr"] = process.communicate(timeout=20)[1]
        assert process.returncode == code, record["stderr"].decode()
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture
def source(tmp_path):
    """A file that is not a whole number of pages."""
    path = tmp_path / "source"
    path.write_bytes(os.urandom(3 * 1048576 + 777))
    return path


@pytest.fixture
def locator_file(tmp_path):
    def write(record):
        path = tmp_path / "locator"
        path.write_text(record["locator"] + "\n")
        return f"@{path}"
    return write


# ---- looking

def test_status(nicd):
    told = run_json(nicd, "status")
    assert told["status"][0]["role"] == "client"
    assert told["status"][0]["protocol"] == "1.0"
    assert told["devices"][0]["up"] is True
    assert told["devices"][0]["provider"] == "soft"
    stdout, _ = run(nicd, "status")
    for word in (b"DAEMON", b"ROLE", b"client", b"soft"):
        assert word in stdout


def test_options_stand_anywhere(nicd):
    assert json.loads(run(nicd, "device", "--json", "show")[0]) == json.loads(run(nicd, "device", "show", "--json")[0])


def test_device_show(nicd):
    device, = run_json(nicd, "device", "show")["devices"]
    info = nicd.admin().hello.adapters[0]
    assert device["name"] == info.name
    assert device["incarnation"] == hex(info.incarnation)
    assert device["max_registration_size"] == info.max_registration_size
    assert device["max_ranges"] == info.max_ranges
    assert b"MAX_RANGES" in run(nicd, "device", "show")[0]


LISTS = {"session": "sessions", "memory": "memories", "pd": "pds", "mr": "mrs", "qp": "qps", "ticket": "tickets", "export": "exports",
         "grant": "grants"}


@pytest.mark.parametrize("word,key", LISTS.items())
def test_empty_lists(nicd, word, key):
    rows = run_json(nicd, word, "list")[key]
    # nicctl itself is connected, and the test's observer.
    assert sorted(r.get("client") for r in rows) == (["nicctl", "test admin"] if word == "session" else [])
    # mutation: nicctl_print prints nothing of an empty table
    assert run(nicd, word, "list")[0].startswith(b"SERIAL")


def test_lists_of_an_export(nicd, source):
    with exporting(nicd, source, "--name", "listed", "--access", "rw", "--uses", 3) as record:
        export, = run_json(nicd, "export", "list")["exports"]
        assert export["serial"] == record["serial"]
        assert (export["name"], export["access"], export["uses_left"]) == ("listed", "rw", 3)
        assert export["size"] == source.stat().st_size
        mr, = run_json(nicd, "mr", "list")["mrs"]
        assert mr["serial"] == export["mr"]
        pd, = run_json(nicd, "pd", "list")["pds"]
        assert pd["serial"] == mr["pd"]
        memory, = run_json(nicd, "memory", "list")["memories"]
        assert memory["session"] == export["session"]
        sessions = run_json(nicd, "session", "list")["sessions"]
        assert {s["serial"]: s["pid"] for s in sessions}[export["session"]] == record["process"].pid
        assert b"listed" in run(nicd, "export", "list")[0]


def test_long_list(nicd, session):
    """More than one page."""
    pds = [session.call(pb.CreatePd()).object.serial for _ in range(40)]
    assert [p["serial"] for p in run_json(nicd, "pd", "list")["pds"]] == pds


def test_ledger(nicd):
    totals = run_json(nicd, "--socket", nicd.admin_socket, "ledger")["totals"][0]
    # nicctl's session and the test's own are admin sessions.
    assert totals["admin_sessions"] == 2
    for name in ("sessions", "objects", "held_fds", "provider_tags", "provider_memories", "provider_streams", "quarantined"):
        assert totals[name] == 0, totals
    with exporting(nicd, "--size", "1M", "--name", "ledger", "--access", "r"):
        told = run_json(nicd, "ledger")
        assert told["totals"][0]["objects"] == 4
        # mutation: show_admins_cell does not ask for the role
        for name in ("open_fds", "provider_tags", "provider_memories", "provider_streams", "provider_tickets", "quarantined", "turns",
                     "longest_turn_us", "provider_turns"):
            assert told["totals"][0][name] is None
        assert {c["slot"]: c["used"] for c in told["charges"] if c["used"]}
        lines = [line.split() for line in run(nicd, "ledger")[0].decode().splitlines()]
        assert ["OBJECTS", "4"] in lines and ["OPEN_FDS", "-"] in lines


def test_ledger_of_turns(nicd):
    """The loops' turns since the last look: nicd's and the device's."""
    admin = ("--socket", nicd.admin_socket, "ledger")
    run_json(nicd, *admin)
    # mutation: turns_end is not called in on_prepare, or not in nicd-soft's on_turn: 0 turns
    # mutation: ledger_device_turns is not called: 0 turns of the device
    totals = run_json(nicd, *admin)["totals"][0]
    assert totals["turns"] > 0 and totals["provider_turns"] > 0
    assert totals["turns"] >= totals["slow_turns"] and totals["provider_turns"] >= totals["provider_slow_turns"]
    assert 0 < totals["longest_turn_us"] and 0 < totals["provider_longest_turn_us"]
    # mutation: turns_take does not start the watch: no processor time, ever
    assert totals["longest_turn_cpu_us"] > 0 and totals["provider_longest_turn_cpu_us"] > 0


def test_ledger_of_caps(own_nicd):
    """What keeps peers out: under the names of nicd-soft's options, as nicd-soft counts."""
    nicd = own_nicd(options=["--soft-options", "--max-half-open 2 --max-streams-per-pd 7"])
    admin = ("--socket", nicd.admin_socket, "ledger")
    peers = [socket.create_connection(nicd.data_address()) for _ in range(3)]
    # mutation: count by the wrong cap; do not count who was pushed out; `now` of all for a cap by address or PD
    want = {
        "--max-half-open": (2, 2, 1), "--max-half-open-per-address": (128, None, 0), "--max-streams": (32768, 0, 0),
        "--max-streams-per-address": (16384, None, 0), "--max-streams-per-pd": (7, None, 0), "--reserved-descriptors": (64, None, 0),
    }
    shown = {}

    def told():
        shown["caps"] = run_json(nicd, *admin)["caps"]
        return {c["cap"]: (c["limit"], c["now"], c["refused"]) for c in shown["caps"]} == want

    assert wait_until(told), shown
    assert {c["adapter"] for c in shown["caps"]} == {"soft0"}
    lines = [line.split() for line in run(nicd, *admin)[0].decode().splitlines()]
    assert ["soft0", "--max-half-open", "2", "2", "1"] in lines and ["soft0", "--max-streams-per-pd", "7", "-", "0"] in lines
    # mutation: tell everybody what other accounts' peers do
    assert "caps" not in run_json(nicd, "ledger")
    for peer in peers:
        peer.close()


def test_admin(nicd):
    """The socket decides; --admin finds it beside the other."""
    beside = nicd.directory / "admin.sock"
    beside.symlink_to(nicd.admin_socket)
    try:
        assert run_json(nicd, "--admin", "status")["status"][0]["role"] == "admin"
    finally:
        beside.unlink()
    assert run_json(nicd, "--socket", nicd.admin_socket, "status")["status"][0]["role"] == "admin"


# ---- copying

def test_get(nicd, peer_nicd, source, locator_file, tmp_path):
    copy = tmp_path / "copy"
    with exporting(nicd, source, "--name", "get", "--access", "r", "--uses", 2) as record:
        told = run_json(peer_nicd, "get", locator_file(record), "-o", copy)["get"][0]
        # mutation: copy_start forgets the rest behind the last whole slot; copy_run ends before the last slot is written
        assert copy.read_bytes() == source.read_bytes()
        assert told["bytes"] == source.stat().st_size
        # From stdin to stdout.
        stdout, _ = run(peer_nicd, "get", "-", stdin=record["locator"].encode() + b"\n")
        assert stdout == source.read_bytes()
        qps = run_json(nicd, "qp", "list")["qps"]
        assert not [q for q in qps if q["state"] == "CONNECTED"]
    # mutation: export_tell_copied does not mind the access
    assert b"copied into" in record["stderr"] and b"peers write" not in record["stderr"]


def test_refused_get_keeps_the_file(nicd, peer_nicd, source, locator_file, tmp_path):
    directory = tmp_path / "copies"
    directory.mkdir()
    copy = directory / "copy"
    link = directory / "link"
    copy.write_bytes(b"precious")
    copy.chmod(0o640)
    link.symlink_to(copy)
    # mutation: nicctl_output_open opens the file itself with O_TRUNC
    failure(peer_nicd, "get", "-", "-o", copy, stdin=b"nonsense")
    with exporting(nicd, source, "--name", "kept", "--access", "w", "--uses", 2) as record:
        failure(peer_nicd, "get", locator_file(record), "-o", copy)
        # mutation: nicctl_output_close does not unlink
        assert sorted(directory.iterdir()) == [copy, link]
        assert copy.read_bytes() == b"precious"
    with exporting(nicd, source, "--name", "kept", "--access", "r") as record:
        run(peer_nicd, "get", locator_file(record), "-o", link)
    # mutation: nicctl_output_open without realpath (the link is replaced)
    assert link.is_symlink()
    assert copy.read_bytes() == source.read_bytes()
    # mutation: output_beside without fchmod
    assert copy.stat().st_mode & 0o777 == 0o640
    assert sorted(directory.iterdir()) == [copy, link]


@pytest.mark.parametrize("size", [1, 4096, 8 << 20, (8 << 20) + 1, (16 << 20) - 1, 40 << 20])
def test_get_sizes(nicd, peer_nicd, locator_file, tmp_path, size):
    """Around the borders of slots."""
    path, copy = tmp_path / "source", tmp_path / "copy"
    path.write_bytes(os.urandom(1 << 20).ljust(size, b"x")[:size])
    with exporting(nicd, path, "--name", "sizes", "--access", "r") as record:
        run(peer_nicd, "get", locator_file(record), "--output", copy)
        assert copy.read_bytes() == path.read_bytes()


def test_put_and_save(nicd, peer_nicd, source, locator_file, tmp_path):
    saved = tmp_path / "saved"
    saved.write_bytes(b"old" * 2000000)
    size = source.stat().st_size
    with exporting(nicd, "--size", size + 5000, "--name", "put", "--access", "rw", "--uses", 3, "--output", saved,
                   end=signal.SIGINT) as record:
        told = run_json(peer_nicd, "put", locator_file(record), source)["put"][0]
        assert told["bytes"] == size
        # The rest is zero, and stays it.
        assert run(peer_nicd, "get", locator_file(record))[0] == source.read_bytes() + bytes(5000)
        # A stream, whose length nobody knows before.
        run(peer_nicd, "put", locator_file(record), "-", stdin=b"stream")
    # mutation: export_save without ftruncate
    assert saved.read_bytes() == b"stream" + source.read_bytes()[6:] + bytes(5000)


def test_put_notify(nicd, peer_nicd, source, locator_file):
    # mutation: notify with each piece, or before the last
    with exporting(nicd, "--size", source.stat().st_size, "--name", "told", "--access", "w", "--uses", 3) as record:
        run(peer_nicd, "put", locator_file(record), source)
        for count in (1, 2):
            run(peer_nicd, "put", "--notify", locator_file(record), source)
            text = b""
            while not text.endswith(b"\n}\n"):
                line = record["process"].stdout.readline()
                assert line
                text += line
            told = json.loads(text)["notified"][0]
            assert told["count"] == count and told["qp"] > 0
    assert record["stderr"].count(b"what it wrote is there") == 2


def test_put_too_long(nicd, peer_nicd, locator_file, tmp_path):
    path = tmp_path / "long"
    path.write_bytes(b"x" * 5000)
    saved = tmp_path / "saved"
    with exporting(nicd, "--size", 4096, "--name", "long", "--access", "w", "--uses", 2, "--output", saved) as record:
        # mutation: copy_all does not compare the sizes
        assert failure(peer_nicd, "put", locator_file(record), path)["name"] == "EFBIG"
        # mutation: copy_all does not look behind the end of a stream
        assert failure(peer_nicd, "put", locator_file(record), "-", stdin=b"y" * 5000)["name"] == "EFBIG"
    assert saved.read_bytes() == b"y" * 4096


def test_access(nicd, peer_nicd, source, locator_file):
    with exporting(nicd, source, "--name", "read", "--access", "r") as record:
        assert failure(peer_nicd, "put", locator_file(record), source)["name"] == "EACCES"
    with exporting(nicd, source, "--name", "write", "--access", "w") as record:
        assert failure(peer_nicd, "get", locator_file(record), "-o", "/dev/null")["name"] == "EACCES"


def test_file_is_copied(nicd, peer_nicd, source, locator_file):
    before = source.read_bytes()
    with exporting(nicd, source, "--name", "copied", "--access", "rw", "--uses", 2) as record:
        source.write_bytes(b"changed")
        assert run(peer_nicd, "get", locator_file(record))[0] == before
        run(peer_nicd, "put", locator_file(record), source)
    assert source.read_bytes() == b"changed"
    assert b"peers write" in record["stderr"]


def test_ping(nicd, peer_nicd, source, locator_file):
    with exporting(nicd, source, "--name", "ping", "--access", "r") as record:
        rows = run_json(peer_nicd, "ping", locator_file(record), "--count", 5)["ping"]
        assert [r["what"] for r in rows] == ["connect", "read of 0 bytes", "read of 1 byte"]
        assert [r["count"] for r in rows] == [1, 5, 5]
        assert all(0 < r["min_us"] <= r["median_us"] <= r["max_us"] for r in rows)
    with exporting(nicd, source, "--name", "ping", "--access", "w") as record:
        assert len(run_json(peer_nicd, "ping", locator_file(record))["ping"]) == 2


# ---- huge pages

HUGE_POOL = pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB")


@pytest.mark.parametrize("pages", [0, 3])
def test_huge_export(nicd, peer_nicd, source, locator_file, pages):
    pool = HUGE_POOL / "nr_hugepages"
    before = pool.read_text()
    # A host that has some gives some; then this is the same case twice.
    free = int((HUGE_POOL / "free_hugepages").read_text())
    if pages > free:
        try:
            pool.write_text(str(int(before) + pages))
        except OSError as error:
            lacking("huge page", error)
    try:
        with exporting(nicd, source, "--name", "huge", "--access", "r", "--huge") as record:
            # mutation: export_buffer does not pass the flag on
            assert record["page_size"] == (2 << 20 if max(pages, free) >= 2 else 4096)
            assert run(peer_nicd, "get", locator_file(record))[0] == source.read_bytes()
        # mutation: export_buffer does not say that there were too few
        assert (b"normal ones" in record["stderr"]) == (record["page_size"] == 4096)
    finally:
        if pages > free:
            pool.write_text(before)


# ---- measuring

@pytest.fixture
def saved_export(nicd, tmp_path, source):
    """Exports a file, and answers what its memory held at the end."""
    saved = tmp_path / "saved"

    @contextlib.contextmanager
    def export(access):
        with exporting(nicd, source, "--name", "perf", "--access", access, "--output", saved) as record:
            yield record
    export.saved = saved
    return export


FEW = "--count", 6, "--size", "64K", "--depth", 4, "--list", 3


def test_perf_reads(peer_nicd, saved_export, source, locator_file):
    with saved_export("rw") as record:
        row, = run_json(peer_nicd, "perf", locator_file(record), *FEW)["perf"]
        # mutation: perf_operations measures writes unasked
        assert (row["op"], row["size"], row["depth"], row["list"], row["count"]) == ("read", 65536, 4, 3, 6)
        # mutation: perf_report does not sort
        assert 0 < row["p50_us"] <= row["p99_us"]
        assert row["seconds"] > 0
        # mutation: perf_report forgets the list
        assert abs(row["bytes_per_second"] * row["seconds"] / (65536 * 18) - 1) < 0.02
        assert row["per_second"] > 0
    assert saved_export.saved.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("op,measured", [("w", ["write"]), ("rw", ["read", "write"])])
def test_perf_writes_back(peer_nicd, saved_export, source, locator_file, op, measured):
    # mutation: perf_row does not read before it writes
    with saved_export("rw") as record:
        rows = run_json(peer_nicd, "perf", locator_file(record), "--op", op, *FEW)["perf"]
        assert [(r["op"], r["count"]) for r in rows] == [(m, 6) for m in measured]
    assert saved_export.saved.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("options,measured", [((), None), (("--op", "w"), None), (("--op", "r"), None), (("--scratch",), "write"),
                                              (("--op", "w", "--scratch"), "write")])
def test_perf_of_what_cannot_be_read(peer_nicd, saved_export, source, locator_file, options, measured):
    with saved_export("w") as record:
        if measured:
            assert [r["op"] for r in run_json(peer_nicd, "perf", locator_file(record), *options, *FEW)["perf"]] == [measured]
        else:
            # mutation: perf_operations does not ask for --scratch
            error = failure(peer_nicd, "perf", locator_file(record), *options, *FEW)
            assert error["name"] == "EACCES" and "--scratch" in error["cure"]
    # Its buffer was never filled.
    assert (saved_export.saved.read_bytes() == source.read_bytes()) == (measured is None)


def test_perf_of_what_cannot_be_written(peer_nicd, saved_export, locator_file):
    with saved_export("r") as record:
        error = failure(peer_nicd, "perf", locator_file(record), "--op", "rw", *FEW)
        assert error["name"] == "EACCES" and "--op r" in error["cure"]


def test_perf_usual_rows(nicd, peer_nicd, source, locator_file):
    with exporting(nicd, source, "--name", "perf", "--access", "r", "--uses", 3) as record:
        rows = run_json(peer_nicd, "perf", locator_file(record), "--count", 20)["perf"]
        assert [(r["size"], r["depth"]) for r in rows] == [(4096, 1), (4096, 16), (65536, 8), (1048576, 4)]
        stdout, _ = run(peer_nicd, "perf", locator_file(record), "--count", 20)
        assert stdout.splitlines()[0].split()[:3] == [b"OP", b"SIZE", b"LIST"] and len(stdout.splitlines()) == 5
        # mutation: perf_answered does not look at the time
        row, = run_json(peer_nicd, "perf", locator_file(record), "--seconds", 1, "--depth", 2, "--size", "1K")["perf"]
        assert row["seconds"] >= 0.9


def test_perf_is_smaller_than_asked(nicd, peer_nicd, locator_file):
    # mutation: perf_rows does not look at the grant's length
    with exporting(nicd, "--size", 1000, "--name", "small", "--access", "rw") as record:
        rows = run_json(peer_nicd, "perf", locator_file(record), "--op", "rw", "--count", 5)["perf"]
        assert {r["size"] for r in rows} == {1000} and len(rows) == 8


# ---- how far it is

def progress_of(stderr):
    return [d["progress"] for d in documents(stderr) if "progress" in d]


def test_progress(nicd, peer_nicd, source, locator_file, tmp_path):
    size = source.stat().st_size
    with exporting(nicd, source, "--name", "far", "--access", "rw", "--uses", 6) as record:
        locator = locator_file(record)
        # mutation: nicctl_progress_init shows it where nobody asked
        assert progress_of(run(peer_nicd, "--json", "get", locator, "-o", tmp_path / "copy")[1]) == []
        told = progress_of(run(peer_nicd, "--json", "get", locator, "-o", tmp_path / "copy", "--progress")[1])
        # mutation: nicctl_progress_show does not tell the end
        assert told[-1]["bytes"] == told[-1]["total"] == size and told[-1]["eta_seconds"] == 0
        assert told[-1]["bytes_per_second"] > 0
        # mutation: copy_all tells the total of a stream, which nobody knows
        told = progress_of(run(peer_nicd, "--json", "put", locator, "-", "--progress", stdin=b"x" * 5000)[1])
        assert {p["total"] for p in told} <= {None}
        stderr = run(peer_nicd, "put", locator, source, "--progress")[1]
        assert b"100 %" in stderr and b"/s" in stderr and b"\r" not in stderr
        assert b"%" not in run(peer_nicd, "put", locator, source)[1]
        assert b"%" not in run(peer_nicd, "put", locator, source, "--no-progress")[1]


def on_a_terminal(nicd, *args):
    """Runs it with a terminal for stderr; answers what it shows."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(command(nicd, *args), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs,
                               env=sanitizer_environment(nicd.directory))
    os.close(theirs)
    text = b""
    with contextlib.suppress(OSError):
        while piece := os.read(ours, 4096):
            text += piece
    os.close(ours)
    assert process.wait(20) == 0, text
    return text


def test_progress_on_a_terminal(nicd, peer_nicd, source, locator_file, tmp_path):
    with exporting(nicd, source, "--name", "bar", "--access", "r", "--uses", 2) as record:
        shown = on_a_terminal(peer_nicd, "get", locator_file(record), "-o", tmp_path / "copy")
        assert b"[####" in shown and b"left" in shown
        # mutation: nicctl_progress_end leaves the bar behind
        assert shown.rsplit(b"\r\x1b[K", 1)[1].startswith(b"nicctl: ")
        assert b"####" not in on_a_terminal(peer_nicd, "get", locator_file(record), "-o", tmp_path / "copy", "--no-progress")


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_get(nicd, peer_nicd, source, locator_file, tmp_path, end):
    """Its unfinished file is gone, the old one is there, and the shell sees the signal."""
    directory = tmp_path / "copies"
    directory.mkdir()
    (directory / "copy").write_bytes(b"precious")
    with exporting(nicd, source, "--name", "cut", "--access", "r") as record:
        # nicd does not answer any more.
        os.kill(peer_nicd.soft_pid, signal.SIGSTOP)
        process = subprocess.Popen(command(peer_nicd, "get", locator_file(record), "-o", directory / "copy"), stderr=subprocess.PIPE,
                                   env=sanitizer_environment(peer_nicd.directory))
        try:
            assert wait_until(lambda: len(list(directory.iterdir())) == 2)
            caught = 1 << (end - 1)
            assert wait_until(lambda: int(next(line.split()[1] for line in pathlib.Path(
                f"/proc/{process.pid}/status").read_text().splitlines() if line.startswith("SigCgt")), 16) & caught)
            process.send_signal(end)
            process.communicate(timeout=20)
        finally:
            process.kill()
            os.kill(peer_nicd.soft_pid, signal.SIGCONT)
    # mutation: nicctl_interrupts_raise does nothing
    assert process.returncode == -end
    # mutation: nicctl_interrupts_catch does nothing
    assert [p.name for p in directory.iterdir()] == ["copy"]
    assert (directory / "copy").read_bytes() == b"precious"


# ---- doors

def test_prints_the_locator(nicd, peer_nicd, source):
    """For people: the locator is all of stdout."""
    process = subprocess.Popen(command(nicd, "export", "create", source, "--name", "plain", "--access", "r"), stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=sanitizer_environment(nicd.directory))
    locator = process.stdout.readline()
    assert locator.startswith(b"nicd1:")
    assert run(peer_nicd, "get", "-", stdin=locator)[0] == source.read_bytes()
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 0
    assert stdout == b""
    assert b"copied into" in stderr


def test_locator_on_the_command_line(nicd, peer_nicd, source):
    with exporting(nicd, source, "--name", "seen", "--access", "r") as record:
        stdout, stderr = run(peer_nicd, "get", record["locator"])
        assert stdout == source.read_bytes()
        # mutation: peer_locator does not warn
        assert b"warning" in stderr and b"@FILE" in stderr
        assert record["locator"].encode() not in stderr


def test_locator_is_wiped(nicd, peer_nicd, source, tmp_path):
    """Whoever looks later does not see it: nicctl waits for its input meanwhile."""
    with exporting(nicd, source, "--name", "wiped", "--access", "w") as record:
        process = subprocess.Popen(command(peer_nicd, "put", record["locator"], "-"), stdin=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=sanitizer_environment(peer_nicd.directory))
        assert b"warning" in process.stderr.readline()
        line = pathlib.Path(f"/proc/{process.pid}/cmdline")
        # mutation: peer_locator without explicit_bzero
        assert wait_until(lambda: record["locator"].encode() not in line.read_bytes())
        process.communicate(b"done", timeout=20)
        assert process.returncode == 0


def test_revoke(nicd, peer_nicd, source, locator_file):
    with exporting(nicd, source, "--name", "revoked", "--access", "r", "--uses", 5, end=None, code=REFUSED) as record:
        receipt, = run_json(nicd, "revoke", record["serial"])["receipt"]
        assert receipt["serial"] == record["serial"]
        assert receipt["at"].endswith("Z")
        # mutation: export_event does not mind REVOKED (the exporter hangs)
    assert b"revoked" in record["stderr"]
    assert failure(peer_nicd, "get", locator_file(record), "-o", "/dev/null")["name"] == "CONNECT"


def test_revoked_session(nicd, tmp_path):
    saved = tmp_path / "saved"
    with exporting(nicd, "--size", "4K", "--name", "ended", "--access", "w", "--output", saved, end=None, code=REFUSED) as record:
        session, = [s for s in run_json(nicd, "session", "list")["sessions"] if s["pid"] == record["process"].pid]
        run(nicd, "--socket", nicd.admin_socket, "revoke", session["serial"])
    # mutation: nicctl_failed_info does not ask nicctl_answers
    assert b"nicd ended this session" in record["stderr"] and b"nicd_open" not in record["stderr"]
    # mutation: export_run ends the export although the session is lost (and does not save)
    assert saved.read_bytes() == bytes(4096)


def test_export_without_device(own_nicd):
    # mutation: call every end of an export a revocation
    nicd = own_nicd()
    with exporting(nicd, "--size", "64K", "--name", "lost", "--access", "r", end=None, code=REFUSED) as record:
        os.kill(nicd.soft_pid, signal.SIGKILL)
    assert b"DEVICE_LOST" in record["stderr"] and b"revoked" not in record["stderr"]
    nicd.soft = wait_until(lambda: children(nicd.pid))


def test_revoke_nothing(nicd):
    error = failure(nicd, "revoke", 1 << 60)
    assert (error["name"], error["status"]) == ("SERIAL", "INVALID_HANDLE")
    assert error["cure"]
    stderr = run(nicd, "revoke", 1 << 60, code=REFUSED)[1].decode()
    for word in ("SERIAL (INVALID_HANDLE): no object", "limit:", "observed:", "cure:"):
        assert word in stderr


def test_who(nicd, peer_nicd, source, locator_file):
    with exporting(nicd, source, "--name", "who", "--access", "rw") as record:
        assert run_json(nicd, "who", record["serial"]) == {"who": []}
        process = subprocess.Popen(command(peer_nicd, "put", locator_file(record), "-"), stdin=subprocess.PIPE,
                                   stderr=subprocess.PIPE, env=sanitizer_environment(peer_nicd.directory))
        rows = wait_until(lambda: run_json(nicd, "who", record["serial"])["who"])
        assert {r["type"] for r in rows} <= {"grant", "qp"}
        assert any(r["access"] == "rw" for r in rows if r["type"] == "grant")
        process.communicate(b"x", timeout=20)
        assert process.returncode == 0
    assert failure(nicd, "who", 1 << 60)["name"] == "SERIAL"


def test_name_taken(nicd, source):
    with exporting(nicd, source, "--name", "taken", "--access", "r"):
        error = failure(nicd, "export", "create", source, "--name", "taken", "--access", "r")
        assert (error["name"], error["status"]) == ("NAME_TAKEN", "INVALID_PARAMETER")
    stderr = run(nicd, "--json", "export", "create", source, "--name", "a/b", "--access", "r", code=REFUSED)[1]
    # mutation: export_copy_file tells of the copy before there is an export
    document, = documents(stderr)
    assert document["error"][0]["name"] == "STRING"
    # mutation: export_refused does not say which string
    assert "--name" in document["error"][0]["text"]


def test_expires(nicd):
    with exporting(nicd, "--size", "4K", "--name", "short", "--access", "r", "--ttl", 1, end=None) as record:
        # mutation: export_event does not mind EXPIRED (the exporter hangs)
        record["process"].wait(timeout=20)
    assert b"expired" in record["stderr"]


def test_daemon_goes_away(own_nicd, tmp_path):
    """The memory is the exporter's: what was written until then is saved."""
    nicd = own_nicd()
    saved = tmp_path / "saved"
    with exporting(nicd, "--size", "4K", "--name", "alone", "--access", "r", "--output", saved, end=None,
                   code=NO_DAEMON) as record:
        nicd.stop()
        record["process"].wait(timeout=20)
    assert saved.read_bytes() == bytes(4096)


@pytest.mark.parametrize("text", [b"", b"nicd1:", b"hello", b"nicd1:" + b"A" * 96, b"nicd1:" + b"A" * 5000, b"nicd1:\0" + b"A" * 95],
                         ids=["empty", "prefix", "word", "no crc", "long", "nul"])
def test_damaged_locator(nicd, text):
    error = failure(nicd, "get", "-", "-o", "/dev/null", stdin=text)
    assert error["name"] in ("LOCATOR", "EINVAL", "STRING")


@pytest.mark.parametrize("what", ["missing", "empty", "directory", "fifo"])
def test_files_that_are_none(nicd, tmp_path, what):
    path = tmp_path / what
    if what == "empty":
        path.write_bytes(b"")
    elif what == "directory":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    # mutation: export_copy_file opens without O_NONBLOCK (hangs at the fifo)
    error = failure(nicd, "export", "create", path, "--name", "x", "--access", "r")
    assert error["name"] == {"missing": "ENOENT", "empty": "ENODATA", "directory": "EINVAL", "fifo": "EINVAL"}[what]


# ---- usage

@pytest.mark.parametrize("args", [
    [], ["nonsense"], ["mr"], ["mr", "nonsense"], ["mr", "list", "more"], ["--nonsense", "status"], ["status", "--name", "x"],
    ["get"], ["get", "a", "b"], ["put", "a"], ["put", "-", "-"], ["get", "-", "--json"], ["revoke"], ["revoke", "x"], ["revoke", "-1"],
    ["perf"], ["perf", "-", "--size", "2G"], ["perf", "-", "--size", "64M", "--depth", "1000"], ["perf", "-", "--op", "x"],
    ["perf", "-", "--depth", "1025"], ["put", "-", "f", "--progress=1"],
    ["revoke", "99999999999999999999"], ["who", "1x"], ["ping", "-", "--count", "0"],
    ["export", "create", "--name", "x", "--access", "r"],
    ["export", "create", "f", "--size", "1", "--name", "x", "--access", "r"],
    ["export", "create", "f", "--access", "r"], ["export", "create", "f", "--name", "x"],
    ["export", "create", "f", "--name", "x", "--access", "x"],
    ["export", "create", "--size", "0", "--name", "x", "--access", "r"],
    ["export", "create", "--size", "-1", "--name", "x", "--access", "r"],
    ["export", "create", "--size", "1KK", "--name", "x", "--access", "r"],
    ["export", "create", "--size", "99999999T", "--name", "x", "--access", "r"],
    ["export", "create", "--size", "1", "--name", "x", "--access", "r", "--ttl", "4294968"],
    ["export", "create", "--size", "1", "--name", "x", "--access", "r", "--uses", "4294967296"],
])
def test_usage(nicd, args):
    stdout, stderr = run(nicd, *args, code=USAGE)
    assert stdout == b"" and stderr
    stdout, stderr = run(nicd, "--json", *args, code=USAGE)
    assert stdout == b"" and "usage" in documents(stderr)[0]


def test_help_and_version(nicd, tmp_path):
    for args in (["--help"], ["-h"], ["export", "create", "--help"]):
        stdout, stderr = run(nicd, *args)
        assert stdout.startswith(b"usage: nicctl") and not stderr
    assert run(nicd, "--version")[0].startswith(b"nicctl ")
    assert list(run_json(nicd, "--version")["version"][0]) == ["nicctl"]
    rows = run_json(nicd, "--help")["help"]
    assert {"status", "export create", "perf"} <= {r["command"] for r in rows}
    row, = run_json(nicd, "export", "create", "--help")["help"]
    assert "--access r|w|rw" in row["options"] and row["arguments"]
    assert b"--access" in run(nicd, "export", "create", "--help")[0]
    # mutation: print_help says the same of -o for both
    assert b"saved" in run(nicd, "export", "create", "--help")[0] and b"saved" not in run(nicd, "get", "--help")[0]


@pytest.mark.parametrize("args,text", [
    (["device"], b"nicctl: device has: show\n"),
    (["export"], b"nicctl: export has: list, create\n"),
    (["ledger", "x"], b"nicctl: usage: nicctl ledger\n"),
    (["export", "create", "f", "--access", "r"], b"nicctl: export create needs --name X\n"),
    (["status", "--name", "x"], b"nicctl: status does not take --name X\n"),
])
def test_usage_text(nicd, args, text):
    # mutation: usage_command lists no words; check_usage prints a blank without arguments; usage_option prints the whole help
    assert run(nicd, *args, code=USAGE)[1] == text


def test_no_daemon(nicd, tmp_path):
    # mutation: report_is_no_daemon answers false
    error = failure(nicd, "--socket", tmp_path / "none", "status", code=NO_DAEMON)
    # mutation: error_system says INSUFFICIENT_RESOURCES of everything
    assert error["status"] == "CONNECTION_REFUSED"
    assert str(tmp_path / "none") in error["text"]
    # mutation: open_refused names no command
    assert "nicd --rootless" in error["cure"] and "systemctl start nicd.socket" in error["cure"]
    stderr = run(nicd, "--socket", tmp_path / "none", "status", code=NO_DAEMON)[1]
    assert b"nicctl: " in stderr
    # mutation: report_error prints limit and observed of every failure
    assert b"limit:" not in stderr and b"observed:" not in stderr


def test_stdout_is_full(nicd):
    with open("/dev/full", "wb") as full:
        result = subprocess.run(command(nicd, "status"), stdout=full, stderr=subprocess.PIPE, timeout=20,
                                env=sanitizer_environment(nicd.directory))
    # mutation: nicctl_print does not look at fflush
    assert result.returncode == REFUSED
    assert b"ENOSPC" in result.stderr
