/* SPDX-License-Identifier: MIT */
/*
 * libnicd: own memory regions on an RDMA NIC that this process may not open.
 *
 * A process hands memory (a memfd) to the daemon nicd over a Unix socket, registers ranges of it, and gets tokens.
 * Peers that it hands a locator to read and write that memory by one-sided RDMA. The same process may connect to
 * somebody else's locator and read and write there.
 *
 *	nicd_open(&n, NULL);
 *	nicd_buffer_new(n, 1 << 20, 0, &buffer);
 *	nicd_pd_create(n, 0, &pd);
 *	mr_attr.buffer = buffer;
 *	mr_attr.flags = NICD_MR_REMOTE_READ;
 *	nicd_mr_new(pd, &mr_attr, &mr);
 *	export_attr.name = "example";
 *	export_attr.flags = NICD_MR_REMOTE_READ;
 *	nicd_export_create(mr, &export_attr, &door);
 *	puts(nicd_export_locator(door));
 *
 * (Attribute structs begin all zero but for `size`. Two complete programs are in client/examples.)
 *
 * The names in capitals after "NDK" are those of Microsoft's NDKPI; "nc-ndkpi-…" is the page of the Windows driver
 * documentation that describes the call. Where this library differs, the comment says so.
 *
 *
 * RETURN VALUES. A function that returns int gives 0 (or a count) or a negative errno. nicd_last_error() then tells
 * more: what NDKPI would answer, the limit, what was seen, and what to do. Outputs are untouched on failure. Every call
 * can give, besides what its comment lists:
 *	-ENOTCONN	the connection is lost (then every call does, for ever: open a new one)
 *	-EOWNERDEAD	this is a child process made by fork()
 *	-EINVAL		an attribute struct whose `size` is smaller than in the first version of the library
 *	-E2BIG		an attribute struct larger than this library knows, whose unknown part is not zero
 *	-ENOMEM		no memory, here or in nicd
 *	-EDQUOT		the account's share of a resource is used up
 *	-EAGAIN		too many requests are in flight
 *	-ESHUTDOWN	nicd is stopping
 *
 * ATTRIBUTES. Public structs that begin with `size` may grow. Set all to zero and `size` to sizeof. In structs that the
 * library fills, `size` says how much room there is; in those that it owns, how much it has filled.
 *
 * TWICE. Each call that asks nicd comes as nicd_x(), which waits for the answer, and nicd_x_async(), which doesn't.
 *
 *	An async call that returns 0 is accepted: its callback is called exactly once, with 0 or with the error of the
 *	call; with -ECONNRESET when the connection is lost first; with -ECANCELED from nicd_free(). One that returns an
 *	error was not accepted and its callback is never called. The callback may be NULL. (Work requests may ask for not
 *	being told of a success: NICD_OP_SILENT_SUCCESS.)
 *
 *	Async calls are collected and leave together at nicd_flush(), nicd_dispatch() or the next waiting call: call
 *	many, then flush once. On one object they start in the order in which they were made; answers come in any order.
 *	What an async call points to (attributes, ranges, strings, transfers, fds) is read before it returns; what it
 *	fills (`ret` of a receipt, a completion, a token, …) must live until the callback, and is filled only if that
 *	gets 0 — but see nicd_completion.
 *
 *	An async call that makes an object gives the handle at once, and it may be used in further calls at once:
 *	without waiting, a buffer, a PD, an MR and an export can be made in one message. If making it fails, its
 *	callback tells; calls made on it are answered -ECANCELED (reason DEPENDENCY); it must still be closed. Calls on
 *	one MR come after those before them that register or deregister it; if such a one fails, they are refused
 *	(-ECANCELED or -EBUSY).
 *
 * CALLBACKS are called inside nicd_dispatch() and nicd_free(), and nowhere else: not by calls that wait (they keep
 * answers to other calls for the next nicd_dispatch()), not in another thread, not in a signal handler. A callback may
 * make any call, also calls that wait, also close the object it is about, also nicd_free(); only nicd_dispatch() is
 * refused there (-EBUSY).
 *
 * HANDLES. Each object that the caller makes is a handle until nicd_…_close() or nicd_…_close_async() is called on it,
 * which frees it, whatever they return — but -EBUSY and -EOWNERDEAD. Closing NULL does nothing (and calls no callback).
 * Objects may be closed in any order. (NDK: the answer to a close comes last, after what stands on the object is gone.
 * So the waiting nicd_pd_close() before its MRs are closed would wait for ever, and is refused with -EBUSY;
 * nicd_pd_close_async() may come first.) nicd_free() closes all and frees all handles.
 *
 * EVENT LOOPS. Put nicd_get_fd() into any loop:
 *
 *	struct pollfd p = { nicd_get_fd(n), nicd_get_events(n), 0 };
 *	poll(&p, 1, nicd_get_timeout(n));
 *	nicd_dispatch(n, 0);
 *
 * THREADS, SIGNALS, FORK. A struct nicd and its handles may be used by one thread at a time; different ones are
 * independent. The library starts no thread, installs no signal handler, never raises SIGPIPE, and prints nothing.
 * After fork() the child must not use the parent's struct nicd: every call gives -EOWNERDEAD, nicd_free() only gives
 * memory and fds back, nothing is sent and no callback is called. Buffers stay shared with the child.
 */
#ifndef NICD_H
#define NICD_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define NICD_API __attribute__((visibility("default")))
#else
#define NICD_API
#endif

struct nicd;        /* a session with the daemon */
struct nicd_memory; /* a memfd that was handed over */
struct nicd_buffer; /* a memfd made here, mapped, and handed over */
struct nicd_pd;     /* protection domain (NDK_PD) */
struct nicd_mr;     /* memory region (NDK_MR) */
struct nicd_mw;     /* memory window (NDK_MW) */
struct nicd_mapping; /* logical address map (NDK_LAM) */
struct nicd_qp;     /* queue pair: a connection to a peer (NDK_QP) */
struct nicd_ticket; /* the right to connect to a PD */
struct nicd_export; /* a named range of an MR, and the right to connect to it */
struct nicd_list;   /* a listing, page by page */
struct nicd_ledger; /* the accounts, page by page */

/*
 * The end of an async call: `error` is 0 or a negative errno; nicd_last_error() tells more during the callback.
 */
typedef void (*nicd_callback)(struct nicd *n, int error, void *userdata);

/* ---------------------------------------------------------------------------------------------------------------- errors */

/* Why the last call failed. The same facts appear in nicctl and in nicd's journal. */
struct nicd_error_info {
	uint32_t size;
	uint32_t reason;        /* stable number of the reason; 0 when the failure is of this library or the system */
	int32_t error;          /* negative errno, what the call returned */
	int32_t provider_error; /* errno of the device, 0 where it has none (NDK_RESULT_EX.ProviderErrorCode) */
	uint32_t ntstatus;      /* what NDKPI would answer */
	uint32_t reserved;
	uint64_t limit;         /* what is allowed; the text says of what */
	uint64_t observed;      /* what was seen */
	char name[48];          /* of the reason: "MEMORY_NOT_SEALED" */
	char status[32];        /* name of ntstatus: "INVALID_PARAMETER" */
	char text[256];         /* what is wrong */
	char cure[256];         /* what to do */
};

/*
 * The failure of the last call on `n` or its handles that failed; in a callback, of the call it is about. Valid until
 * the next call. Never NULL; `error` is 0 when nothing has failed yet. For nicd_open() see nicd_open_attr.error. NDK: what a call
 * returns, and NDK_RESULT_EX (ns-ndkpi-_ndk_result_ex) with its ProviderErrorCode.
 */
NICD_API const struct nicd_error_info *nicd_last_error(struct nicd *n);

/*
 * One line for people, without newline: "MEMORY_NOT_SEALED: the memfd could be … (limit 2, observed 0): fcntl(…) …".
 * Writes at most `size` bytes with the NUL, returns the length of the whole (like snprintf). NDKPI has none: its errors are numbers.
 */
NICD_API int nicd_error_print(const struct nicd_error_info *error, char *text, size_t size);

enum { NICD_ERROR_WIRE = 16 };

/* A row of the table of errors: one reason in all its forms. Strings are never freed. */
struct nicd_error_row {
	uint32_t size;
	uint32_t reason;                /* as in nicd_error_info */
	int32_t error;                  /* negative errno */
	uint32_t ntstatus;
	const char *name, *status, *text, *cure;
	uint32_t n_wire;
	uint32_t wire[NICD_ERROR_WIRE]; /* Terminates that are told so, 0xLTCC: layer, type, code (RFC 5040, 5041, 5044) */
};
/* The `index`-th reason, by number, from 0. -ENOENT: there are no more. Needs no session. NDKPI has none: see proto/ERRORS.md. */
NICD_API int nicd_error_get(unsigned index, struct nicd_error_row *ret);

/* ---------------------------------------------------------------------------------------------------------------- session */

enum {
	NICD_OPEN_ADMIN = 0x1, /* the admin socket, "admin.sock" beside the other */
	NICD_OPEN_FD = 0x2     /* nicd_open_attr.fd is the socket */
};

/* A line for a log; `priority` as in syslog(3). */
typedef void (*nicd_log_callback)(void *userdata, int priority, const char *text);

struct nicd_open_attr {
	uint32_t size;
	uint32_t flags;                /* NICD_OPEN_… */
	const char *socket;            /* path; NULL: see nicd_open */
	const char *client;            /* a label for lists and the journal, at most 255 bytes; NULL: the program's name */
	int32_t fd;                    /* with NICD_OPEN_FD: a connected SOCK_SEQPACKET socket, taken also on failure */
	uint32_t timeout_ms;           /* for connecting and the daemon's greeting; 0: 10,000 */
	struct nicd_error_info *error; /* filled if nicd_open fails; may be NULL; set error->size */
	nicd_log_callback log;         /* may be NULL */
	void *log_userdata;
};

/*
 * Connects and says Hello. The socket is attr->socket, else $NICD_SOCKET, else $XDG_RUNTIME_DIR/nicd/nicd.sock if it
 * exists, else /tmp/nicd-UID/nicd.sock if it exists and directory and socket belong to this user and nobody else can
 * write there, else /run/nicd/nicd.sock. (Programs that run setuid ignore the environment.) `attr` may be NULL. Errors:
 * -ENOENT, -ECONNREFUSED: nicd does not run there; -EACCES: this user may not use the socket; -EPROTONOSUPPORT: another
 * version; -ETIMEDOUT; -EPROTO: what answers is not nicd. NDK: OPEN_NDK_ADAPTER (nc-ndisndk-open_ndk_adapter_handler),
 * with its version rule.
 */
NICD_API int nicd_open(struct nicd **ret, const struct nicd_open_attr *attr);

/*
 * Ends the session: calls the callbacks of all accepted calls with -ECANCELED, closes the socket — nicd then closes all
 * that the session held — and frees `n` and all its handles, lists and buffers (buffers are unmapped). NULL is allowed.
 * Never waits. In a callback called from here every call gives -ENOTCONN. Called in a callback, the rest of
 * nicd_dispatch() doesn't touch `n` any more and returns -ECANCELED. NDK: CLOSE_NDK_ADAPTER
 * (nc-ndisndk-close_ndk_adapter_handler): afterwards no callback can run.
 */
NICD_API void nicd_free(struct nicd *n);

enum {
	NICD_ROLE_CLIENT = 0,
	NICD_ROLE_GATEWAY = 1,
	NICD_ROLE_ADMIN = 2
};

/* What Hello answered. Strings live as long as `n`. */
struct nicd_session_info {
	uint32_t size;
	uint32_t major, minor;      /* of the protocol, as the daemon speaks it */
	uint32_t role;              /* NICD_ROLE_…: decided by the socket and this process's credentials */
	uint64_t serial;
	const char *daemon;         /* "nicd 0.1.0" */
	const char *account;        /* what this session is charged to: "uid:1000" */
	uint8_t boot_id[16];        /* of this boot of the host */
	uint8_t resume_secret[32];
};

/* Lives as long as `n`. NDKPI has none: there the consumer is the kernel. */
NICD_API const struct nicd_session_info *nicd_session(struct nicd *n);

/* ---------------------------------------------------------------------------------------------------------------- event loop */

/*
 * The socket, to poll only; -1 when the connection is lost. The caller must not read, write or close it. NDKPI has none of these: its
 * callbacks come at any time at DISPATCH_LEVEL, these only from nicd_dispatch().
 */
NICD_API int nicd_get_fd(struct nicd *n);
/* POLLIN, with POLLOUT while something is to be sent. Ask before each poll. */
NICD_API int nicd_get_events(struct nicd *n);
/* 0 when callbacks wait for nicd_dispatch() although the fd may not be readable, else -1. For poll(). */
NICD_API int nicd_get_timeout(struct nicd *n);
/*
 * Sends what it can without waiting. 0, also when the socket is full (get_events then says POLLOUT).
 */
NICD_API int nicd_flush(struct nicd *n);
/*
 * Sends, receives, and calls callbacks. Waits up to `timeout_ms` (0: not at all, -1: for ever) until there is one to
 * call. Returns how many it called; 0 when time is up. -EINTR: a signal came while it waited; -EBUSY: called in a
 * callback; -ECANCELED: a callback called nicd_free(). When the connection is lost it first calls the callbacks of all
 * accepted calls with -ECONNRESET; after that -ENOTCONN.
 */
NICD_API int nicd_dispatch(struct nicd *n, int timeout_ms);

/* ---------------------------------------------------------------------------------------------------------------- events */

enum {
	NICD_EVENT_REVOKED = 1,          /* MR, window, ticket or export: ended by another than you, or its MR or Qp is gone */
	NICD_EVENT_REVOKE_CONFIRMED = 2, /* follows -EINPROGRESS: the device can no longer touch the memory */
	NICD_EVENT_EXPIRED = 3,          /* ticket or export */
	NICD_EVENT_DISCONNECTED = 4,     /* Qp; `error` says why */
	NICD_EVENT_CONNECTED = 5,        /* ticket or export: a peer came in; `serial` is its Qp: see nicd_qp_open */
	NICD_EVENT_DEVICE_STATE = 6,     /* adapter: see nicd_adapter_query */
	NICD_EVENT_RESYNC = 7,           /* news were dropped because they were not read in time: ask nicd_list_new */
	NICD_EVENT_REMOTE_INVALIDATED = 8, /* MR, window: a peer's message invalidated it; it is FREE */
	NICD_EVENT_NOTIFIED = 9          /* ticket or export: a peer says that what it wrote is there; `serial` is its Qp, `count` … */
};

enum {
	NICD_TYPE_NONE = 0,
	NICD_TYPE_ADAPTER = 1,
	NICD_TYPE_SESSION = 2,
	NICD_TYPE_MEMORY = 3,
	NICD_TYPE_PD = 4,
	NICD_TYPE_MR = 5,
	NICD_TYPE_MW = 6,
	NICD_TYPE_MAPPING = 7,
	NICD_TYPE_QP = 8,
	NICD_TYPE_TICKET = 9,
	NICD_TYPE_EXPORT = 10,
	NICD_TYPE_GRANT = 11
};

/* State, not a log: of one kind of news about one object only the latest is told. */
struct nicd_event {
	uint32_t size;
	uint32_t kind;                        /* NICD_EVENT_…; ignore those you don't know */
	uint32_t type;                        /* NICD_TYPE_… of `object` */
	uint32_t reserved;
	void *object;                         /* handle of that type, or NULL: an adapter, or closed by now */
	uint64_t serial;
	const struct nicd_error_info *error;  /* NULL: none */
	uint64_t count;                       /* NOTIFIED: how often its peers have said so, all together */
};
typedef void (*nicd_event_callback)(struct nicd *n, const struct nicd_event *event, void *userdata);

/* Called in nicd_dispatch(). Without one, events are dropped. NDKPI has none: there each object has callbacks of its own. */
NICD_API void nicd_set_event_callback(struct nicd *n, nicd_event_callback cb, void *userdata);

/* ---------------------------------------------------------------------------------------------------------------- adapters */

enum { /* nicd_adapter_info.flags: NDK_ADAPTER_FLAG_* */
	NICD_ADAPTER_IN_ORDER_DMA = 0x1,
	NICD_ADAPTER_READ_SINK_NOT_REQUIRED = 0x2,
	NICD_ADAPTER_CQ_INTERRUPT_MODERATION = 0x4,
	NICD_ADAPTER_MULTI_ENGINE = 0x8,
	NICD_ADAPTER_READ_LOCAL_INVALIDATE = 0x10,
	NICD_ADAPTER_CQ_RESIZE = 0x100,
	NICD_ADAPTER_LOOPBACK = 0x10000
};

/* NDK_ADAPTER_INFO, the MR part. A limit of 0 means "none of these". */
struct nicd_adapter_info {
	uint32_t size;
	uint32_t up;                    /* 1 or 0 */
	const char *name;               /* "soft0" */
	const char *provider;           /* "soft", "verbs" */
	const char *data_address;       /* as peers reach it: "127.0.0.1:7190" */
	uint64_t serial;
	uint64_t incarnation;           /* new whenever all tokens of the device died */
	uint32_t flags;                 /* NICD_ADAPTER_… */
	uint32_t frmr_page_count;
	uint64_t max_registration_size; /* bytes of one MR */
	uint64_t max_window_size;
	uint64_t max_transfer_length;   /* bytes of one work request */
	uint64_t max_pinned_bytes;      /* yours */
	uint32_t max_mr, max_mw, max_pd, max_qp; /* yours */
	uint32_t max_ranges;            /* of one registration */
	uint32_t max_transfer_entries;
	uint32_t max_inbound_read, max_outbound_read;
	uint32_t max_mappings;          /* yours */
	uint32_t max_inline;            /* bytes of an inline write or send */
	uint32_t max_fast_pages;        /* of one fast registration; frmr_page_count is NDK's recommendation */
	uint32_t privileged_token;      /* 1: policy allows you privileged tokens */
	/* What the device has for all of its users (NDIS_NDK_CAPABILITIES), beside yours; 0: it knows no limit. */
	uint32_t device_max_mr, device_max_mw, device_max_pd, device_max_qp;
	uint64_t device_max_pinned_bytes;
};

/* Adapters are numbered 0 to count - 1, in the order of Hello, and stay as long as `n`. */
NICD_API unsigned nicd_adapter_count(struct nicd *n);
/* As last told; NULL: no such adapter. Lives until the next answer to nicd_adapter_query() on it. */
NICD_API const struct nicd_adapter_info *nicd_adapter(struct nicd *n, unsigned index);
/* Asks anew. -ENODEV: no such adapter. NDK: NdkQueryAdapterInfo (nc-ndkpi-ndk_fn_query_adapter_info). */
NICD_API int nicd_adapter_query(struct nicd *n, unsigned index);
NICD_API int nicd_adapter_query_async(struct nicd *n, unsigned index, nicd_callback cb, void *userdata);

/* ---------------------------------------------------------------------------------------------------------------- extensions */

/* What an object has beyond NDKPI; an adapter has what its objects have. A higher version has all of the lower ones. */
struct nicd_extension {
	uint32_t size;
	uint32_t version;
	uint8_t uuid[16];
	char name[48];   /* "nicd.export" */
	char calls[128]; /* requests of nicd's protocol (proto/nicd.proto), with blanks in between: "create_export" */
	uint32_t objects; /* 1 << NICD_TYPE_…, of each type of object that has it */
	uint32_t reserved;
};

/*
 * The extensions of an object: a handle with its NICD_TYPE_…, or what nicd_adapter() gave with NICD_TYPE_ADAPTER. With a
 * `uuid` (16 bytes; NULL: all there are) only that one, in `version` or a higher one. *count is the room in `ret`, each
 * with its `size` set, and becomes how many extensions there are, which may be more.
 * Errors: -EOPNOTSUPP: no such extension of this object, or not in this version; -EINVAL: another type. NDK:
 * NdkQueryExtension (nc-ndkpi-ndk_fn_query_extension_interface).
 */
NICD_API int nicd_query_extension(struct nicd *n, uint32_t type, const void *object, const uint8_t *uuid, uint32_t version,
				  struct nicd_extension *ret, unsigned *count);
NICD_API int nicd_query_extension_async(struct nicd *n, uint32_t type, const void *object, const uint8_t *uuid,
					uint32_t version, struct nicd_extension *ret, unsigned *count, nicd_callback cb,
					void *userdata);

/* ---------------------------------------------------------------------------------------------------------------- memory */

/*
 * Hands over a memfd (hugetlb too) with F_SEAL_SHRINK and all its pages present. It is borrowed: nicd gets a copy, and
 * keeps it until the memory is closed and the last MR on it is gone. malloc'd memory, files, pipes and sockets cannot
 * be handed over. Errors: -EINVAL with reason MEMORY_NOT_MEMFD, MEMORY_NOT_SEALED, MEMORY_EMPTY, MEMORY_SPARSE; -EBADF;
 * -EOPNOTSUPP (MEMORY_KIND). NDKPI has none: there the consumer brings locked MDLs.
 */
NICD_API int nicd_memory_add(struct nicd *n, int fd, struct nicd_memory **ret);
NICD_API int nicd_memory_add_async(struct nicd *n, int fd, struct nicd_memory **ret, nicd_callback cb, void *userdata);
NICD_API uint64_t nicd_memory_size(const struct nicd_memory *memory);      /* bytes; 0 until it is answered */
NICD_API uint32_t nicd_memory_page_size(const struct nicd_memory *memory); /* bytes: 4096, or the huge page size */
NICD_API int nicd_memory_writable(const struct nicd_memory *memory);       /* 1: rights to write may be asked for */
NICD_API uint64_t nicd_memory_serial(const struct nicd_memory *memory);    /* 0 until it is answered */
/*
 * Allowed while MRs are registered on it: the answer comes after the last is gone, so the waiting call is refused with
 * -EBUSY (and nothing is freed) when handles of such MRs are open.
 */
NICD_API int nicd_memory_close(struct nicd_memory *memory);
NICD_API int nicd_memory_close_async(struct nicd_memory *memory, nicd_callback cb, void *userdata);

enum {
	NICD_BUFFER_HUGE = 0x1,      /* huge pages of 2 MiB if there are any free, else normal ones: ask nicd_buffer_page_size */
	NICD_BUFFER_HUGE_ONLY = 0x2, /* huge pages, or -ENOMEM */
	NICD_BUFFER_HUGE_1G = 0x4    /* with one of these: pages of 1 GiB; with HUGE then of 2 MiB, then normal ones */
};

/*
 * Makes a memfd of `size` bytes (> 0, rounded up to whole pages), allocates its pages, seals it against shrinking and
 * growing, maps it read-write and shared, and hands it over. Huge pages make the device's translations fewer; the address
 * that peers use is congruent to the offset modulo their size, so they stay huge. They come from the pool that the
 * administrator reserves (vm.nr_hugepages for 2 MiB; for 1 GiB best at boot, hugepagesz=1G hugepages=N); no privilege
 * or memlock limit is needed. Errors: -ENOMEM, -ENOSPC; -ENOMEM with the name HUGE_PAGES: `limit` pages are free and
 * `observed` are needed; HUGE_PAGES_SIZE: the kernel has none of that size; HUGE_PAGES_GROUP: enough are free, but the
 * cgroup may not have them; those of nicd_memory_add(). NDKPI has none.
 */
NICD_API int nicd_buffer_new(struct nicd *n, size_t size, uint32_t flags, struct nicd_buffer **ret);
NICD_API int nicd_buffer_new_async(struct nicd *n, size_t size, uint32_t flags, struct nicd_buffer **ret, nicd_callback cb,
				   void *userdata);
/*
 * The same for a memfd of the caller's, which is borrowed. Read-only ones are mapped read-only. It must be sealed
 * already.
 */
NICD_API int nicd_buffer_from_fd(struct nicd *n, int fd, struct nicd_buffer **ret);
NICD_API int nicd_buffer_from_fd_async(struct nicd *n, int fd, struct nicd_buffer **ret, nicd_callback cb, void *userdata);
NICD_API void *nicd_buffer_address(const struct nicd_buffer *buffer);         /* of the mapping here; peers never see it */
NICD_API size_t nicd_buffer_size(const struct nicd_buffer *buffer);           /* bytes, rounded up */
NICD_API size_t nicd_buffer_page_size(const struct nicd_buffer *buffer);      /* bytes */
NICD_API int nicd_buffer_fd(const struct nicd_buffer *buffer);                /* borrowed; e.g. to share it with a local process */
NICD_API struct nicd_memory *nicd_buffer_memory(struct nicd_buffer *buffer);  /* borrowed: never close it */
/* Unmaps it at once, and closes its memory as nicd_memory_close() does (also with its -EBUSY). */
NICD_API int nicd_buffer_close(struct nicd_buffer *buffer);
NICD_API int nicd_buffer_close_async(struct nicd_buffer *buffer, nicd_callback cb, void *userdata);

/* ---------------------------------------------------------------------------------------------------------------- PD */

/*
 * `adapter` is an index below nicd_adapter_count(). Errors: -ENODEV. NDK: NdkCreatePd (nc-ndkpi-ndk_fn_create_pd); a PD
 * is never shared between sessions.
 */
NICD_API int nicd_pd_create(struct nicd *n, unsigned adapter, struct nicd_pd **ret);
NICD_API int nicd_pd_create_async(struct nicd *n, unsigned adapter, struct nicd_pd **ret, nicd_callback cb, void *userdata);
NICD_API uint64_t nicd_pd_serial(const struct nicd_pd *pd);
/*
 * The answer comes after the PD's MRs, Qps, tickets and exports are closed; the waiting call is refused with -EBUSY
 * (and nothing is freed) when handles of such are open. NDK: NdkClosePd (nc-ndkpi-ndk_fn_close_object).
 */
NICD_API int nicd_pd_close(struct nicd_pd *pd);
NICD_API int nicd_pd_close_async(struct nicd_pd *pd, nicd_callback cb, void *userdata);

/* ---------------------------------------------------------------------------------------------------------------- MR */

enum { /* NDK_MR_FLAG_*. Local read is always on. Remote write is two bits: test (flags & 5) == 5. */
	NICD_MR_LOCAL_READ = 0x0,
	NICD_MR_LOCAL_WRITE = 0x1,
	NICD_MR_REMOTE_READ = 0x2,
	NICD_MR_REMOTE_WRITE = 0x5,
	NICD_MR_READ_SINK = 0x8
};

/* A part of a memory. This struct will not grow. */
struct nicd_range {
	struct nicd_memory *memory; /* nicd_mr_register_fd: NULL means its fd */
	uint64_t offset;            /* bytes */
	uint64_t length;            /* bytes, > 0; offset + length within the memory */
};

/* What to register: `buffer`, or `ranges`. */
struct nicd_mr_attr {
	uint32_t size;
	uint32_t flags;                  /* NICD_MR_… */
	struct nicd_buffer *buffer;      /* from `offset`; or NULL */
	uint64_t offset;                 /* bytes; with `buffer` only */
	const struct nicd_range *ranges; /* like an MDL chain: every inner boundary lies on a page */
	uint32_t n_ranges;               /* 1 to 16; with `mapping` 0 */
	uint32_t reserved;
	uint64_t length;                 /* bytes from the start; 0: all */
	/*
	 * The address peers will use: any number but 0 whose offset in the page is that of the start. 0: a random one below 2^47,
	 * congruent to the start modulo the memory's page size; never an address of this process.
	 */
	uint64_t iova;
};

/*
 * Makes an MR object and registers nothing (state CREATED). NDK: NdkCreateMr, FastRegister FALSE
 * (nc-ndkpi-ndk_fn_create_mr).
 */
NICD_API int nicd_mr_create(struct nicd_pd *pd, struct nicd_mr **ret);
NICD_API int nicd_mr_create_async(struct nicd_pd *pd, struct nicd_mr **ret, nicd_callback cb, void *userdata);
/*
 * CREATED → REGISTERED; also again after nicd_mr_deregister(), and then with new tokens. Ask for the tokens with the
 * functions below. Errors: -EINVAL (reasons RANGE_…, LENGTH_…, IOVA_…, FLAGS, COUNT), -EOVERFLOW, -EACCES
 * (MEMORY_READ_ONLY), -E2BIG (LENGTH_LIMIT), -EBUSY (MR_STATE: it is registered), -ENODEV, -ENOSPC (no tokens left).
 * NDK: NdkRegisterMr (nc-ndkpi-ndk_fn_register_mr).
 */
NICD_API int nicd_mr_register(struct nicd_mr *mr, const struct nicd_mr_attr *attr);
NICD_API int nicd_mr_register_async(struct nicd_mr *mr, const struct nicd_mr_attr *attr, nicd_callback cb, void *userdata);
/*
 * The same, with a memfd (borrowed) that is handed over for this registration only. Ranges without a memory mean it; no
 * ranges: all of it. attr->buffer must be NULL. Errors: also those of nicd_memory_add().
 */
NICD_API int nicd_mr_register_fd(struct nicd_mr *mr, int fd, const struct nicd_mr_attr *attr);
NICD_API int nicd_mr_register_fd_async(struct nicd_mr *mr, int fd, const struct nicd_mr_attr *attr, nicd_callback cb,
				       void *userdata);
/* nicd_mr_create and nicd_mr_register in one message. If registering fails, so does this, and nothing is left. */
NICD_API int nicd_mr_new(struct nicd_pd *pd, const struct nicd_mr_attr *attr, struct nicd_mr **ret);
/* The callback gets the first error of the two; the handle must be closed then, too. */
NICD_API int nicd_mr_new_async(struct nicd_pd *pd, const struct nicd_mr_attr *attr, struct nicd_mr **ret, nicd_callback cb,
			       void *userdata);

/*
 * What the last registration answered; all 0 before it, and after deregistering. They don't ask nicd: when somebody
 * else has revoked the MR, NICD_EVENT_REVOKED tells, and these stay. The tokens are those of NdkGetLocalTokenFromMr and NdkGetRemoteTokenFromMr
 * (nc-ndkpi-ndk_fn_get_local_token_from_mr, nc-ndkpi-ndk_fn_get_remote_token_from_mr).
 */
NICD_API uint32_t nicd_mr_local_token(const struct nicd_mr *mr);  /* lkey, for work requests in the same PD */
NICD_API uint32_t nicd_mr_remote_token(const struct nicd_mr *mr); /* rkey (STag), for peers; 0 without remote rights */
NICD_API uint64_t nicd_mr_iova(const struct nicd_mr *mr);
NICD_API uint64_t nicd_mr_length(const struct nicd_mr *mr);       /* bytes */
NICD_API uint32_t nicd_mr_flags(const struct nicd_mr *mr);        /* NICD_MR_…: the effective rights */
NICD_API uint32_t nicd_mr_generation(const struct nicd_mr *mr);   /* counts registrations */
NICD_API uint64_t nicd_mr_serial(const struct nicd_mr *mr);       /* 0 until creating it is answered */

/*
 * Ask nicd for a token. State REGISTERED, else -EBUSY (MR_STATE). Remote: -EACCES without remote rights.
 * NDK: NdkGetLocalTokenFromMr, NdkGetRemoteTokenFromMr (nc-ndkpi-ndk_fn_get_local_token_from_mr, …_remote_…).
 */
NICD_API int nicd_mr_get_local_token(struct nicd_mr *mr, uint32_t *ret);
NICD_API int nicd_mr_get_local_token_async(struct nicd_mr *mr, uint32_t *ret, nicd_callback cb, void *userdata);
NICD_API int nicd_mr_get_remote_token(struct nicd_mr *mr, uint32_t *ret);
NICD_API int nicd_mr_get_remote_token_async(struct nicd_mr *mr, uint32_t *ret, nicd_callback cb, void *userdata);
/*
 * The tokens of 1 to 4,096 MRs at once into arrays of `count` (each may be NULL); 0 where there is none, also for MRs
 * whose creation is not answered yet.
 */
NICD_API int nicd_query_tokens(struct nicd *n, struct nicd_mr *const *mrs, unsigned count, uint32_t *local_tokens,
			       uint32_t *remote_tokens);
NICD_API int nicd_query_tokens_async(struct nicd *n, struct nicd_mr *const *mrs, unsigned count, uint32_t *local_tokens,
				     uint32_t *remote_tokens, nicd_callback cb, void *userdata);

enum { NICD_RECEIPT_EXPORTS = 64 };

/* What a revocation did. */
struct nicd_receipt {
	uint32_t size;
	uint32_t streams_cut;  /* connections ended because they were inside the memory */
	uint64_t serial;       /* of the object */
	uint64_t at_ns;        /* CLOCK_REALTIME when the device confirmed, ns */
	uint32_t grants;       /* peers' grants ended */
	uint32_t n_exports;    /* exports that died with it; the first of them by serial: */
	uint64_t exports[NICD_RECEIPT_EXPORTS];
};

/*
 * REGISTERED → CREATED. Success says that the device can no longer touch the memory. Tokens die, and exports made of
 * the MR with them, when the request starts. `ret` may be NULL. -EBUSY: not registered (MR_STATE), or a window is
 * bound; -EINPROGRESS: the device has not confirmed in time: leave the memory as it is until
 * NICD_EVENT_REVOKE_CONFIRMED. NDK: NdkDeregisterMr (nc-ndkpi-ndk_fn_deregister_mr).
 */
NICD_API int nicd_mr_deregister(struct nicd_mr *mr, struct nicd_receipt *ret);
NICD_API int nicd_mr_deregister_async(struct nicd_mr *mr, struct nicd_receipt *ret, nicd_callback cb, void *userdata);
/*
 * Any state; deregisters first. 0, or -EINPROGRESS as above. NDK: NdkCloseMr (nc-ndkpi-ndk_fn_close_object).
 */
NICD_API int nicd_mr_close(struct nicd_mr *mr);
NICD_API int nicd_mr_close_async(struct nicd_mr *mr, nicd_callback cb, void *userdata);

/* ---------------------------------------------------------------------------------------------------------------- QP */

/* What a locator's door gives: memory on the other side. This struct will not grow. */
struct nicd_grant {
	uint32_t remote_token;
	uint32_t flags;        /* NICD_MR_REMOTE_READ, NICD_MR_REMOTE_WRITE */
	uint64_t iova;         /* where it starts, for remote_addr */
	uint64_t length;       /* bytes */
	uint64_t incarnation;  /* of the peer's device */
};

struct nicd_connect_attr {
	uint32_t size;
	uint32_t timeout_ms;   /* 0: 10,000; at most 60,000 */
	const char *locator;   /* "nicd1:…"; white space around it is allowed */
};

/*
 * Makes a Qp in `pd` and connects it to what the locator names. Errors: -EINVAL (LOCATOR: damaged); -ECONNREFUSED: not
 * allowed, nobody there, or ticket unknown, spent or expired — these look alike, after the same time. NDK: NdkCreateQp
 * and NdkConnect in one (nc-ndkpi-ndk_fn_create_qp, nc-ndkpi-ndk_fn_connect).
 */
NICD_API int nicd_qp_connect(struct nicd_pd *pd, const struct nicd_connect_attr *attr, struct nicd_qp **ret);
NICD_API int nicd_qp_connect_async(struct nicd_pd *pd, const struct nicd_connect_attr *attr, struct nicd_qp **ret,
				   nicd_callback cb, void *userdata);
/*
 * A handle for the Qp of a peer that came in by a ticket or export of this session; `serial` is that of NICD_EVENT_CONNECTED, or of a
 * list. Once for each Qp. Closing the handle disconnects the peer; when the peer goes first, NICD_EVENT_DISCONNECTED comes and the handle
 * is still to be closed. Errors: -ENOENT (SERIAL: it is gone, or not of this session), -EEXIST: it has a handle. NDK: NdkAccept makes the
 * consumer's Qp out of a connection request (nc-ndkpi-ndk_fn_accept); here the ticket has accepted already.
 */
NICD_API int nicd_qp_open(struct nicd *n, uint64_t serial, struct nicd_qp **ret);
NICD_API int nicd_qp_open_async(struct nicd *n, uint64_t serial, struct nicd_qp **ret, nicd_callback cb, void *userdata);
NICD_API uint64_t nicd_qp_serial(const struct nicd_qp *qp);
/* Lives as long as the handle; all 0 until connecting is answered. */
NICD_API const struct nicd_grant *nicd_qp_grant(const struct nicd_qp *qp);

struct nicd_qp_info {
	uint32_t size;
	uint32_t connected, inbound; /* 1 or 0 */
	uint32_t reserved;
	uint64_t serial;
	struct nicd_grant grant;
	uint64_t bytes_read;    /* payload that reads of this side brought in */
	uint64_t bytes_written; /* payload that writes and messages of this side carried out */
	uint64_t peer_read;     /* payload that the peer read here */
	uint64_t peer_written;  /* payload that the peer wrote here, or sent */
	uint64_t door;          /* serial of the ticket or export that let the peer in, or 0 */
	char peer[64];          /* address and port */
};
/* How it stands now; when it is disconnected, how it stood last. NDKPI has none: it keeps no counters of a Qp that a consumer could ask for. */
NICD_API int nicd_qp_query(struct nicd_qp *qp, struct nicd_qp_info *ret);
NICD_API int nicd_qp_query_async(struct nicd_qp *qp, struct nicd_qp_info *ret, nicd_callback cb, void *userdata);

/*
 * Flags of work requests: NDK_OP_FLAG_*. Not those of an MR (NICD_MR_…): NDK has other bits for the same right. Which request takes which is
 * said there; others are refused with -EINVAL (OP_FLAGS, FLAGS; `limit` is what it takes).
 */
enum {
	/*
	 * A success is not told: no callback is called, and nothing is filled in. Failures are told as always, and FLUSHED, too. What `ret`
	 * points to must live until a later call on the same Qp without this flag is answered. Calls that wait ignore it.
	 */
	NICD_OP_SILENT_SUCCESS = 0x1,
	NICD_OP_READ_FENCE = 0x2,      /* begins when all reads that the Qp was given before have ended */
	NICD_OP_SOLICIT_EVENT = 0x4,   /* send: the peer's receive says so (NDK: SEND_AND_SOLICIT_EVENT) */
	NICD_OP_REMOTE_READ = 0x8,     /* fast registration, binding: rights */
	NICD_OP_LOCAL_WRITE = 0x10,    /* fast registration */
	NICD_OP_REMOTE_WRITE = 0x30,   /* fast registration, binding: two bits, of which 0x20 alone is refused */
	NICD_OP_INLINE = 0x40,         /* one write, send: the bytes are in the request; see nicd_work_attr */
	NICD_OP_READ_SINK = 0x80,      /* fast registration */
	NICD_OP_READ_LOCAL_INVALIDATE = 0x100, /* read: ignored where nicd_adapter_info.flags does not have it, as NDK says */
	NICD_OP_DEFER = 0x200,         /* a hint: more work follows at once */
	NICD_OP_NOTIFY = 0x10000       /* nicd's own. Writes: see nicd_qp_write_notify */
};

/* One read or write. This struct will not grow: it is what the protocol sends. */
struct nicd_transfer {
	uint32_t local_token;   /* of an MR of the Qp's PD; with local write for reads (NDK_SGE.MemoryRegionToken) */
	uint32_t remote_token;  /* of the grant */
	uint64_t local_addr;    /* within [iova, iova + length) of the local MR */
	uint64_t remote_addr;   /* within [iova, iova + length) of the grant */
	uint32_t length;        /* bytes; 0 is allowed */
	uint32_t zero;          /* 0 */
};

/*
 * How far a work request came. Filled on success, and also on failure if nicd answered (else `entries` stays what it
 * was).
 */
struct nicd_completion {
	uint32_t size;
	uint32_t entries;  /* completed */
	uint64_t bytes;    /* of payload */
	uint32_t failed;   /* index of the first failed entry, on failure */
	uint32_t inexact;  /* 1: `failed` is the first unconfirmed one; the peer did not say which */
	uint32_t solicited;         /* receive. 1: the message was sent with NICD_OP_SOLICIT_EVENT */
	uint32_t invalidated_token; /* receive. The token that the message invalidated; 0: none (NDK: ReceiveAndInvalidate) */
};

/*
 * The success of a read says that the bytes are here; that of a write, that they are placed at the peer. `ret` may be
 * NULL. State: connected, else -ENOTCONN with reason QP_STATE. Errors: -EFAULT, -EACCES: local token, range or rights;
 * -EREMOTEIO: the peer does not allow it; -ECONNRESET (QP_LOST), -EPIPE (PEER_CLOSED): connection ended; -ECANCELED:
 * flushed. After a failure of the last three kinds the Qp is disconnected (iWARP has no other way). NDK: NdkRead,
 * NdkWrite (nc-ndkpi-ndk_fn_read, nc-ndkpi-ndk_fn_write).
 */
NICD_API int nicd_qp_read(struct nicd_qp *qp, const struct nicd_transfer *transfer, struct nicd_completion *ret);
NICD_API int nicd_qp_read_async(struct nicd_qp *qp, const struct nicd_transfer *transfer, struct nicd_completion *ret,
				nicd_callback cb, void *userdata);
NICD_API int nicd_qp_write(struct nicd_qp *qp, const struct nicd_transfer *transfer, struct nicd_completion *ret);
NICD_API int nicd_qp_write_async(struct nicd_qp *qp, const struct nicd_transfer *transfer, struct nicd_completion *ret,
				 nicd_callback cb, void *userdata);

/*
 * 1 to 1,024 reads, or writes, with one completion. Otherwise as above; -EINVAL (TRANSFER_ENTRIES). NDK: many NdkRead or NdkWrite with the flag
 * DEFER (nc-ndkpi-ndk_fn_read, nc-ndkpi-ndk_fn_write).
 */
NICD_API int nicd_qp_read_list(struct nicd_qp *qp, const struct nicd_transfer *list, unsigned count, struct nicd_completion *ret);
NICD_API int nicd_qp_read_list_async(struct nicd_qp *qp, const struct nicd_transfer *list, unsigned count,
				     struct nicd_completion *ret, nicd_callback cb, void *userdata);
NICD_API int nicd_qp_write_list(struct nicd_qp *qp, const struct nicd_transfer *list, unsigned count,
				struct nicd_completion *ret);
NICD_API int nicd_qp_write_list_async(struct nicd_qp *qp, const struct nicd_transfer *list, unsigned count,
				      struct nicd_completion *ret, nicd_callback cb, void *userdata);

/*
 * Writes a list as above, and then tells the owner of the ticket or export that the Qp came in by: it gets NICD_EVENT_NOTIFIED, after all
 * of the list is placed. nicd's own: on the wire it is an empty Send with Solicited Event. A peer that is not nicd takes it for a message;
 * without a receive it ends the connection (-ENOBUFS, NO_RECEIVE). NDKPI has none: there the peer polls the memory, or is sent a message.
 */
NICD_API int nicd_qp_write_notify(struct nicd_qp *qp, const struct nicd_transfer *list, unsigned count,
				  struct nicd_completion *ret);
NICD_API int nicd_qp_write_notify_async(struct nicd_qp *qp, const struct nicd_transfer *list, unsigned count,
					struct nicd_completion *ret, nicd_callback cb, void *userdata);

/* A message to send, or room for one. This struct will not grow. */
struct nicd_message {
	uint32_t local_token;      /* of an MR of the Qp's PD; with local write for a receive */
	uint32_t length;           /* bytes; 0 is allowed */
	uint64_t local_addr;       /* within [iova, iova + length) of the MR */
	uint32_t flags;            /* send: NICD_OP_…; receive: 0 */
	uint32_t invalidate_token; /* send: a token of the peer's that becomes void when it receives the message; 0: none */
};

/*
 * Sends a message into the oldest receive that the peer has posted, in the order of the Qp's reads and writes. Success says that it is
 * placed there. State and errors as above, and: -ENOBUFS (NO_RECEIVE): the peer had posted none in time; -EMSGSIZE (REMOTE_RECEIVE): its
 * receive is too short; -EREMOTEIO (REMOTE_INVALIDATE): it has no such token that may be invalidated (those of normal MRs never may).
 * NDK: NdkSend, NdkSendAndInvalidate (nc-ndkpi-ndk_fn_send, nc-ndkpi-ndk_fn_send_and_invalidate).
 */
NICD_API int nicd_qp_send(struct nicd_qp *qp, const struct nicd_message *message, struct nicd_completion *ret);
NICD_API int nicd_qp_send_async(struct nicd_qp *qp, const struct nicd_message *message, struct nicd_completion *ret,
				nicd_callback cb, void *userdata);
/*
 * Posts room for one message, at most 256 of a Qp (-EAGAIN, IN_FLIGHT), and is answered when one has filled it: `ret` says how much
 * came. Messages fill receives in the order of these. They don't count as requests in flight. A peer's message waits 5 s for a receive.
 * Errors as above, and: -EMSGSIZE (RECEIVE_TOO_SMALL): the message was longer, and the connection is lost; -ECANCELED: flushed,
 * disconnected or closed; -EFAULT (LOCAL_GONE): the MR was deregistered (where no message had begun to come, the connection stands).
 * NDK: NdkReceive (nc-ndkpi-ndk_fn_receive).
 */
NICD_API int nicd_qp_receive(struct nicd_qp *qp, const struct nicd_message *room, struct nicd_completion *ret);
NICD_API int nicd_qp_receive_async(struct nicd_qp *qp, const struct nicd_message *room, struct nicd_completion *ret,
				   nicd_callback cb, void *userdata);

enum {
	NICD_WORK_READ = 0,
	NICD_WORK_WRITE = 1,
	NICD_WORK_SEND = 2,
	NICD_WORK_RECEIVE = 3
};

/* Any work request, with all that it may have. */
struct nicd_work_attr {
	uint32_t size;
	uint32_t operation;                    /* NICD_WORK_… */
	uint32_t flags;                        /* NICD_OP_…; of a message together with its own; receive: 0 */
	uint32_t count;                        /* of transfers, 1 to 1,024: a list if more than 1 */
	const struct nicd_transfer *transfers; /* read, write */
	const struct nicd_message *message;    /* send, receive */
	/*
	 * With NICD_OP_INLINE: the bytes that one write or send carries, as many as its length says and at most nicd_adapter_info.max_inline.
	 * They are read before the call returns; the local side of the transfer or message is ignored.
	 */
	const void *inline_data;
};

/*
 * Posts a work request: the calls above are this one with some of it filled in. Read: NICD_OP_SILENT_SUCCESS, _READ_FENCE, _DEFER,
 * _READ_LOCAL_INVALIDATE. Write: the first three, _NOTIFY, and of a single one _INLINE. Send: the first three, _SOLICIT_EVENT, _INLINE. A list
 * has its flags once, and one completion. Errors as above, and: -EINVAL (OP_FLAGS, FLAGS; INLINE_LENGTH: more than max_inline, `limit`).
 * NDK: NdkRead, NdkWrite, NdkSend, NdkSendAndInvalidate, NdkReceive (nc-ndkpi-ndk_fn_read, nc-ndkpi-ndk_fn_write, nc-ndkpi-ndk_fn_send,
 * nc-ndkpi-ndk_fn_send_and_invalidate, nc-ndkpi-ndk_fn_receive); a list is nicd's own, where NDK has the DEFER flag.
 */
NICD_API int nicd_qp_post(struct nicd_qp *qp, const struct nicd_work_attr *attr, struct nicd_completion *ret);
NICD_API int nicd_qp_post_async(struct nicd_qp *qp, const struct nicd_work_attr *attr, struct nicd_completion *ret,
				nicd_callback cb, void *userdata);

/* -------------------------------------------------------------------------------------------------------- fast register */

/* What to register fast: `length` bytes from first_byte_offset in the first page of the ranges on. */
struct nicd_fast_attr {
	uint32_t size;
	uint32_t flags;                  /* NICD_OP_REMOTE_READ, _LOCAL_WRITE, _REMOTE_WRITE, _READ_SINK; _SILENT_SUCCESS, _READ_FENCE, _DEFER */
	struct nicd_qp *qp;              /* connected, of the MR's PD */
	const struct nicd_range *ranges; /* pages of 4,096 bytes: each begins at one, and only the last may end inside one */
	uint32_t n_ranges;               /* 1 to 16; with `mapping` 0 */
	uint32_t first_byte_offset;      /* bytes, < 4,096 */
	uint64_t length;                 /* bytes, > 0, within the ranges */
	uint64_t iova;                   /* not 0; its offset in the page is first_byte_offset */
	struct nicd_mapping *mapping;    /* instead of ranges: its pages; NULL: none */
};

/*
 * Makes a fast-register MR (state CREATED): for nicd_mr_init_fast_register, nicd_mr_fast_register and nicd_mr_invalidate, and never for
 * nicd_mr_register (-EINVAL, MR_KIND). NDK: NdkCreateMr, FastRegister TRUE (nc-ndkpi-ndk_fn_create_mr).
 */
NICD_API int nicd_mr_create_fast(struct nicd_pd *pd, struct nicd_mr **ret);
NICD_API int nicd_mr_create_fast_async(struct nicd_pd *pd, struct nicd_mr **ret, nicd_callback cb, void *userdata);
/*
 * CREATED → FREE, for registrations of up to `pages` pages of 4,096 bytes (1 to max_fast_pages of the adapter, else -E2BIG, PAGE_COUNT), which may
 * ask for remote rights if remote_access is not 0. In FREE again with other arguments, too. The MR has tokens from now on, but while it is
 * FREE they grant nothing. -EBUSY: in another state (MR_STATE). NDK: NdkInitializeFastRegisterMr
 * (nc-ndkpi-ndk_fn_initialize_fast_register_mr).
 */
NICD_API int nicd_mr_init_fast_register(struct nicd_mr *mr, uint32_t pages, int remote_access);
NICD_API int nicd_mr_init_fast_register_async(struct nicd_mr *mr, uint32_t pages, int remote_access, nicd_callback cb, void *userdata);
/*
 * FREE → VALID, as work of the Qp: after what was posted on it before and has not read its memory yet, with NICD_OP_READ_FENCE also after
 * its reads. Each one has new tokens: nicd_mr_local_token() and so on tell them. With remote rights a peer may invalidate it by a
 * message, and NICD_EVENT_REMOTE_INVALIDATED tells. Errors, all before anything is sent to the device: -EBUSY (MR_STATE), -EINVAL
 * (PAGES_BEYOND, FIRST_BYTE, LENGTH_ZERO, LENGTH_BEYOND, IOVA_ZERO, IOVA_MISFIT, PD_MISMATCH), -EOVERFLOW, -EACCES (NO_REMOTE_ACCESS,
 * MEMORY_READ_ONLY), -ENOTCONN (QP_STATE), -EDQUOT. After that: -ECONNRESET, -ECANCELED: the Qp ended first. NDK: NdkFastRegister
 * (nc-ndkpi-ndk_fn_fast_register).
 */
NICD_API int nicd_mr_fast_register(struct nicd_mr *mr, const struct nicd_fast_attr *attr);
NICD_API int nicd_mr_fast_register_async(struct nicd_mr *mr, const struct nicd_fast_attr *attr, nicd_callback cb, void *userdata);
/*
 * VALID → FREE, as work of this Qp, which may be another one of the PD. Success says that nobody can touch the memory by these tokens
 * any more. `flags`: NICD_OP_SILENT_SUCCESS, _READ_FENCE, _DEFER. `ret` may be NULL. Errors: -EBUSY (MR_STATE: not VALID, maybe because a
 * peer was faster; WINDOW_BOUND), -EINVAL (MR_KIND, PD_MISMATCH), -ENOTCONN (QP_STATE), -EINPROGRESS as for nicd_mr_deregister(), -EIO
 * (DEVICE_FAILED: try again). NDK: NdkInvalidate (nc-ndkpi-ndk_fn_invalidate).
 */
NICD_API int nicd_mr_invalidate(struct nicd_mr *mr, struct nicd_qp *qp, uint32_t flags, struct nicd_receipt *ret);
NICD_API int nicd_mr_invalidate_async(struct nicd_mr *mr, struct nicd_qp *qp, uint32_t flags, struct nicd_receipt *ret, nicd_callback cb,
				      void *userdata);

/* ----------------------------------------------------------------------------------------------------------- mappings */

/*
 * Gives 1 to 16 ranges, joined at pages as in nicd_mr_register(), one logical address: for nicd_fast_attr.mapping, and for
 * work requests with the privileged token. It is drawn at random and names no physical memory. Errors, as of
 * nicd_mr_register(): -EINVAL (COUNT, LENGTH_ZERO, RANGE_BEYOND, RANGE_NOT_JOINED), -EOVERFLOW, -E2BIG, -EDQUOT, -ENOMEM,
 * -ENODEV. NDK: NdkBuildLam (nc-ndkpi-ndk_fn_build_lam).
 */
NICD_API int nicd_mapping_build(struct nicd *n, const struct nicd_range *ranges, unsigned n_ranges, struct nicd_mapping **ret);
NICD_API int nicd_mapping_build_async(struct nicd *n, const struct nicd_range *ranges, unsigned n_ranges,
				      struct nicd_mapping **ret, nicd_callback cb, void *userdata);
NICD_API uint64_t nicd_mapping_address(const struct nicd_mapping *mapping); /* of the first byte; 0 until it is answered */
NICD_API uint64_t nicd_mapping_length(const struct nicd_mapping *mapping);  /* bytes */
NICD_API uint32_t nicd_mapping_pages(const struct nicd_mapping *mapping);   /* of 4,096 bytes, the first and last maybe in part */
NICD_API uint64_t nicd_mapping_serial(const struct nicd_mapping *mapping);  /* 0 until it is answered */
/*
 * The answer comes when no fast registration uses it any more and no work request by its addresses is under way; so the
 * waiting call blocks until another thread's, or the peer's, doing ends those. NDK: NdkReleaseLam
 * (nc-ndkpi-ndk_fn_release_lam).
 */
NICD_API int nicd_mapping_close(struct nicd_mapping *mapping);
NICD_API int nicd_mapping_close_async(struct nicd_mapping *mapping, nicd_callback cb, void *userdata);

/*
 * The privileged token of the PD: as local_token of work requests on its Qps it reads and writes what this session has
 * mapped, at logical addresses, without registration. One range of a request lies within one mapping, else its completion
 * is -EFAULT (LOCAL_RANGE). The same for the PD's life, and never of any use to a peer. -EACCES (PRIVILEGED_DENIED): policy
 * does not give you one (nicd_adapter_info.privileged_token says so before). NDK: NdkGetPrivilegedMemoryRegionToken
 * (nc-ndkpi-ndk_fn_get_privileged_memory_region_token).
 */
NICD_API int nicd_pd_privileged_token(struct nicd_pd *pd, uint32_t *ret);
NICD_API int nicd_pd_privileged_token_async(struct nicd_pd *pd, uint32_t *ret, nicd_callback cb, void *userdata);

/* ------------------------------------------------------------------------------------------------------------ windows */

/* What to bind. */
struct nicd_bind_attr {
	uint32_t size;
	uint32_t flags;          /* NICD_OP_REMOTE_READ, _REMOTE_WRITE, at least one; _SILENT_SUCCESS, _READ_FENCE, _DEFER */
	struct nicd_mr *mr;      /* registered, of the window's PD. It needs no remote right; remote write needs its local write */
	struct nicd_qp *qp;      /* connected, of the window's PD: its peer, and nobody else, may use the window */
	uint64_t iova;           /* as peers address the MR: from nicd_mr_iova(mr) on */
	uint64_t length;         /* bytes, > 0; iova + length within the MR */
};

/* Makes a window, FREE. Errors: -EDQUOT (QUOTA). NDK: NdkCreateMw (nc-ndkpi-ndk_fn_create_mw). */
NICD_API int nicd_mw_new(struct nicd_pd *pd, struct nicd_mw **ret);
NICD_API int nicd_mw_new_async(struct nicd_pd *pd, struct nicd_mw **ret, nicd_callback cb, void *userdata);
/*
 * FREE → BOUND, as work of the Qp: after what was posted on it before and has not read its memory yet, with NICD_OP_READ_FENCE also after
 * its reads. Then the functions below say by which token and where the peer reaches the window. An MR may have many windows, which may
 * overlap; a Qp 4,096. The MR cannot be deregistered before they are gone (-EBUSY, WINDOW_BOUND), and closing it waits for them.
 *
 * Errors, all before anything is sent to the device: -EBUSY (MW_STATE: it is bound; MR_STATE: the MR is not registered), -EINVAL (PD_MISMATCH,
 * FLAGS: no right, LENGTH_ZERO, WINDOW_RANGE), -EOVERFLOW, -EACCES (WINDOW_RIGHTS: remote write without the MR's local write), -ENOTCONN
 * (QP_STATE), -ENOSPC (QP_WINDOWS), -EDQUOT. After that: -ECONNRESET, -ECANCELED: the Qp ended first. NDK: NdkBind (nc-ndkpi-ndk_fn_bind).
 */
NICD_API int nicd_mw_bind(struct nicd_mw *mw, const struct nicd_bind_attr *attr);
NICD_API int nicd_mw_bind_async(struct nicd_mw *mw, const struct nicd_bind_attr *attr, nicd_callback cb, void *userdata);
/*
 * What the last bind answered; all 0 before it, and after nicd_mw_invalidate. They don't ask nicd: when the Qp ends, or somebody else revokes
 * the window, NICD_EVENT_REVOKED tells, when the peer invalidates it NICD_EVENT_REMOTE_INVALIDATED, and these stay; it is FREE then.
 */
NICD_API uint32_t nicd_mw_remote_token(const struct nicd_mw *mw); /* rkey (STag), for the peer */
NICD_API uint64_t nicd_mw_iova(const struct nicd_mw *mw);
NICD_API uint64_t nicd_mw_length(const struct nicd_mw *mw);       /* bytes */
NICD_API uint32_t nicd_mw_flags(const struct nicd_mw *mw);        /* NICD_MR_REMOTE_READ, _REMOTE_WRITE */
NICD_API uint32_t nicd_mw_generation(const struct nicd_mw *mw);   /* counts binds */
NICD_API uint64_t nicd_mw_serial(const struct nicd_mw *mw);       /* 0 until making it is answered */
/* Asks nicd. State BOUND, else -EBUSY (MW_STATE). NDK: NdkGetRemoteTokenFromMw (nc-ndkpi-ndk_fn_get_remote_token_from_mw). */
NICD_API int nicd_mw_get_remote_token(struct nicd_mw *mw, uint32_t *ret);
NICD_API int nicd_mw_get_remote_token_async(struct nicd_mw *mw, uint32_t *ret, nicd_callback cb, void *userdata);
/*
 * BOUND → FREE, as work of this Qp, which may be another one of the PD. Success says that the peer can no longer touch the memory by
 * the window. `flags`: NICD_OP_SILENT_SUCCESS, _READ_FENCE, _DEFER. `ret` may be NULL. Errors: -EBUSY (MW_STATE: not bound), -EINVAL
 * (PD_MISMATCH), -ENOTCONN (QP_STATE), -EIO (DEVICE_FAILED: try again). NDK: NdkInvalidate (nc-ndkpi-ndk_fn_invalidate).
 */
NICD_API int nicd_mw_invalidate(struct nicd_mw *mw, struct nicd_qp *qp, uint32_t flags, struct nicd_receipt *ret);
NICD_API int nicd_mw_invalidate_async(struct nicd_mw *mw, struct nicd_qp *qp, uint32_t flags, struct nicd_receipt *ret,
				      nicd_callback cb, void *userdata);
/* Any state; invalidates first, at once. NDK: NdkCloseMw (nc-ndkpi-ndk_fn_close_object). */
NICD_API int nicd_mw_close(struct nicd_mw *mw);
NICD_API int nicd_mw_close_async(struct nicd_mw *mw, nicd_callback cb, void *userdata);

/*
 * Cancels what is posted, receives too: those calls get -ECANCELED, silent ones too, in the order in which they were posted; then
 * this one is answered. MRs stay registered. NDK: NdkFlush (nc-ndkpi-ndk_fn_flush).
 */
NICD_API int nicd_qp_flush(struct nicd_qp *qp);
NICD_API int nicd_qp_flush_async(struct nicd_qp *qp, nicd_callback cb, void *userdata);
/* Graceful; flushes first. The handle stays. NDK: NdkDisconnect (nc-ndkpi-ndk_fn_disconnect). */
NICD_API int nicd_qp_disconnect(struct nicd_qp *qp);
NICD_API int nicd_qp_disconnect_async(struct nicd_qp *qp, nicd_callback cb, void *userdata);
/* Any state; disconnects first. */
NICD_API int nicd_qp_close(struct nicd_qp *qp);
NICD_API int nicd_qp_close_async(struct nicd_qp *qp, nicd_callback cb, void *userdata);

/* ---------------------------------------------------------------------------------------------------------------- doors */

struct nicd_ticket_attr {
	uint32_t size;
	uint32_t uses;    /* how often a peer may connect; 0: 1 */
	uint32_t ttl_ms;  /* 0: 60,000 */
	uint32_t peers;   /* connected at the same time, paid for by you; 0: the smaller of uses and 16 */
};

/*
 * NDK's own model: whoever holds the locator may connect to the MR's PD and then use every remote token of that PD. The
 * locator carries token, iova, length and rights of `mr`. State REGISTERED with remote rights. `attr` may be NULL.
 * Errors: -EBUSY (MR_STATE), -EACCES (NO_REMOTE_RIGHTS), -EINVAL (VALUE). NDKPI has none: there the consumer listens and accepts, and tells its
 * peers tokens by itself.
 */
NICD_API int nicd_ticket_create(struct nicd_mr *mr, const struct nicd_ticket_attr *attr, struct nicd_ticket **ret);
NICD_API int nicd_ticket_create_async(struct nicd_mr *mr, const struct nicd_ticket_attr *attr, struct nicd_ticket **ret,
				      nicd_callback cb, void *userdata);
/* "nicd1:…": treat it like a password. Lives as long as the handle; "" until creating is answered. */
NICD_API const char *nicd_ticket_locator(const struct nicd_ticket *ticket);
NICD_API const struct nicd_grant *nicd_ticket_grant(const struct nicd_ticket *ticket);
NICD_API uint64_t nicd_ticket_serial(const struct nicd_ticket *ticket);
/* Revokes it. */
NICD_API int nicd_ticket_close(struct nicd_ticket *ticket);
NICD_API int nicd_ticket_close_async(struct nicd_ticket *ticket, nicd_callback cb, void *userdata);

struct nicd_export_attr {
	uint32_t size;
	uint32_t flags;    /* NICD_MR_REMOTE_READ, NICD_MR_REMOTE_WRITE; not more than the MR has */
	const char *name;  /* unique in the account: 1 to 255 bytes of UTF-8 without control characters and '/' */
	uint64_t offset;   /* bytes, in the MR */
	uint64_t length;   /* bytes; 0: to the end */
	uint32_t uses;     /* 0: 1 */
	uint32_t ttl_ms;   /* 0: 24 h */
	uint32_t peers;    /* connected at the same time, paid for by you; 0: the smaller of uses and 16 */
	uint32_t reserved;
};

/*
 * Gives a range of an MR a name and a token of its own over exactly that range and these rights. Whoever holds the
 * locator may connect and touch only this export. State REGISTERED. It dies with the registration, and stays, dead,
 * until it is closed. Errors: -EBUSY (MR_STATE), -EACCES (NO_REMOTE_RIGHTS, RIGHTS_EXCEED), -EEXIST (NAME_TAKEN),
 * -EINVAL (STRING, FLAGS, RANGE_…, VALUE). NDKPI has none.
 */
NICD_API int nicd_export_create(struct nicd_mr *mr, const struct nicd_export_attr *attr, struct nicd_export **ret);
NICD_API int nicd_export_create_async(struct nicd_mr *mr, const struct nicd_export_attr *attr, struct nicd_export **ret,
				      nicd_callback cb, void *userdata);
NICD_API const char *nicd_export_locator(const struct nicd_export *door);
NICD_API const struct nicd_grant *nicd_export_grant(const struct nicd_export *door);
NICD_API uint64_t nicd_export_serial(const struct nicd_export *door);
/* Revokes it; peers that came in by it are cut. 0, or -EINPROGRESS. */
NICD_API int nicd_export_close(struct nicd_export *door);
NICD_API int nicd_export_close_async(struct nicd_export *door, nicd_callback cb, void *userdata);

/* ---------------------------------------------------------------------------------------------------------------- lists */

/* One object, as nicd sees it. Strings live until the next page is fetched. */
struct nicd_item {
	uint32_t size;
	uint32_t type;           /* NICD_TYPE_… */
	uint64_t serial;
	uint64_t session;        /* serial */
	uint64_t parent;         /* serial. Qp, MR: PD; export, ticket, window (bound): MR; grant: export */
	const char *account;
	const char *state;
	const char *name;        /* export, adapter, label of a session; "" */
	const char *peer;        /* Qp, grant; "" */
	uint32_t pid, uid;       /* session; a label, not an authority */
	uint64_t length;         /* bytes */
	uint64_t iova;
	uint32_t flags;          /* effective rights */
	/* memory: ranges naming it; PD: MRs, Qps, tickets and exports; session: objects; ticket, export: uses left; Qp: work in flight */
	uint32_t count;
	uint64_t bytes_read, bytes_written, peer_read, peer_written; /* as in nicd_qp_info */
	uint64_t since_ns;       /* CLOCK_REALTIME, ns */
	uint64_t until_ns;       /* 0: no end */
	uint32_t inbound, alive; /* 1 or 0 */
	uint64_t qp;             /* window: serial of the Qp whose peer may use it */
	uint32_t fast_register;  /* MR: 1 or 0 */
	uint32_t reserved;
};

/*
 * What there is of one type: of the caller's account, or of all for the admin role. NDKPI has none. Asks nothing yet:
 *
 *	while ((count = nicd_list_fetch(list)) > 0)
 *		while ((item = nicd_list_next(list)))
 *			…
 */
NICD_API int nicd_list_new(struct nicd *n, uint32_t type, struct nicd_list **ret);
/*
 * Who can touch this MR, window or export (a serial): its grants, inbound Qps of its PD, and Qps whose peers have a window. fetch: -ENOENT when there is no
 * such.
 */
NICD_API int nicd_list_who(struct nicd *n, uint64_t serial, struct nicd_list **ret);
/*
 * The next page, in place of the last one: how many items it has, 0 at the end. Pages that are empty before the end are passed over.
 * -EBUSY: a fetch is under way.
 */
NICD_API int nicd_list_fetch(struct nicd_list *list);
/* When the callback has got 0 and nicd_list_next() gives nothing at once, that was the end. */
NICD_API int nicd_list_fetch_async(struct nicd_list *list, nicd_callback cb, void *userdata);
/* The next item of this page; NULL: no more. */
NICD_API const struct nicd_item *nicd_list_next(struct nicd_list *list);
/* NULL is allowed. The callback of a fetch under way is still called, with -ECANCELED. */
NICD_API void nicd_list_free(struct nicd_list *list);

/*
 * Ends remote access by serial: of an MR (like nicd_mr_deregister, with its exports and windows), window, export, ticket, Qp, or all of a
 * session. Own account, or any for the admin role. `ret` may be NULL. -ENOENT: no such serial that you may see;
 * -EINPROGRESS as for nicd_mr_deregister(). NDKPI has none: memory is its owner's alone.
 */
NICD_API int nicd_revoke(struct nicd *n, uint64_t serial, struct nicd_receipt *ret);
NICD_API int nicd_revoke_async(struct nicd *n, uint64_t serial, struct nicd_receipt *ret, nicd_callback cb, void *userdata);

struct nicd_charge {
	const char *slot;     /* "mrs", "pinned bytes", … */
	uint64_t used, max;
};
struct nicd_account {
	uint32_t size;
	uint32_t n_charges;
	const char *account;
	const struct nicd_charge *charges;
};
/* A cap on peers' connections; never changes. */
struct nicd_cap {
	uint32_t size;
	uint32_t counted;           /* `now` is known; not so for a cap on each address or PD */
	const char *adapter;
	const char *name;           /* of the device's option, "--max-streams" */
	uint64_t limit, now;        /* connections */
	uint64_t refused;           /* that did not come in, or were closed, for it since the device started */
};
struct nicd_ledger_totals {
	uint32_t size;
	uint32_t sessions;          /* of clients */
	uint32_t admin_sessions;
	uint32_t open_fds;          /* of the daemon, as the kernel counts */
	uint32_t held_fds;          /* client memory */
	uint32_t reserved;
	uint64_t objects;           /* live, without adapters and sessions */
	uint64_t calls;             /* requests in flight, without this one */
	uint64_t provider_tags, provider_memories, provider_streams, provider_tickets; /* as the device counts */
	uint64_t quarantined;       /* objects whose device never confirmed */
	/*
	 * For admins: turns of the daemon's loop since an admin last asked, how many took more than 1,000 us, and the longest, in us, by the
	 * wall and by the processor's time of the thread (this one is measured for 60 s after each look); the same of the devices' loops.
	 */
	uint64_t turns, slow_turns, longest_turn_us, longest_turn_cpu_us;
	uint64_t provider_turns, provider_slow_turns, provider_longest_turn_us, provider_longest_turn_cpu_us;
	/* For admins: what the devices let in of peers' connections. Valid until the next fetch. */
	const struct nicd_cap *caps;
	uint64_t n_caps;
};

/*
 * Every object, fd, pinned byte and charge, by account: of the caller's, or of all for the admin role. Works like a
 * list; the totals are those of the last page fetched. NDKPI has none.
 */
NICD_API int nicd_ledger_new(struct nicd *n, struct nicd_ledger **ret);
NICD_API int nicd_ledger_fetch(struct nicd_ledger *ledger);
NICD_API int nicd_ledger_fetch_async(struct nicd_ledger *ledger, nicd_callback cb, void *userdata);
NICD_API const struct nicd_account *nicd_ledger_next(struct nicd_ledger *ledger);
NICD_API const struct nicd_ledger_totals *nicd_ledger_total(const struct nicd_ledger *ledger);
NICD_API void nicd_ledger_free(struct nicd_ledger *ledger);

#ifdef __cplusplus
}
#endif

#endif
