/* SPDX-License-Identifier: MIT */
/*
 * The life of fast-register memory regions: as normal.pml, and
 *
 *   registering and invalidating are work of a stream, which may let a drop wait for ever; a revocation overtakes such a drop;
 *   peers invalidate, and the news of that comes at any time, even when what it is about is long over;
 *   initializing reserves tokens, which are kept until the MR ends;
 *   others revoke.
 *
 * An orphan is a drop that was overtaken. Once the MR is registered again it is of a generation that the device does not have, so it is
 * forgotten here.
 */
#include "life.pml"
#include "cell.pml"

#ifndef MRS
#define MRS 3
#endif
#ifndef PEERS
#define PEERS 2
#endif
#define BUDGET 1   /* so many may be pinned */
#define NONE MRS

/*
 * NARROW leaves out what one client's life is about and others' add nothing to: a device that refuses or gets lost, streams that stand still,
 * others who revoke, news that come too late; and it begins initialized.
 */
#ifdef NARROW
#define wide false
#define FIRST_STATE FAST_FREE
#else
#define wide true
#define FIRST_STATE FAST_CREATED
#endif

mtype = { NOBODY, CALLER, PROMISED };        /* who waits for an outcome; PROMISED: was told REVOKE_PENDING, is owed REVOKE_CONFIRMED */
mtype = { IDLE, RESERVE, RELEASE, ADD, DROP, DONE, REFUSED };
mtype = { OUT, IN, DYING };                  /* a tag at the device */
mtype = { ABSENT, OPEN, CLOSING };           /* the MR as its client sees it */

/* nicd */
mtype state[MRS] = FIRST_STATE;
mtype handle[MRS] = OPEN;
mtype waits[MRS] = NOBODY;
bool retry[MRS];      /* the device refused, and nobody is there to ask again: the deadline will */
bool armed[MRS];      /* the deadline */
bool ordered[MRS];    /* the drop under way is work of a stream */
bool gone[MRS];       /* a peer has invalidated it before we heard that it is there */
bool pinned[MRS];     /* charged */
byte n_pinned;
bool crashed[MRS];

/* the device */
mtype wire[MRS] = IDLE;
bool orphan[MRS];
bool reserved[MRS] = !wide;
mtype tag[MRS] = OUT;
bool invalidated[MRS];               /* DYING by a peer's message */
bool news[MRS], old_news[MRS];       /* of that, on its way; of an earlier registration */
byte use[PEERS] = NONE;
bool up = true;
#ifdef REFUSALS   /* so many, and no more */
byte refusals;
#define may_refuse (refusals < REFUSALS)
#define count_refusal refusals++
#else
#define may_refuse wide
#define count_refusal skip
#endif

/* Nobody has been told that it is over. */
bool may_touch[MRS];

/* Taking a cell of nicd's table, and being refused by one. */
#define go(i, step, to) cell(state[i], step, to); state[i] = to
#define stay(i, step) cell(state[i], step, state[i])
#define no(i, step, why) cell(state[i], step, why)

/* ---- nicd: ends and answers */

/* The outcome of what was called; `over`: it says that the MR cannot be touched any more. */
inline answer(i, over)
{
	if
	:: waits[i] == CALLER && over -> may_touch[i] = false
	:: waits[i] == PROMISED -> assert(over); may_touch[i] = false   /* REVOKE_CONFIRMED */
	:: else
	fi;
	waits[i] = NOBODY
}

/* The last thing that is heard of an MR. */
inline ended(i)
{
	assert(handle[i] == CLOSING && (state[i] == FAST_FREE || state[i] == FAST_CREATED) && waits[i] == NOBODY && wire[i] == IDLE);
	assert(!pinned[i] && !armed[i] && !retry[i] && !reserved[i]);
	handle[i] = ABSENT;
	may_touch[i] = false
}

/* Closing, with nothing registered. */
inline release(i)
{
	if
	:: state[i] == FAST_FREE -> wire[i] = RELEASE
	:: else -> ended(i)
	fi
}

inline release_if_closing(i)
{
	if
	:: handle[i] == CLOSING -> release(i)
	:: else
	fi
}

/* By a step that leads to FREE: nothing of a registration is left. */
inline set_free(i, step)
{
	go(i, step, FAST_FREE);
	assert(pinned[i]);
	pinned[i] = false;
	n_pinned--;
	gone[i] = false;
	ordered[i] = false
}

inline drop(i, step, in_order)
{
	go(i, step, FAST_INVALIDATING);
	armed[i] = true;
	ordered[i] = in_order;
	wire[i] = DROP
}

/* Goes on out of order with the drop under way. */
inline overtake(i)
{
	orphan[i] = wide && wire[i] == DROP;
	ordered[i] = false;
	retry[i] = false;
	armed[i] = true;
	wire[i] = DROP
}

/* ---- nicd: calls */

inline look(i, step)
{
	if
	:: state[i] == FAST_FREE || state[i] == FAST_VALID -> stay(i, step)
	:: else -> no(i, step, STATE)
	fi
}

inline bind_to(i)
{
	if
	:: state[i] == FAST_VALID -> stay(i, STEP_BIND_TO)
	:: else -> no(i, STEP_BIND_TO, STATE)
	fi
}

inline initialize(i)
{
	if
	:: state[i] == FAST_CREATED && up ->
		go(i, STEP_INITIALIZE, FAST_INITIALIZING);
		waits[i] = CALLER;
		wire[i] = RESERVE
	:: state[i] == FAST_CREATED && !up   /* NO_ADAPTER */
	:: state[i] == FAST_FREE -> stay(i, STEP_INITIALIZE)
	:: else -> no(i, STEP_INITIALIZE, STATE)
	fi
}

/* What is on its way belongs to the past from now on. */
inline age(i)
{
	orphan[i] = false;
	old_news[i] = wide && (old_news[i] || news[i]);
	news[i] = false
}

inline create(i)
{
	handle[i] = OPEN;
	state[i] = FIRST_STATE;
	reserved[i] = !wide;
	age(i)
}

inline fast_register(i)
{
	if
	:: state[i] == FAST_FREE && up && n_pinned < BUDGET ->
		go(i, STEP_FAST_REGISTER, FAST_VALID_PENDING);
		pinned[i] = true;
		n_pinned++;
		may_touch[i] = true;
		waits[i] = CALLER;
		age(i);
		wire[i] = ADD
	:: state[i] == FAST_FREE && !(up && n_pinned < BUDGET)   /* NO_ADAPTER, QUOTA: nothing was taken */
	:: else -> no(i, STEP_FAST_REGISTER, STATE)
	fi
}

inline invalidate(i)
{
	if
	:: state[i] == FAST_VALID || state[i] == FAST_ERROR ->
		waits[i] = CALLER;
		drop(i, STEP_INVALIDATE, true)
	:: else -> no(i, STEP_INVALIDATE, STATE)
	fi
}

/* By somebody else's order. */
inline revoke(i)
{
	if
	:: state[i] == FAST_VALID || state[i] == FAST_ERROR ->
		waits[i] = CALLER;
		drop(i, STEP_INVALIDATE, false)
	:: state[i] == FAST_INVALIDATING && ordered[i] -> overtake(i)
	:: else
	fi
}

inline close(i)
{
	handle[i] = CLOSING;
	if
	:: state[i] == FAST_CREATED || state[i] == FAST_FREE -> stay(i, STEP_CLOSE); release(i)
	:: state[i] == FAST_VALID || state[i] == FAST_ERROR -> drop(i, STEP_CLOSE, false)
	:: else ->
		stay(i, STEP_CLOSE);
#ifndef FAULT_WAITS_IN_ORDER
		if
		:: state[i] == FAST_INVALIDATING && ordered[i] -> overtake(i)
		:: else
		fi
#endif
	fi
}

proctype client(byte i)
{
	do
	:: atomic { handle[i] == OPEN -> look(i, STEP_GET_LOCAL_TOKEN) }
	:: atomic { handle[i] == OPEN -> look(i, STEP_GET_REMOTE_TOKEN) }
	:: atomic { handle[i] == OPEN -> bind_to(i) }
	:: atomic { handle[i] == OPEN -> no(i, STEP_REGISTER, KIND) }
	:: atomic { handle[i] == OPEN -> no(i, STEP_DEREGISTER, KIND) }
	:: atomic { handle[i] == OPEN -> no(i, STEP_BIND, KIND) }
	:: atomic { handle[i] == OPEN -> no(i, STEP_EXPORT, KIND) }
	:: atomic { handle[i] == OPEN -> initialize(i) }
	:: atomic { handle[i] == OPEN -> fast_register(i) }
	:: atomic { handle[i] == OPEN -> invalidate(i) }
	:: atomic { wide && handle[i] == OPEN -> revoke(i) }
	:: atomic { handle[i] == OPEN -> close(i) }
	:: atomic { handle[i] == ABSENT -> create(i) }
	:: break
	od;
	/* Its socket ended. */
	atomic {
		crashed[i] = true;
		if
		:: handle[i] == OPEN -> close(i)
		:: else
		fi
	};
	handle[i] == ABSENT
}

/* ---- nicd: what comes from the device, and from the clock */

inline initialized(i)
{
	go(i, STEP_DONE, FAST_FREE);
	answer(i, false);
	release_if_closing(i)
}

inline not_initialized(i)
{
	go(i, STEP_FAILED, FAST_CREATED);
	answer(i, false);
	release_if_closing(i)
}

inline registered(i)
{
	if
	:: gone[i] && handle[i] == OPEN -> set_free(i, STEP_GONE); answer(i, true)
	:: else ->
		go(i, STEP_DONE, FAST_VALID);
		gone[i] = false;
		answer(i, false);
		if
		:: handle[i] == CLOSING -> drop(i, STEP_CLOSE, false)
		:: else
		fi
	fi
}

inline not_registered(i)
{
	set_free(i, STEP_FAILED);
	answer(i, false);
	release_if_closing(i)
}

inline confirmed(i)
{
	set_free(i, STEP_DONE);
	armed[i] = false;
	answer(i, true);
	release_if_closing(i)
}

inline not_dropped(i)
{
	if
	:: handle[i] == CLOSING || waits[i] == PROMISED ->
		retry[i] = true;
		ordered[i] = false;
		armed[i] = true;
		if
		:: waits[i] == CALLER -> waits[i] = NOBODY
		:: else
		fi
	:: else ->
		go(i, STEP_FAILED, FAST_ERROR);
		armed[i] = false;
		ordered[i] = false;
		answer(i, false)
	fi
}

inline done(i)
{
	wire[i] = IDLE;
	if
	:: state[i] == FAST_INITIALIZING -> initialized(i)
	:: state[i] == FAST_VALID_PENDING && up -> registered(i)
	:: state[i] == FAST_VALID_PENDING && !up -> not_registered(i)
	:: state[i] == FAST_INVALIDATING -> confirmed(i)
	:: else -> armed[i] = false; ended(i)   /* the reservation has gone */
	fi
}

inline refused(i)
{
	wire[i] = IDLE;
	if
	:: state[i] == FAST_INITIALIZING -> not_initialized(i)
	:: state[i] == FAST_VALID_PENDING -> not_registered(i)
	:: state[i] == FAST_INVALIDATING -> not_dropped(i)
	:: else -> retry[i] = true; armed[i] = true
	fi
}

inline heard(i)
{
	if
	:: state[i] == FAST_VALID_PENDING -> gone[i] = true
	:: state[i] == FAST_VALID || state[i] == FAST_ERROR ->
		set_free(i, STEP_GONE);
		may_touch[i] = false   /* REMOTE_INVALIDATED says so */
	:: state[i] == FAST_INVALIDATING -> stay(i, STEP_GONE)
	:: else
	fi
}

inline deadline(i)
{
	armed[i] = false;
	if
	:: waits[i] == CALLER -> waits[i] = PROMISED
	:: waits[i] != CALLER && retry[i] ->
		retry[i] = false;
		armed[i] = true;
		if
		:: state[i] == FAST_INVALIDATING -> wire[i] = DROP
		:: else -> wire[i] = RELEASE
		fi
	:: else
	fi
}

proctype nicd(byte i)
{
end:	do
	:: atomic { wire[i] == DONE -> done(i) }
	:: atomic { wire[i] == REFUSED -> refused(i) }
	:: atomic { news[i] -> news[i] = false; heard(i) }
	:: atomic { old_news[i] -> old_news[i] = false;
#ifdef FAULT_OLD_NEWS
		heard(i)
#endif
		}
	:: atomic { armed[i] -> deadline(i) }
	od
}

/* ---- the device */

/* Ends the accesses that have begun. */
inline cut(i)
{
	if
	:: use[0] == i -> use[0] = NONE
	:: else
	fi;
	if
	:: use[PEERS - 1] == i -> use[PEERS - 1] = NONE
	:: else
	fi
}

inline out(i)
{
	cut(i);
	tag[i] = OUT;
	news[i] = news[i] || invalidated[i];
	invalidated[i] = false;
	if
	:: wire[i] == DROP -> wire[i] = DONE
	:: else
	fi
}

/* What waits for nothing. */
proctype device(byte i)
{
end:	do
	:: atomic { wire[i] == RESERVE && up -> assert(!reserved[i]); reserved[i] = true; wire[i] = DONE }
	:: atomic { wire[i] == RESERVE -> wire[i] = REFUSED }
	:: atomic { wire[i] == RELEASE -> reserved[i] = false; wire[i] = DONE }
	:: atomic { wire[i] == RELEASE && up && may_refuse -> count_refusal; wire[i] = REFUSED }
	:: atomic { wire[i] == ADD && up && tag[i] == OUT -> tag[i] = IN; wire[i] = DONE }
	:: atomic { wire[i] == ADD -> wire[i] = REFUSED }
	:: atomic { wire[i] == DROP && !ordered[i] && tag[i] == IN -> tag[i] = DYING }
	:: atomic { wire[i] == DROP && !ordered[i] && tag[i] == OUT -> wire[i] = DONE }
	:: atomic { wire[i] == DROP && tag[i] == IN && up && may_refuse -> count_refusal; wire[i] = REFUSED }
	:: atomic { tag[i] == DYING -> out(i) }
	od
}

/* What waits for its turn in a stream, which may never come. */
proctype stream(byte i)
{
end:	do
	:: atomic { wire[i] == DROP && ordered[i] && tag[i] == IN -> tag[i] = DYING }
	:: atomic { wire[i] == DROP && ordered[i] && tag[i] == OUT -> wire[i] = DONE }
	:: atomic { orphan[i] && tag[i] == IN -> orphan[i] = false; tag[i] = DYING }
	:: wide -> break
	od
}

inline lose(i)
{
	out(i);
	news[i] = false;
	orphan[i] = false;
	reserved[i] = false;
	if
	:: wire[i] == ADD || wire[i] == RESERVE -> wire[i] = REFUSED
	:: wire[i] == RELEASE -> wire[i] = DONE
	:: else
	fi;
	if
	:: handle[i] == ABSENT
	:: handle[i] != ABSENT && (state[i] == FAST_VALID || state[i] == FAST_ERROR) -> drop(i, STEP_LOST, false)
	:: else ->
		stay(i, STEP_LOST);
		if
		:: retry[i] && state[i] == FAST_INVALIDATING -> retry[i] = false; wire[i] = DROP
		:: retry[i] && state[i] != FAST_INVALIDATING -> retry[i] = false; wire[i] = RELEASE
		:: else
		fi
	fi
}

proctype loss()
{
	byte i;
end:	atomic { up = false;
		for (i : 0 .. MRS - 1) {
			lose(i)
		} }
}

inline peer_of(p, i)
{
	if
	:: atomic { use[p] == NONE && tag[i] == IN -> use[p] = i }
	:: atomic { use[p] == NONE && tag[i] == IN -> tag[i] = DYING; invalidated[i] = true }
	fi
}

proctype peer(byte p)
{
end:	do
	:: peer_of(p, 0)
#if MRS > 1
	:: peer_of(p, 1)
#endif
#if MRS > 2
	:: peer_of(p, 2)
#endif
	:: atomic { use[p] != NONE ->
		assert(may_touch[use[p]] && pinned[use[p]]);
		use[p] = NONE }
	od
}

init {
	byte i;
	atomic {
		for (i : 0 .. MRS - 1) {
			run nicd(i);
			run device(i);
			run stream(i);
			run client(i)
		}
		for (i : 0 .. PEERS - 1) {
			run peer(i)
		}
		if
		:: wide -> run loss()
		:: else
		fi;
		i = 0
	}
}

#ifdef LIVE
/* Who waits is answered, and what is closed ends, whatever others do, if the device does not refuse for ever. */
ltl answered { [] (waits[0] == CALLER -> <> (waits[0] != CALLER)) }
ltl closed { [] (handle[0] == CLOSING -> <> (handle[0] == ABSENT)) }
ltl unpinned { [] (crashed[0] -> <> (handle[0] == ABSENT && !pinned[0] && !reserved[0])) }
#endif
