/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Every reason for which a request is refused, a session ended or a work request failed: one stable code, the status NDKPI would
 * give, the errno of libnicd, what is wrong and what to do. One table for socket, C API, CLI and journal.
 *
 * The numbers are part of the protocol (Error.reason): they are never given another meaning; new ones are added at the end
 * of their group.
 *
 * X(number, NAME, NDK status, errno, text, cure)
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>

/* X(value, NAME, NTSTATUS): enum Status of nicd.proto. Where NDKPI has no status, NTSTATUS is the nearest. */
#define NICD_STATUSES(X) \
	X(0, SUCCESS, 0x00000000u) \
	X(1, ACCESS_VIOLATION, 0xC0000005u) \
	X(2, INVALID_PARAMETER, 0xC000000Du) \
	X(3, BUFFER_TOO_SMALL, 0xC0000023u) \
	X(4, INSUFFICIENT_RESOURCES, 0xC000009Au) \
	X(5, NOT_SUPPORTED, 0xC00000BBu) \
	X(6, CANCELLED, 0xC0000120u) \
	X(7, REMOTE_RESOURCES, 0xC000013Du) \
	X(8, CONNECTION_INVALID, 0xC000023Au) \
	X(9, IMPLEMENTATION_LIMIT, 0xC000042Bu) \
	X(10, DEVICE_BUSY, 0x80000011u) \
	X(11, DEVICE_REMOVED, 0xC00002B6u) \
	X(12, INVALID_DEVICE_STATE, 0xC0000184u) \
	X(13, INVALID_HANDLE, 0xC0000008u) \
	X(14, ACCESS_DENIED, 0xC0000022u) \
	X(15, BAD_VERSION, 0xC0000059u) \
	X(16, CONNECTION_REFUSED, 0xC0000236u) \
	X(17, TIMEOUT, 0xC00000B5u) \
	X(18, DEPENDENCY_FAILED, 0xC000009Eu) \
	X(19, REVOKE_PENDING, 0x00000103u) \
	X(20, STALE, 0xC000000Cu) \
	X(21, PROTOCOL_VIOLATION, 0xC000021Du) \
	X(22, REMOTE_ERROR, 0xC000013Cu)

enum nicd_status {
#define X(value, name, ntstatus) NICD_STATUS_##name = value,
	NICD_STATUSES(X)
#undef X
};

#define NICD_REASONS(X) \
	X(0, NONE, SUCCESS, 0, "success", "") \
	/* ---- violations: the session ends */ \
	X(1, FRAME_EMPTY, PROTOCOL_VIOLATION, EPROTO, "the packet is empty or holds nothing", \
	  "send one Frame with at least one request per packet") \
	X(2, FRAME_TOO_BIG, PROTOCOL_VIOLATION, EMSGSIZE, "the packet is larger than a frame may be", \
	  "split the batch; a frame has at most `limit` bytes") \
	X(3, FRAME_UNDECODABLE, PROTOCOL_VIOLATION, EPROTO, "the packet is not a Frame of this protocol", \
	  "encode nicd.Frame as proto/nicd.proto says") \
	X(4, FRAME_BUDGET, PROTOCOL_VIOLATION, EPROTO, "decoding the frame takes more messages or memory than allowed", \
	  "send fewer or smaller messages in one frame") \
	X(5, FRAME_REQUESTS, PROTOCOL_VIOLATION, EPROTO, "the frame holds too many requests", \
	  "send at most `limit` requests in one frame") \
	X(6, FRAME_DIRECTION, PROTOCOL_VIOLATION, EPROTO, "the frame holds replies, events or Fatal, which only the other side sends", \
	  "send requests only") \
	X(7, FRAME_FDS_TRUNCATED, PROTOCOL_VIOLATION, EPROTO, "more file descriptors came than a frame may bring", \
	  "send at most `limit` descriptors with one frame") \
	X(8, FRAME_FDS_MISMATCH, PROTOCOL_VIOLATION, EPROTO, "the descriptors that came are not as many as the requests name", \
	  "make the sum of Request.fds the number of descriptors of the packet") \
	X(9, REQUEST_ID, PROTOCOL_VIOLATION, EPROTO, "the request id is 0, repeated, or still in flight", \
	  "give each request an id of its own that is not 0") \
	X(10, REFERENCE_ORDER, PROTOCOL_VIOLATION, EPROTO, "a result_of names no earlier request of its frame", \
	  "name an earlier request of the same frame") \
	X(11, REQUEST_EMPTY, PROTOCOL_VIOLATION, EPROTO, "the request holds no call, or one this version does not know", \
	  "check the version that Hello answered before using newer calls") \
	X(12, FRAME_FDS_LOST, PROTOCOL_VIOLATION, EMFILE, \
	  "nicd ran out of descriptors and the kernel dropped some of this frame's; limit is what nicd may have, observed came", \
	  "connect again; an admin can raise LimitNOFILE") \
	/* ---- general */ \
	X(20, NOT_SUPPORTED, NOT_SUPPORTED, EOPNOTSUPP, "this call is named by the protocol but not built yet", \
	  "do without it; QueryAdapter says what there is") \
	X(21, NOT_PERMITTED, ACCESS_DENIED, EACCES, "this socket's role may not make this call", \
	  "use the admin socket, as uid 0 or a member of group nicd-admin") \
	X(22, HELLO_FIRST, INVALID_DEVICE_STATE, EPROTO, "the session has not said Hello yet", "send Hello first") \
	X(23, HELLO_AGAIN, INVALID_DEVICE_STATE, EPROTO, "the session has said Hello already", "say Hello once") \
	X(24, VERSION, BAD_VERSION, EPROTONOSUPPORT, "nicd does not speak the version asked for; limit is its major*1000 + minor", \
	  "use a library of nicd's major version and not above its minor") \
	X(25, HANDLE, INVALID_HANDLE, EBADF, "no object of this session has this id", \
	  "use ids that this session was given, of objects that are not closed") \
	X(26, HANDLE_TYPE, INVALID_HANDLE, EBADF, "the id names an object of another type; limit is the type wanted, observed the one found", \
	  "pass an object of the type that the call takes") \
	X(27, DEPENDENCY, DEPENDENCY_FAILED, ECANCELED, "the request whose result this one names was refused", \
	  "look at the error of the earlier request") \
	X(28, FDS, INVALID_PARAMETER, EINVAL, "the call takes another number of file descriptors", \
	  "send the number of descriptors in `limit`") \
	X(29, STRING, INVALID_PARAMETER, EINVAL, "the string is too long, empty, not UTF-8, or has a control character or '/'", \
	  "use 1 to `limit` bytes of printable UTF-8") \
	X(30, FLAGS, INVALID_PARAMETER, EINVAL, "flags that mean nothing, or do not fit the call (remote write is 0x5 of an MR and 0x30 of a work request: one bit of it alone is undefined)", \
	  "use only the bits in `limit`, and at least one where rights are given to peers") \
	X(31, COUNT, INVALID_PARAMETER, EINVAL, "too many or no elements in the list", "send between 1 and `limit`") \
	X(32, NO_MEMORY, INSUFFICIENT_RESOURCES, ENOMEM, "nicd is out of memory", "try again later, or release objects") \
	X(33, QUOTA, INSUFFICIENT_RESOURCES, EDQUOT, "the account's share of this resource is used up", \
	  "close objects, or ask the admin for a larger limit (see nicctl ledger)") \
	X(34, SERIAL, INVALID_HANDLE, ENOENT, "no object that you may see has this serial", "take serials from List (nicctl mr list, nicctl export list and so on)") \
	X(35, CURSOR, INVALID_PARAMETER, EINVAL, "the cursor is not one that List answered", "start again with cursor 0") \
	X(36, INTERNAL, INSUFFICIENT_RESOURCES, EIO, "nicd failed inside", "look into nicd's journal and report it") \
	X(37, SHUTTING_DOWN, DEVICE_REMOVED, ESHUTDOWN, "nicd is stopping", "connect again when it is back") \
	X(38, IN_FLIGHT, INSUFFICIENT_RESOURCES, EAGAIN, "too many requests of this session, or of this Qp, are in flight", \
	  "wait for replies before sending more") \
	X(39, VALUE, INVALID_PARAMETER, EINVAL, "a value is out of its range", "keep it within `limit`") \
	/* ---- memory */ \
	X(50, MEMORY_NOT_MEMFD, INVALID_PARAMETER, EINVAL, "the descriptor is not a memfd, or a memfd made without MFD_ALLOW_SEALING", \
	  "use memfd_create(MFD_ALLOW_SEALING) or libnicd's nicd_buffer_new(); malloc'd memory, files, pipes and sockets cannot be registered") \
	X(51, MEMORY_NOT_SEALED, INVALID_PARAMETER, EINVAL, "the memfd could be shrunk under the device; limit and observed are seals", \
	  "fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) before passing it") \
	X(52, MEMORY_EMPTY, INVALID_PARAMETER, EINVAL, "the memfd has no bytes", "ftruncate() it to its size first") \
	X(53, MEMORY_SPARSE, INVALID_PARAMETER, EINVAL, "pages of the memfd are not there yet: limit bytes are needed, observed are there", \
	  "write to every page, or fallocate(fd, 0, 0, size), before passing it") \
	X(54, MEMORY_READ_ONLY, ACCESS_VIOLATION, EACCES, "write rights on memory that was passed read-only or sealed against writing", \
	  "pass a descriptor opened read-write without F_SEAL_WRITE or F_SEAL_FUTURE_WRITE, or ask for read rights only") \
	X(55, MEMORY_KIND, NOT_SUPPORTED, EOPNOTSUPP, "this device cannot register this kind of memory (dma-buf, GPU memory)", \
	  "use a memfd, or a device that says it can") \
	X(56, MEMORY_MAP, INSUFFICIENT_RESOURCES, ENOMEM, "the device could not map the memory", \
	  "see provider_error; release other memory") \
	X(57, MEMORY_WRITE_ONLY, ACCESS_VIOLATION, EACCES, "the descriptor cannot be read", \
	  "pass a descriptor opened read-write, or read-only") \
	X(58, DEVICE_MAPPINGS, INSUFFICIENT_RESOURCES, ENOSPC, "the device has as many memories of all accounts mapped as it may", \
	  "put what you register into fewer, larger memories; the admin may raise vm.max_map_count") \
	/* ---- regions */ \
	X(70, LENGTH_ZERO, INVALID_PARAMETER, EINVAL, "the length is 0", "register at least one byte") \
	X(71, RANGE_OVERFLOW, INVALID_PARAMETER, EOVERFLOW, "offset + length does not fit into 64 bits", "check the sum") \
	X(72, RANGE_BEYOND, INVALID_PARAMETER, EINVAL, "the range ends beyond the memory: limit is its size, observed the end asked for", \
	  "keep offset + length within the size") \
	X(73, RANGE_NOT_JOINED, INVALID_PARAMETER, EINVAL, "an inner boundary between two ranges is not on a page; limit is the page size", \
	  "end every range but the last, and start every one but the first, on a page") \
	X(74, LENGTH_BEYOND, INVALID_PARAMETER, EINVAL, "the length is more than the ranges hold", "keep it within `limit`") \
	X(75, IOVA_ZERO, INVALID_PARAMETER, EINVAL, "iova is 0", "name an address that is not 0") \
	X(76, IOVA_MISFIT, INVALID_PARAMETER, EINVAL, \
	  "iova's offset in the page is not that of the first range; limit is the offset wanted", "make iova congruent to the offset") \
	X(77, IOVA_OVERFLOW, INVALID_PARAMETER, EOVERFLOW, "iova + length does not fit into 64 bits", "choose a lower iova") \
	X(78, LENGTH_LIMIT, IMPLEMENTATION_LIMIT, E2BIG, "the length is more than the device can register at once", \
	  "register in pieces of at most `limit` bytes") \
	X(79, MR_STATE, INVALID_DEVICE_STATE, EBUSY, "the MR is in the wrong state for this call; limit and observed are states", \
	  "register before using its tokens; deregister before registering again; wait for the reply in between") \
	X(80, MR_KIND, INVALID_PARAMETER, EINVAL, "the call is for the other kind of MR (normal or fast-register)", \
	  "the kind is chosen by CreateMr for ever") \
	X(81, NO_REMOTE_RIGHTS, ACCESS_DENIED, EACCES, "the MR was registered without remote rights", \
	  "register it with remote read or remote write") \
	X(82, RIGHTS_EXCEED, ACCESS_VIOLATION, EACCES, "more rights than the MR has: limit are the MR's, observed those asked for", \
	  "ask for fewer rights, or register with more") \
	X(83, REVOKE_UNCONFIRMED, REVOKE_PENDING, EINPROGRESS, "the device has not confirmed in time that it can no longer touch the memory", \
	  "keep the memory as it is until REVOKE_CONFIRMED comes") \
	X(84, REVOKED, CANCELLED, ECANCELED, "the object was revoked", "make a new one, if whoever revoked it lets you") \
	X(85, WINDOW_BOUND, DEVICE_BUSY, EBUSY, "a memory window is bound to the MR", "invalidate or close the window first") \
	X(86, PAGE_COUNT, IMPLEMENTATION_LIMIT, E2BIG, "the device's fast registrations do not have so many pages", \
	  "ask for 1 to `limit` pages of 4,096 bytes, and use more MRs") \
	X(87, PAGES_BEYOND, INVALID_PARAMETER, EINVAL, "more pages than the MR was initialized for; limit is its page count", \
	  "initialize it for more pages while it is FREE, or register less at once") \
	X(88, NO_REMOTE_ACCESS, ACCESS_VIOLATION, EACCES, "remote rights on an MR that was initialized without remote access", \
	  "initialize it with remote_access while it is FREE, or ask for local rights only") \
	X(89, FIRST_BYTE, INVALID_PARAMETER, EINVAL, "the first byte's offset is not inside the first page", "keep it below `limit`") \
	X(90, MW_STATE, INVALID_DEVICE_STATE, EBUSY, "the window is in the wrong state for this call; limit and observed are states", \
	  "invalidate it before binding it again; bind it before using its token; wait for the reply in between") \
	X(91, WINDOW_RIGHTS, ACCESS_VIOLATION, EACCES, "a window that lets peers write, on an MR without local write", \
	  "register the MR with local write, or bind for reading only") \
	X(92, WINDOW_RANGE, INVALID_PARAMETER, EINVAL, "the window is not inside its MR; limit is the end of the MR, observed the window's", \
	  "stay in [iova, iova + length) of the MR: addresses are absolute") \
	X(93, REMOTELY_INVALIDATED, CANCELLED, ECANCELED, "a peer's message has invalidated it", "register or bind it again") \
	X(94, PRIVILEGED_DENIED, ACCESS_DENIED, EACCES, "policy does not give this account privileged tokens", \
	  "register memory instead, or ask the admin for privileged-token = yes") \
	X(95, EXTENSION, NOT_SUPPORTED, EOPNOTSUPP, "this object has no such extension, or not in this version; limit is the highest version", \
	  "ask without a uuid for those there are") \
	X(96, MAPPING_OR_RANGES, INVALID_PARAMETER, EINVAL, "a fast registration names either a mapping or ranges", "give one of the two") \
	X(97, QP_WINDOWS, INSUFFICIENT_RESOURCES, ENOSPC, "the Qp has as many windows bound as it may", \
	  "invalidate some of them, or bind to another Qp") \
	/* ---- doors */ \
	X(100, NAME_TAKEN, INVALID_PARAMETER, EEXIST, "the account has an export of this name", "close that one, or use another name") \
	X(101, LOCATOR, INVALID_PARAMETER, EINVAL, "the locator is damaged or not one", "copy it whole: it starts with nicd1: and has a checksum") \
	X(102, PD_MISMATCH, INVALID_PARAMETER, EINVAL, "the objects are in different PDs or adapters", "use objects of one PD") \
	X(103, EXPIRED, CANCELLED, ETIMEDOUT, "the ticket or export has expired", "create a new one") \
	X(104, DEAD, INVALID_DEVICE_STATE, ESTALE, "the export is dead: it was revoked, it expired, or its MR is gone", \
	  "create a new one") \
	/* ---- queue pairs */ \
	X(120, CONNECT, CONNECTION_REFUSED, ECONNREFUSED, \
	  "no connection: the address is not allowed, nobody answers there, or the ticket is unknown, spent or expired", \
	  "check the locator's age and uses, that the peer runs, and nicd's allowed networks") \
	X(121, QP_STATE, CONNECTION_INVALID, ENOTCONN, "the Qp is not connected", "connect a new one") \
	X(122, QP_LOST, CONNECTION_INVALID, ECONNRESET, "the connection ended while the work was under way", "connect a new Qp") \
	X(123, LOCAL_TOKEN, ACCESS_VIOLATION, EFAULT, "no MR in the Qp's PD has this local token", \
	  "use the local token of a registered MR of the same PD") \
	X(124, LOCAL_RANGE, ACCESS_VIOLATION, EFAULT, "the local address range is not inside the MR", "stay in [iova, iova + length)") \
	X(125, LOCAL_RIGHTS, ACCESS_VIOLATION, EACCES, "the local MR does not allow being written", "register it with local write") \
	X(126, REMOTE_TOKEN, REMOTE_ERROR, EREMOTEIO, "the peer knows no such token here: wrong, revoked, or behind another door", \
	  "use the token of the grant; ask the owner whether it was revoked") \
	X(127, REMOTE_RANGE, REMOTE_RESOURCES, EREMOTEIO, "the range is outside what the peer's token covers", "stay within the grant's iova and length") \
	X(128, REMOTE_RIGHTS, REMOTE_ERROR, EREMOTEIO, "the peer's token does not allow this operation", "look at the grant's flags") \
	X(129, REMOTE_TERMINATE, REMOTE_ERROR, EREMOTEIO, "the peer ended the connection with an error; observed is its Terminate code", \
	  "see the peer's journal") \
	X(130, FLUSHED, CANCELLED, ECANCELED, "the work request was cancelled by Flush, Disconnect or Close", "post it again on a connected Qp") \
	X(131, TRANSFER_ENTRIES, INVALID_PARAMETER, EINVAL, "the transfer list is empty, too long, or not whole entries", \
	  "send 1 to `limit` entries of 32 bytes") \
	X(132, OP_FLAGS, INVALID_PARAMETER, EINVAL, "flags that are for other work requests than this one", "use only the bits in `limit`") \
	X(133, TRANSFER_LENGTH, INVALID_PARAMETER, EINVAL, "the transfer is longer than allowed", "split it; at most `limit` bytes") \
	X(134, PEER_CLOSED, CONNECTION_INVALID, EPIPE, "the peer closed the connection", "connect a new Qp") \
	X(135, LOCAL_GONE, CANCELLED, EFAULT, "the local memory was deregistered or punched while the work was under way", \
	  "wait for completions before deregistering") \
	/* Only in the journal: the client is answered CONNECT, whatever the cause. */ \
	X(136, NETWORK, CONNECTION_REFUSED, EACCES, \
	  "the address is not among the networks that policy allows connections to; observed is its port", \
	  "add it with --allow-connect or [connect] allow in nicd.conf") \
	X(137, NO_RECEIVE, REMOTE_RESOURCES, ENOBUFS, "the peer had no receive posted for the message in time", \
	  "let the peer post its receives first") \
	X(138, REMOTE_RECEIVE, REMOTE_RESOURCES, EMSGSIZE, "the message is longer than the receive that the peer posted for it", \
	  "send less, or let the peer post longer receives") \
	X(139, REMOTE_INVALIDATE, REMOTE_ERROR, EREMOTEIO, "the peer has no such token that others may invalidate", \
	  "invalidate only what the peer asked to be invalidated") \
	X(140, RECEIVE_TOO_SMALL, BUFFER_TOO_SMALL, EMSGSIZE, \
	  "a message came that is longer than the receive: limit is the receive's length, observed how much had come", \
	  "post longer receives") \
	X(141, INLINE_LENGTH, INVALID_PARAMETER, EINVAL, "the inline data is longer than allowed, or not as long as the request says", \
	  "send at most `limit` bytes with OP_INLINE, and their number as length") \
	/* ---- device */ \
	X(150, NO_ADAPTER, DEVICE_REMOVED, ENODEV, "there is no such adapter, or it is down", "see nicctl device show") \
	X(151, DEVICE_LOST, DEVICE_REMOVED, ENODEV, "the device went away", "connect again when it is back") \
	X(152, DEVICE_FAILED, INSUFFICIENT_RESOURCES, EIO, "the device refused", "see provider_error") \
	X(153, DEVICE_BUSY, DEVICE_BUSY, EBUSY, "the device is still using the object", "try again later") \
	X(154, TAGS_EXHAUSTED, INSUFFICIENT_RESOURCES, ENOSPC, "the device has no tokens left", "deregister what is not needed")

enum nicd_reason {
#define X(number, name, status, err, text, cure) NICD_R_##name = number,
	NICD_REASONS(X)
#undef X
};

/* One row of the table; static, never freed. */
struct nicd_reason_info {
	enum nicd_reason reason;
	enum nicd_status status;
	int err;            /* positive errno */
	const char *name;   /* "MEMORY_NOT_SEALED" */
	const char *text;
	const char *cure;
};

/* What happened, as it travels inside a process: the row's number and the two figures that teach. */
struct nicd_error {
	enum nicd_reason reason;
	int provider_error;   /* errno of the device, or 0 */
	uint64_t limit;
	uint64_t observed;
};

/* The rows in the order of their numbers, from index 0; NULL: no more. */
const struct nicd_reason_info *nicd_reason_at(unsigned index);
/* The row of `reason`; the row INTERNAL for a number that is not in the table. */
const struct nicd_reason_info *nicd_reason_info(uint32_t reason);

/* "INVALID_PARAMETER"; "?" for a number that is not in the table. */
const char *nicd_status_name(uint32_t status);
uint32_t nicd_status_ntstatus(uint32_t status);

/* Fills *err (may be NULL) and returns the reason's negative errno, so that a check reads `return nicd_refuse(err, NICD_R_…)`. */
int nicd_refuse(struct nicd_error *err, enum nicd_reason reason);
int nicd_refuse_at(struct nicd_error *err, enum nicd_reason reason, uint64_t limit, uint64_t observed);
