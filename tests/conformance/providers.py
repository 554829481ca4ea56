# SPDX-License-Identifier: MIT
"""The providers that the suite runs on, and the one table of what they do differently.

A case that depends on the device asks provider.expect(FACT). Each fact has a row here, with a value for every provider and the reason
for it; a provider without a value is one that the suite cannot run on. CONFORMANCE.md shows the table."""
import collections
import os

from nicdtest.pb import pb

Fact = collections.namedtuple("Fact", "says values")
Value = collections.namedtuple("Value", "value why")

FACTS = {
    "adapter_flags": Fact("NDK_ADAPTER_INFO.AdapterFlags", {
        "soft": Value(pb.RDMA_READ_SINK_NOT_REQUIRED | pb.LOOPBACK,
                      "nicd-soft draws an STag of its own for each read's sink, so an MR needs no flag for it; two Qps of one device may "
                      "be connected to each other. Bytes of a message are not placed in order, and there is no CQ")}),
    "read_local_invalidate": Fact("NDK_OP_FLAG_RDMA_READ_LOCAL_INVALIDATE is carried out", {
        "soft": Value(False, "the adapter flag is not set, so the operation flag is ignored, as NdkRead says")}),
    "remote_errors": Fact("what an initiator hears when the peer's memory does not allow what it asked for", {
        "soft": Value({"token": "REMOTE_TOKEN", "range": "REMOTE_RANGE", "rights to read": "REMOTE_RIGHTS", "rights to write": "REMOTE_TOKEN"},
                      "the peer's Terminate says which it was (RFC 5040, 4.8); for a write it is DDP's, which knows no rights but only an "
                      "STag that is not valid (RFC 5041, 7.1)")}),
    "qp_after_error": Fact("a Qp after a work request that failed at the peer", {
        "soft": Value("disconnected", "iWARP ends the stream after a Terminate (RFC 5040, 7.2); NDKPI leaves it to the provider")}),
    "message_too_long": Fact("what ends a message that is longer than the receive", {
        "soft": Value({"sender": "REMOTE_RECEIVE", "receiver": "RECEIVE_TOO_SMALL"}, "DDP's untagged buffer model (RFC 5041, 7.1)")}),
    "max_inbound_read": Fact("MaxInboundReadLimit", {"soft": Value(64, "reads that one stream's peer may have under way")}),
}


class Provider:
    def __init__(self, name):
        self.name = name

    def expect(self, fact):
        return FACTS[fact].values[self.name].value

    def __repr__(self):
        return self.name


# NICD_PROVIDERS="soft verbs": which of them this machine can run.
PROVIDERS = [Provider(name) for name in os.environ.get("NICD_PROVIDERS", "soft").split()]
