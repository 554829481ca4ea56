/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The model: what nicd must answer, written from Microsoft's description of NDK and from the comments of nicd.proto, in lists that are
 * searched from the start. It hears everything that happens, in the order in which it happens (a request is started, a reply is queued, a
 * command goes to the device and ends, the device tells something), and ends the process when something happened that must not. It shares no
 * file with nicd/ and daemon/: its own types, its own numbers (say.h).
 *
 * What a live session holds is known exactly. What a session that is being released holds is known from above (all it had) and from below
 * (what the device has of it), until it is gone.
 */
#include "tests/sim/say.h"

enum { MODEL_CLIENTS = 8, MODEL_ACCOUNTS = 4, MODEL_ADAPTERS = 16, MODEL_OBJECTS = 8192, MODEL_REQUESTS = 16384, MODEL_COMMANDS = 65536 };

struct model_terms {
	uint64_t max[SLOT_COUNT];   /* of every account */
	uint64_t revoke_timeout_ns;
	uint32_t max_calls, max_news;
	bool privileged;            /* tokens of that kind are given */
	bool narrow;                /* requests for the device may have to wait for those before them */
	uint64_t max_registration, max_transfer;
	unsigned attach_percent, tag_percent;   /* of the bytes: what the device says it costs */
};

enum m_state {
	M_CREATED, M_REGISTERING, M_REGISTERED, M_REVOKING, M_ERROR,          /* MR */
	M_INITIALIZING, M_FREE, M_VALID_PENDING, M_VALID, M_INVALIDATING,     /* and one for fast registration */
	M_BIND_PENDING, M_BOUND,                                              /* window; with FREE, INVALIDATING and ERROR */
	M_BUILDING, M_BUILT, M_DROPPING,                                      /* mapping */
	M_OPENING, M_OPEN, M_EXPIRED, M_CLOSING, M_DEAD,                      /* ticket, export */
	M_CONNECTING, M_CONNECTED, M_DISCONNECTING, M_DISCONNECTED,           /* Qp */
};

enum m_attached { M_NOT_ATTACHED, M_ATTACHING, M_ATTACHED, M_DETACHING, M_DETACH_FAILED };

struct m_range {
	struct m_object *memory;
	uint64_t offset, length;
};

struct m_object {
	enum sim_type type;
	bool over;                      /* it is not there any more */
	bool closing;                   /* its id is void */
	int client;                     /* -1: an adapter */
	int account;
	uint64_t serial, id;
	struct m_object *parent;        /* PD: adapter; MR, Qp, door: PD; grant: door */
	struct m_object *mr;            /* export: of a living one */
	uint32_t owed, may;             /* events that its owner must, and may, be told: 1 << kind */
	enum m_state state;
	uint64_t since;                 /* its revocation began */
	bool tag, door;                 /* what the device holds of it, or is about to */
	unsigned inflight;              /* commands on it */
	bool promised, killed, expired;
	bool stuck;                     /* the device refused to let go, and will be asked again later */
	bool unheard;                   /* whoever revokes it has gone, and will not hear that it takes long */
	/* Memory */
	uint64_t size;
	uint32_t page;
	bool writable, named;
	uint32_t fd;
	enum m_attached attached[MODEL_ADAPTERS];
	/* MR, export, window, mapping */
	uint64_t iova, length;
	uint32_t rights, generation, local, remote;
	unsigned n_ranges;
	struct m_range ranges[SIM_RANGES];
	unsigned n_died;                /* exports, in the revocation under way */
	uint64_t died[64];
	uint32_t grants;                /* ended by its revocation */
	char name[32];
	uint32_t max_streams, streams;
	uint8_t hash[32];
	uint64_t mr_serial;
	uint64_t notified, notified_by, told;   /* how often, by which Qp last; what its owner has heard. notified: of a Qp, too */
	/* MR for fast registration */
	bool fast, remote_access, reserved;
	uint32_t pages, reserved_local, reserved_remote;
	uint64_t reservation;           /* serial of the tag whose tokens grant nothing */
	struct m_object *mapping;       /* named by what is registered */
	struct m_object *work_of;       /* the Qp that waits for it */
	/* Window; and MR for fast registration */
	struct m_object *qp;            /* whose peer may use it, or whose work it is; NULL: it has ended */
	bool fence;
	uint32_t verdict;               /* by what the device said: what may be answered to who registers or binds it; 0: it has not spoken */
	bool ordered;                   /* its drop waits for work of a Qp, unless it is overtaken */
	bool left;                      /* it stands on no MR any more, and something of it is still under way */
	bool let_go;                    /* the device has dropped it, and its state is about to follow */
	/* Qp */
	bool inbound, gone;
	unsigned works, receives;       /* at the device */
	unsigned holds;                 /* fast registrations that are its work */
	uint64_t stream;
	struct m_object *by_door;
	struct m_object *grant;         /* Qp: its grant */
	uint64_t came_by;               /* serial */
	unsigned aborts;
	/* adapter; mapping: where it is, -1: nowhere any more */
	bool up, lost;
	int adapter;
	uint32_t key;                   /* PD: its privileged one */
};

struct m_request {
	struct sim_request say;
	int client;
	bool started, answered, is_call;
	uint32_t allowed;               /* what may be answered: 1 << status */
	bool now;                       /* it is decided: answered before anything else of this frame starts */
	struct m_object *object;        /* what it makes, or is about */
	struct m_object *brought;       /* the Memory of its descriptor */
	unsigned commands;              /* of it, at the device */
	uint32_t ended;                 /* the status with which its last command ended, 1 << status */
	uint64_t at;                    /* when it was started */
	uint64_t order;                 /* and after how many others */
	bool posted;                    /* the device had its work */
	struct sim_completion completion;
	uint64_t result;
	bool ok;
	uint64_t refused_at;            /* ConnectQp: not answered before this */
	uint32_t session;               /* Revoke of one: client + 1 */
	unsigned n_results;             /* of requests it waits for */
	struct m_request *results[SIM_RANGES + 3];
	bool waiting, waited;           /* for the results of others */
};

struct m_command {
	enum sim_op op;
	bool live;
	struct m_object *object;
	struct m_request *request;
	int adapter;
	bool abort;
	bool receive;
	bool reserve;                   /* about tokens that grant nothing */
	bool counts;                    /* and yet: its success says that the tag is gone */
	bool aside;                     /* beside another one of the same object, whose end counts */
	struct m_object *qp;            /* in the order of whose work it is */
	uint64_t buffered;
	int account;
};

struct m_client {
	bool there, ready, dying, fatal, kicked;
	bool full;                      /* its output is above the limit */
	uint64_t output;                /* bytes that it has not read */
	bool slow;                      /* it does not read now */
	bool resynced;                  /* events may have been lost since */
	int account;
	enum sim_role role;
	bool admin_socket;
	uint64_t serial;
	unsigned n_live;
	struct m_request *live[1024];   /* not answered */
	uint32_t owed_device;           /* adapters: 1 << index */
	uint32_t may_device;
	unsigned n_frame;
	struct m_request *frame[64];    /* the last frame */
};

struct m_tag {
	uint64_t serial;
	uint32_t generation, local, remote;
};

struct model {
	struct model_terms terms;
	uint64_t now;
	bool oom;                       /* memory was refused in this turn */
	bool armed;                     /* or will be, soon */
	unsigned n_saved, n_saved_live; /* how it was before a request that memory may be refused to */
	struct m_object saved[1024];
	struct m_object *saved_live[1024];
	struct m_request *saved_for;
	bool draining;
	struct m_client clients[MODEL_CLIENTS];
	unsigned n_objects, n_live, n_requests, n_commands;
	struct m_object objects[MODEL_OBJECTS];
	struct m_object *live[MODEL_OBJECTS];
	struct m_request requests[MODEL_REQUESTS];
	struct m_command commands[MODEL_COMMANDS];
	unsigned n_adapters;
	struct m_object *adapters[MODEL_ADAPTERS];
	uint64_t buffered[MODEL_ACCOUNTS];   /* entries of lists at the device */
	uint64_t receives[MODEL_ACCOUNTS];   /* at the device */
	uint64_t n_started;
	struct m_request *current;      /* what is being started, or whose command is ending */
	unsigned n_released;            /* tokens, not to come again for 10 s */
	struct {
		uint32_t token;
		int adapter;
		uint64_t at;
	} released[4096];
	uint64_t statuses[CALL_COUNT][32];   /* how often each was answered, over all runs */
	uint64_t events[16];
};

void model_init(struct model *m, const struct model_terms *terms);
void model_now(struct model *m, uint64_t now);
void model_oom(struct model *m);

/* A session is let in, or not. */
void model_accept(struct model *m, int client, int account, enum sim_role role, bool admin_socket, uint64_t serial);
void model_not_accepted(struct model *m, int account, bool admin_socket);
/* Its socket ended, or nicd ended it: nobody hears answers any more. */
void model_dying(struct model *m, int client);
void model_gone(struct model *m, int client);
void model_kick(struct model *m, int client);

/* A frame is given to nicd; `bad`: it breaks the protocol. */
void model_frame(struct model *m, int client, const struct sim_request *requests, unsigned n, bool bad);
void model_start(struct model *m, int client, uint32_t id);
/* The object that a request which is not answered yet is making. */
void model_named(struct model *m, int client, uint32_t request, uint64_t serial, uint64_t id);
void model_started(struct model *m);
void model_reply(struct model *m, int client, const struct sim_reply *reply);
/* Its success need not be told at once. */
bool model_is_silent(struct model *m, int client, uint32_t request);
void model_event(struct model *m, int client, enum sim_event kind, uint64_t object, uint64_t serial, uint64_t count);
void model_fatal(struct model *m, int client);

int model_adapter(struct model *m, uint64_t serial, uint64_t id);
void model_adapter_down(struct model *m, int adapter);
void model_adapter_lost(struct model *m, int adapter);
void model_adapter_gone(struct model *m, int adapter);
/* Commands have numbers, from 0. */
void model_command(struct model *m, int adapter, unsigned number, enum sim_op op, uint64_t serial, const struct sim_op_args *args);
/* Of work: before its end. */
void model_completed(struct model *m, unsigned number, const struct sim_completion *completion);
void model_command_end(struct model *m, unsigned number, uint32_t status, uint32_t local, uint32_t remote);
/* After what the end of a command, or news of the device, led to. */
void model_command_over(struct model *m);
void model_stream_opened(struct model *m, int adapter, uint64_t stream, uint64_t door, uint64_t qp, uint64_t id, uint64_t grant);
void model_stream_closed(struct model *m, int adapter, uint64_t stream);
void model_stream_notified(struct model *m, int adapter, uint64_t stream, uint64_t count);
/* A peer took a tag away. False: nicd has nothing to do about it. */
bool model_tag_invalidated(struct model *m, int adapter, const struct m_tag *tag);
/* It went with the stream of its peer. */
void model_tag_gone(struct model *m, int adapter, const struct m_tag *tag);
void model_door_expired(struct model *m, int adapter, uint64_t door);

/* What follows from what a session that is being released let go of. */
void model_settle(struct model *m);
/* The end of a turn: nothing that can be answered is not. */
void model_turn(struct model *m);
/* Everything was given time: nothing is open. */
void model_quiet(struct model *m);

/* What each account pays for, at least and at most; how many objects of each type there are. */
struct model_usage {
	uint64_t low[SLOT_COUNT], high[SLOT_COUNT];
};
enum { MODEL_PLENTY = 4096 };
void model_usages(const struct model *m, struct model_usage usages[MODEL_ACCOUNTS]);
void model_counts(const struct model *m, uint64_t low[T_COUNT], uint64_t high[T_COUNT]);
struct m_object *model_find(const struct model *m, int client, uint64_t id);
struct m_object *model_serial(const struct model *m, uint64_t serial);
