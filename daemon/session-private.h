/* SPDX-License-Identifier: MIT */
#pragma once
/* The inside of struct session, for session.c (its life) and session-io.c (what goes through its socket) only. */
#include "daemon/session.h"

enum session_state { SESSION_OPEN, SESSION_LAST_WORDS, SESSION_RELEASING, SESSION_WAITING };

struct session {
	struct sessions *sessions;
	struct client *client;
	TAILQ_ENTRY(session) of_list;      /* open */
	TAILQ_ENTRY(session) of_greeting;  /* those that have not said Hello */
	TAILQ_ENTRY(session) of_starving;
	STAILQ_ENTRY(session) of_dirty;
	struct nic_fair_item reading;      /* something is there to read: waits for its account's turn */
	struct nic_fair_item releasing;    /* the same with objects to close */
	enum session_state state;
	bool dirty;
	bool kicked;
	bool greeting;
	bool starving;
	bool blocked;                      /* the socket takes no more */
	bool pid_watched;
	struct wire_pace pace;
	int fd, pidfd;
	int events;                        /* polled for */
	unsigned open_handles;
	uint64_t since_ms;                 /* when it was accepted */
	uint64_t progress_ms;              /* when something was sent last */
	uv_poll_t poll;
	uv_poll_t pid_poll;                /* policy bind-to-pid */
};

static inline struct nic_fair_queue *session_turns(const struct session *session, enum nic_turn turn)
{
	return &session->client->owner.account->turns[turn];
}

/* session.c */
void session_end(struct session *session, const char *why);
void session_free(struct session *session);
void session_log(const struct session *session, int priority, const char *what);

/* session-io.c */
uint32_t session_reserve(bool admin);
/* Descriptors that are closed from now on are this client's. */
void session_blame(const struct session *session);
void session_mark(struct session *session);
void session_unmark(struct session *session);
/* Polls for what there is reason to wait for. */
void session_poll(struct session *session);
/* It ends: nothing of it waits here any more. */
void session_forget(struct session *session);
/* Watches over those that are slow to greet, or to read. */
void session_greets(struct session *session);
void sessions_io_init(struct sessions *sessions);
/* True: some may be read again, or must be ended; called at the end of a turn. */
void sessions_watch(struct sessions *sessions);
