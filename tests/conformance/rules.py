# SPDX-License-Identifier: MIT
"""What NDKPI's pages say of memory regions and of what works with them, rule by rule, and who says so. CONFORMANCE.md is made of this.

A rule with `why` is one where nicd does something else on purpose: `ndk` is then what the page says."""
import collections

import pytest

Rule = collections.namedtuple("Rule", "id who says ndk why", defaults=("", ""))
Page = collections.namedtuple("Page", "call name rules")

NDK, ND2, NICD = "NDK", "ND2", "nicd"

PAGES = [
    Page("OPEN_NDK_ADAPTER", "nc-ndisndk-open_ndk_adapter_handler", [
        Rule("open.version", NDK, "another major version, or a lowest minor above the provider's: BAD_VERSION; a lower or equal one "
             "succeeds, and "
             "the highest minor is told"),
        Rule("open.many", NDK, "an adapter may be opened many times"),
    ]),
    Page("CLOSE_NDK_ADAPTER", "nc-ndisndk-close_ndk_adapter_handler", [
        Rule("close-adapter.all", NDK, "closing the adapter ends all that was made of it",
             "the consumer closes all descendants first; closing the adapter waits for the last of their callbacks",
             "a client's process may die at any time: the end of its socket is the close of all it held"),
    ]),
    Page("NdkQueryAdapterInfo", "nc-ndkpi-ndk_fn_query_adapter_info, ns-ndkinfo-ndk_adapter_info", [
        Rule("info.frmr-pages", NDK, "FRMRPageCount is at least 16, and can be had"),
        Rule("info.flags", NDK, "AdapterFlags are what the provider does"),
        Rule("info.sizes", NDK, "MaxRegistrationSize, MaxWindowSize, MaxTransferLength, MaxInlineDataSize and the read limits are "
             "told"),
        Rule("info.limits-hold", NDK, "one more than is told is refused; what is told can be had"),
    ]),
    Page("NDIS_NDK_CAPABILITIES", "ns-ntddndis-_ndis_ndk_capabilities", [
        Rule("caps.yours", NDK, "what one consumer may have may be less than what the device has; both are told, 0 being no limit"),
    ]),
    Page("NdkQueryExtension", "nc-ndkpi-ndk_fn_query_extension_interface", [
        Rule("extension.every-object", NDK, "every object can be asked"),
        Rule("extension.unknown", NDK, "an unknown GUID, or a version above what there is: NOT_SUPPORTED"),
        Rule("extension.list", NICD, "asked without a uuid, an object tells all it has", "there is no way to ask which GUIDs an "
             "object knows",
             "who looks for a feature should not have to guess uuids"),
    ]),
    Page("NdkCreatePd", "nc-ndkpi-ndk_fn_create_pd", [
        Rule("create-pd.isolates", NDK, "objects of different PDs do not work together"),
        Rule("create-pd.resources", NDK, "INSUFFICIENT_RESOURCES when there are no more"),
    ]),
    Page("NdkCreateMr", "nc-ndkpi-ndk_fn_create_mr", [
        Rule("create-mr.registers-nothing", NDK, "makes an object and registers nothing"),
        Rule("create-mr.kind", NDK, "FastRegister TRUE: for fast registration only; FALSE: for normal registration only. The choice "
             "is for ever"),
        Rule("create-mr.resources", NDK, "INSUFFICIENT_RESOURCES when there are no more; no object then"),
    ]),
    Page("NdkRegisterMr", "nc-ndkpi-ndk_fn_register_mr", [
        Rule("register-mr.tokens", NDK, "success: the MR has tokens, and peers reach the memory by the remote one"),
        Rule("register-mr.index", NDK, "the virtual address is an index only, and never dereferenced"),
        Rule("register-mr.contiguous", NDK, "a chain that is not virtually contiguous must fail: INVALID_PARAMETER"),
        Rule("register-mr.repeats", NDK, "a chain may name the same pages more than once"),
        Rule("register-mr.length", NDK, "Length is at most the bytes of the chain"),
        Rule("register-mr.zero", ND2, "a length of 0: INVALID_PARAMETER"),
        Rule("register-mr.zero-based", NDK, "no zero-based addresses: 0 is refused"),
        Rule("register-mr.rights", NDK, "local read is always there; remote write (0x5) implies local write; bit 0x4 alone is no "
             "value"),
        Rule("register-mr.rights-hold", NDK, "a peer can do what the rights allow, and nothing else"),
        Rule("register-mr.read-sink", NDK, "READ_SINK may go with any other flag and never makes it fail; it gives no remote right"),
        Rule("register-mr.once", ND2, "one buffer per MR: registering again needs a deregistration first, and then gives new tokens"),
        Rule("register-mr.memory", NICD, "memory is a sealed memfd with all its pages present", "the consumer hands over locked MDLs",
             "nicd pins memory of processes it does not trust: it must not shrink under the device"),
        Rule("register-mr.read-only", NICD, "write rights on memory that cannot be written: ACCESS_VIOLATION"),
        Rule("register-mr.resources", NDK, "INSUFFICIENT_RESOURCES, at once or later; the MR stays as it was"),
        Rule("register-mr.pending", NDK, "a request is answered exactly once, at once or later"),
    ]),
    Page("NdkDeregisterMr", "nc-ndkpi-ndk_fn_deregister_mr", [
        Rule("deregister-mr.quiescent", NDK, "afterwards nothing can touch the memory: the next access by the token fails"),
        Rule("deregister-mr.again", NDK, "the object stays, and may be registered again"),
        Rule("deregister-mr.bound", ND2, "DEVICE_BUSY while a window is bound; the MR stays usable"),
        Rule("deregister-mr.device-fails", NICD, "what the device refuses to let go stays charged, and can be tried again"),
    ]),
    Page("NdkGetLocalTokenFromMr", "nc-ndkpi-ndk_fn_get_local_token_from_mr", [
        Rule("local-token.when", NDK, "after registering, or initializing for fast registration, has ended without error"),
        Rule("local-token.error", NICD, "before and after that: INVALID_DEVICE_STATE, never 0 or a stale token", "the function "
             "returns a UINT32 and "
             "has no way to fail", "a token of another state is a mistake that should be seen"),
        Rule("local-token.scope", NDK, "names local memory in work requests of the same PD only"),
    ]),
    Page("NdkGetRemoteTokenFromMr", "nc-ndkpi-ndk_fn_get_remote_token_from_mr", [
        Rule("remote-token.own", NDK, "the token of one's own MR, for a peer to use (the page's \"remote MR\" and \"local token\" "
             "are mistaken)"),
        Rule("remote-token.no-rights", NICD, "of an MR without remote rights: ACCESS_DENIED", "no word on it: providers return 0, "
             "the local token, or "
             "something that does not work", "a token that opens nothing should not look like one that does"),
        Rule("remote-token.not-local", NDK, "is not a local token: neither works in the other's place"),
    ]),
    Page("NdkInitializeFastRegisterMr", "nc-ndkpi-ndk_fn_initialize_fast_register_mr", [
        Rule("init-fast.kind", NDK, "of an MR for fast registration only"),
        Rule("init-fast.pages", NDK, "IMPLEMENTATION_LIMIT when the page count is not supported"),
        Rule("init-fast.tokens", NDK, "then there are tokens, which grant nothing yet"),
        Rule("init-fast.again", NICD, "again with the same arguments: success; with others while it is FREE, too; refused in use",
             "may be called many times, also in parallel; on one MR the effect is undefined", "undefined is no contract for strangers"),
    ]),
    Page("NdkFastRegister", "nc-ndkpi-ndk_fn_fast_register", [
        Rule("fast-register.reach", NDK, "then peers reach the pages by the token, at BaseVirtualAddress, with the rights asked for"),
        Rule("fast-register.token", NDK, "each one has a new remote token; the one before it does not work any more"),
        Rule("fast-register.token-when", NICD, "the reply is the call's return and its completion in one, and brings the token; "
             "until then there is none",
             "the new token can be read when the call returns, before the completion",
             "nobody should tell a peer a token that does not work yet (ibv_bind_mw(3) says so of windows)"),
        Rule("fast-register.mapping", NDK, "the pages are those of a logical address mapping (NdkBuildLam)"),
        Rule("fast-register.ranges", NICD, "or ranges of memory, without a mapping", "only a LAM",
             "one request in place of three; the same checks"),
        Rule("fast-register.fbo", NDK, "the first byte's offset is inside the first page, and the length within the pages behind it"),
        Rule("fast-register.base", NDK, "BaseVirtualAddress is n pages and the first byte's offset"),
        Rule("fast-register.base-zero", NICD, "BaseVirtualAddress 0 is refused",
             "0 is legal if the first byte's offset is 0 (and, on the same page, zero-based addresses are not supported)",
             "the page contradicts itself; one rule for all registrations"),
        Rule("fast-register.pages", NDK, "not more pages than the MR was initialized for"),
        Rule("fast-register.remote-access", NDK, "remote rights on an MR initialized without RemoteAccess: ACCESS_VIOLATION"),
        Rule("fast-register.connected", NDK, "on a Qp that is not connected: CONNECTION_INVALID"),
        Rule("fast-register.free", NDK, "of a FREE MR only: one in use is invalidated first"),
        Rule("fast-register.flags", NDK, "the operation flags' bits are not the MR flags': remote read is 0x8, remote write 0x30"),
        Rule("fast-register.ordered", NDK, "in the order of the Qp's other work"),
    ]),
    Page("NdkInvalidate", "nc-ndkpi-ndk_fn_invalidate", [
        Rule("invalidate.fast", NDK, "of a fast-registered MR: it is FREE, and may be registered again"),
        Rule("invalidate.window", NDK, "of a window: it is FREE, and may be bound again"),
        Rule("invalidate.normal", NDK, "never of an MR registered with NdkRegisterMr"),
        Rule("invalidate.twice", NDK, "of what is FREE fails"),
        Rule("invalidate.kills", ND2, "a peer that uses the token afterwards loses its connection"),
        Rule("invalidate.behind", NICD, "behind a FastRegister that is still under way in the same frame, by its result; else "
             "INVALID_DEVICE_STATE",
             "may be posted as soon as FastRegister was: the Qp's order makes it right",
             "a state that is not settled has no other calls; result_of needs no round trip either"),
        Rule("invalidate.connected", NDK, "on a Qp that is not connected: CONNECTION_INVALID"),
        Rule("invalidate.bound", ND2, "of an MR to which a window is bound: DEVICE_BUSY"),
    ]),
    Page("NdkCreateMw", "nc-ndkpi-ndk_fn_create_mw", [
        Rule("create-mw.unbound", NDK, "makes a window that is bound to nothing"),
        Rule("create-mw.resources", NDK, "INSUFFICIENT_RESOURCES when there are no more"),
    ]),
    Page("NdkBind", "nc-ndkpi-ndk_fn_bind", [
        Rule("bind.range", NDK, "[VirtualAddress, + Length) lies inside the MR"),
        Rule("bind.reach", NDK, "the peer reaches that range with those rights, and nothing else of the MR"),
        Rule("bind.write", NDK, "remote write on an MR without local write: ACCESS_VIOLATION"),
        Rule("bind.no-remote-needed", NDK, "the MR needs no remote right of its own"),
        Rule("bind.rights", ND2, "at least one right"),
        Rule("bind.zero", ND2, "a length of 0 is refused"),
        Rule("bind.overlap", ND2, "many windows over one MR, overlapping, with different rights"),
        Rule("bind.one-qp", ND2, "a window is for the peer of one Qp"),
        Rule("bind.twice", ND2, "a bound window is not bound again"),
        Rule("bind.pd", NDK, "window, MR and Qp are of one PD"),
        Rule("bind.connected", NDK, "on a Qp that is not connected: CONNECTION_INVALID"),
        Rule("bind.fast", NDK, "also to a fast-registered MR"),
    ]),
    Page("NdkGetRemoteTokenFromMw", "nc-ndkpi-ndk_fn_get_remote_token_from_mw", [
        Rule("mw-token.when", NDK, "when the bind has returned: a new one for each bind"),
    ]),
    Page("NdkBuildLam", "nc-ndkpi-ndk_fn_build_lam", [
        Rule("lam.pages", NDK, "page-aligned pages, and the first byte's offset in the first of them"),
        Rule("lam.contiguous", NDK, "what is not virtually contiguous: INVALID_PARAMETER"),
        Rule("lam.no-physical", NICD, "one logical address for all pages, drawn at random", "an array of adapter page addresses",
             "physical and bus addresses are nothing for a client"),
    ]),
    Page("NdkReleaseLam", "nc-ndkpi-ndk_fn_release_lam", [
        Rule("release-lam.users", NICD, "is answered when nothing uses the mapping any more", "the consumer must wait until all "
             "work that uses it is done",
             "a client that does not wait must harm nobody"),
        Rule("release-lam.memory", NDK, "the memory is what it was"),
    ]),
    Page("NdkGetPrivilegedMemoryRegionToken", "nc-ndkpi-ndk_fn_get_privileged_memory_region_token", [
        Rule("privileged.policy", NICD, "only if policy allows it: else ACCESS_DENIED", "cannot fail", "consumers of NDK are in the "
             "kernel; nicd's are not"),
        Rule("privileged.local", NDK, "local read and write by logical addresses, without registration"),
        Rule("privileged.never-remote", NDK, "never remote access"),
        Rule("privileged.one", NDK, "one per PD"),
    ]),
    Page("NDK_SGE", "ns-ndkpi-_ndk_sge", [
        Rule("sge.address", NDK, "with the privileged token the address is a logical one, else one inside a registered MR"),
        Rule("sge.inline", NDK, "token and address are ignored with NDK_OP_FLAG_INLINE"),
    ]),
    Page("NdkCloseMr, NdkClosePd, …", "nc-ndkpi-ndk_fn_close_object, nc-ndkpi-ndk_fn_close_completion", [
        Rule("close.never-fails", NDK, "never fails, in whatever state the object is"),
        Rule("close.handle", NDK, "the object is not to be used once its close has begun: every call says INVALID_HANDLE"),
        Rule("close.last", NDK, "is answered once, after all other requests of the object"),
        Rule("close.deregisters", NICD, "of a registered MR deregisters it", "the consumer deregisters first", "nothing may stay "
             "with the device when its owner is gone"),
    ]),
    Page("Object lifetimes", "ndkpi-object-lifetime-requirements", [
        Rule("life.pd-first", NDK, "closing a PD before its MRs is legal: the answer comes after the last of them has gone, and "
             "they work until then"),
        Rule("life.mr-before-window", NDK, "closing an MR before the windows bound to it is legal, likewise"),
        Rule("life.in-flight", NDK, "closing a Qp with work in flight cancels it; the close is answered last"),
        Rule("life.qp-not-mr", NDK, "a connection's end does not deregister MRs"),
        Rule("life.window-of-qp", NICD, "the end of its Qp frees a window", "the QP is no antecedent of a window", "it is for the "
             "peer of that Qp alone"),
    ]),
    Page("Completions", "ndkpi-completion-handling-requirements", [
        Rule("completion.one", NDK, "one completion for each request"),
        Rule("completion.in-order", NDK, "work requests of a Qp complete in the order in which they were posted"),
        Rule("completion.refused", NDK, "a request that fails to be posted has no completion"),
    ]),
    Page("NDK_RESULT_EX", "ns-ndkpi-_ndk_result_ex", [
        Rule("result.provider-error", NDK, "ProviderErrorCode is 0 on success"),
        Rule("result.invalidated", NDK, "ReceiveAndInvalidate tells the token that the message invalidated"),
    ]),
    Page("NdkRead", "nc-ndkpi-ndk_fn_read", [
        Rule("read.bytes", NDK, "brings the peer's bytes into local memory"),
        Rule("read.remote-size", NDK, "past the end of the peer's memory fails"),
        Rule("read.sink", NDK, "the sink needs no READ_SINK where the adapter says so"),
        Rule("read.local-invalidate", NDK, "RDMA_READ_LOCAL_INVALIDATE is ignored where the adapter does not have it"),
    ]),
    Page("NdkWrite", "nc-ndkpi-ndk_fn_write", [
        Rule("write.bytes", NDK, "brings local bytes into the peer's memory"),
        Rule("write.rights", NDK, "needs the peer's remote write"),
    ]),
    Page("NdkSend, NdkReceive", "nc-ndkpi-ndk_fn_send, nc-ndkpi-ndk_fn_receive", [
        Rule("send.fills", NDK, "a message fills the oldest receive, and each completes once"),
        Rule("send.too-long", NDK, "a message longer than the receive: BUFFER_TOO_SMALL there"),
        Rule("send.solicited", NDK, "SEND_AND_SOLICIT_EVENT is told with the receive"),
    ]),
    Page("NdkSendAndInvalidate", "nc-ndkpi-ndk_fn_send_and_invalidate", [
        Rule("send-invalidate.fast", NDK, "invalidates the token at the receiver, before the receive completes"),
        Rule("send-invalidate.window", NDK, "also that of a window"),
        Rule("send-invalidate.wrong", NDK, "a token that is none: the receiver's provider ends the connection"),
        Rule("send-invalidate.normal", NDK, "a normal MR cannot be invalidated by a peer"),
        Rule("send-invalidate.later", NDK, "a later Invalidate of it fails"),
    ]),
    Page("NdkFlush", "nc-ndkpi-ndk_fn_flush", [
        Rule("flush.cancelled", NDK, "what is posted is answered CANCELLED"),
    ]),
    Page("NdkDisconnect", "nc-ndkpi-ndk_fn_disconnect", [
        Rule("disconnect.flushes", NDK, "flushes, and ends the connection"),
    ]),
    Page("NDK_OP_FLAG", "nc-ndkpi-ndk_fn_fast_register, -bind, -invalidate, -read, -write, -send", [
        Rule("flags.undefined", NICD, "an undefined bit is refused", "no word on it", "what is ignored today could mean something "
             "tomorrow"),
        Rule("flags.silent-success", NDK, "SILENT_SUCCESS: failures still complete"),
        Rule("flags.read-fence", NDK, "READ_FENCE: begins when earlier reads of the Qp have ended"),
        Rule("flags.inline", NDK, "INLINE: the bytes are taken when the request is made, up to MaxInlineDataSize"),
        Rule("flags.defer", NDK, "DEFER: the request may wait for the next one, and is done"),
    ]),
]

RULES = {rule.id: rule for page in PAGES for rule in page.rules}
assert len(RULES) == sum(len(page.rules) for page in PAGES), "a rule's name is used twice"


def rule(*ids):
    assert set(ids) <= set(RULES), set(ids) - set(RULES)
    return pytest.mark.rule(*ids)
