# SPDX-License-Identifier: MIT
"""The messages of proto/nicd.proto, generated afresh when the tests start: `from nicdtest.pb import pb`."""
import importlib.util
import pathlib
import subprocess
import sys
import tempfile

from .paths import SOURCE


def _generate():
    # It is gone before any test begins: some are killed, and could not put it away.
    with tempfile.TemporaryDirectory(prefix="nicd-pb-") as out:
        subprocess.run(["protoc", f"--proto_path={SOURCE / 'proto'}", f"--python_out={out}", "nicd.proto"], check=True)
        spec = importlib.util.spec_from_file_location("nicd_pb2", pathlib.Path(out, "nicd_pb2.py"))
        module = importlib.util.module_from_spec(spec)
        sys.modules["nicd_pb2"] = module
        spec.loader.exec_module(module)
    return module


pb = _generate()

# Message type of a call -> name of its field in Request: pb.CreatePd -> "create_pd".
CALL_FIELDS = {f.message_type.full_name: f.name for f in pb.Request.DESCRIPTOR.oneofs_by_name["call"].fields}

# enum MrFlag, short.
LOCAL_READ = pb.MR_ALLOW_LOCAL_READ
LOCAL_WRITE = pb.MR_ALLOW_LOCAL_WRITE
REMOTE_READ = pb.MR_ALLOW_REMOTE_READ
REMOTE_WRITE = pb.MR_ALLOW_REMOTE_WRITE
READ_SINK = pb.MR_RDMA_READ_SINK
