/* SPDX-License-Identifier: MIT */
/*
 * The life of memory windows: two of them on one normal memory region, each bound to the connection of another peer.
 *
 * As normal.pml, and: binding and invalidating a window is work of a stream, which may stand still; what takes a window away by force sends a
 * drop of its own beside it (the rush). An MR's deregister is refused while windows stand on it; its close waits for them; a revocation by
 * others, the end of the session and the loss of the device take the windows first. A window goes with its connection, and by its peer's
 * message. How MRs live without windows is for normal.pml: here the MR is registered by a device that does not refuse that.
 */
#include "life.pml"
#include "cell.pml"

/*
 * NARROW is with both windows, and leaves out what one window's life is about: a device that refuses or gets lost, connections that end, peers
 * who invalidate, deadlines. Else there is one window, and both peers.
 */
#ifdef NARROW
#define wide false
#else
#define wide true
#endif
#ifdef LIVE
#define may_refuse false
#else
#define may_refuse wide
#endif
#define WINDOWS 2
#define MR WINDOWS     /* in use[] */
#define NONE 3

mtype = { NOBODY, CALLER, PROMISED };        /* who waits for an outcome; PROMISED: was told REVOKE_PENDING, is owed REVOKE_CONFIRMED */
mtype = { IDLE, ADD, DROP, DONE, REFUSED };  /* between nicd and the device: a command on its way there, or an answer on its way back */
mtype = { OUT, IN, DYING };                  /* a tag at the device */
mtype = { ABSENT, OPEN, CLOSING };           /* an object as its client sees it */
mtype = { UP, CUT, DOWN };                   /* a connection; CUT: the device knows, nicd does not */

/* nicd: windows */
mtype state[WINDOWS] = WINDOW_FREE;
mtype handle[WINDOWS] = ABSENT;
mtype waits[WINDOWS] = NOBODY;
bool ordered[WINDOWS];      /* what is under way is work of a stream */
bool rush_counts[WINDOWS];  /* what the rush comes to says that the tag is gone */
bool retry[WINDOWS];        /* the device refused, and nobody is there to ask again: the deadline will */
bool armed[WINDOWS];        /* the deadline */
bool evicted[WINDOWS];      /* it is to go, by other orders than its owner's */
bool tenant[WINDOWS];       /* it stands on the MR */
bool linked[WINDOWS];       /* its connection has not ended */
bool gone[WINDOWS];         /* its peer has invalidated it before we heard that it is bound */

/* nicd: the MR */
mtype mr = NORMAL_CREATED;
mtype mr_handle = OPEN;
mtype mr_waits = NOBODY;
bool mr_for_windows;        /* closing, and waiting until its owner has ended the windows */
bool mr_ending, mr_evicting;
bool mr_retry, mr_armed, mr_pinned;
bool crashed;

/* the device */
mtype wire[WINDOWS] = IDLE;
mtype rush[WINDOWS] = IDLE;
mtype tag[WINDOWS] = OUT;
bool invalidated[WINDOWS], news[WINDOWS];   /* by its peer's message; and the news of that */
mtype link[WINDOWS] = UP;
mtype mr_wire = IDLE;
mtype mr_tag = OUT;
byte use[WINDOWS] = NONE;   /* by the peer of that window's connection */
bool up = true;

/* Nobody has been told that it is over. */
bool may_touch[WINDOWS], may_touch_mr;

/* Taking a cell of nicd's table, and being refused by one. */
#define go(w, step, to) cell(state[w], step, to); state[w] = to
#define stay(w, step) cell(state[w], step, state[w])
#define no(w, step, why) cell(state[w], step, why)
#define mr_go(step, to) cell(mr, step, to); mr = to

/* ---- nicd: the MR, once no window stands on it */

inline mr_ended()
{
	assert(mr_handle == CLOSING && mr == NORMAL_CREATED && mr_waits == NOBODY && mr_wire == IDLE);
	assert(!mr_pinned && !mr_armed && !mr_retry && !tenant[0] && !tenant[1]);
	mr_handle = ABSENT;
	may_touch_mr = false
}

inline mr_drop()
{
	mr_for_windows = false;
	mr_ending = false;
	mr_evicting = false;
	mr_armed = true;
	mr_wire = DROP
}

/* If the last of the windows that it waits for has gone. */
inline mr_left()
{
	if
	:: mr_ending && !tenant[0] && !tenant[1] -> mr_drop()
	:: else
	fi
}

/* ---- nicd: a window ends */

inline answer(w, over)
{
	if
	:: waits[w] == CALLER && over -> may_touch[w] = false
	:: waits[w] == PROMISED -> assert(over); may_touch[w] = false   /* REVOKE_CONFIRMED */
	:: else
	fi;
	waits[w] = NOBODY
}

inline end_if_closing(w)
{
	if
	:: handle[w] == CLOSING && state[w] == WINDOW_FREE && rush[w] == IDLE ->
		assert(waits[w] == NOBODY && wire[w] == IDLE && !armed[w] && !retry[w] && !tenant[w]);
		handle[w] = ABSENT;
		may_touch[w] = false
	:: else
	fi
}

/* The device holds nothing of it any more. */
inline leave(w)
{
	armed[w] = false;
	evicted[w] = false;
	linked[w] = false;
	tenant[w] = false;
	mr_left()
}

/* By a step that leads to FREE. `over`: that is what the call under way is told. */
inline freed(w, step, over)
{
	go(w, step, WINDOW_FREE);
	retry[w] = false;
	ordered[w] = false;
	rush_counts[w] = false;
	gone[w] = false;
	leave(w);
	answer(w, over);
	end_if_closing(w)
}

inline drop(w)
{
	ordered[w] = false;
	wire[w] = DROP
}

inline revoke_start(w, step)
{
	go(w, step, WINDOW_INVALIDATING);
	armed[w] = true;
	ordered[w] = false;
	if
	:: rush[w] != IDLE -> retry[w] = true   /* one after the other: that one goes on with it */
	:: else -> drop(w)
	fi
}

/* Beside an ordered command. */
inline rush_if_ordered(w)
{
	if
	:: ordered[w] && rush[w] == IDLE && tenant[w] ->
		armed[w] = armed[w] || state[w] == WINDOW_INVALIDATING;
		rush_counts[w] = state[w] == WINDOW_INVALIDATING;
		rush[w] = DROP
	:: else
	fi
}

inline evict(w)
{
	if
	:: tenant[w] && !evicted[w] ->
		evicted[w] = true;
		if
		:: state[w] == WINDOW_BOUND || state[w] == WINDOW_ERROR -> revoke_start(w, STEP_INVALIDATE)
		:: else -> rush_if_ordered(w)
		fi
	:: else
	fi
}

/* By a step that leads to REVOKING. */
inline mr_revoke(step, evicts)
{
	mr_go(step, NORMAL_REVOKING);
	mr_ending = true;
	mr_evicting = evicts;
	mr_for_windows = !evicts;
	mr_armed = evicts;
	if
	:: evicts -> evict(0); evict(1)
	:: else
	fi;
	mr_left()
}

/* ---- nicd: calls for a window */

inline bind(w)
{
	if
	:: state[w] != WINDOW_FREE -> no(w, STEP_BIND, STATE)
	:: state[w] == WINDOW_FREE && link[w] != DOWN && mr_handle == OPEN && mr == NORMAL_REGISTERED && up ->
		cell(mr, STEP_BIND_TO, mr);
		go(w, STEP_BIND, WINDOW_BIND_PENDING);
		tenant[w] = true;
		linked[w] = true;
		may_touch[w] = true;
		news[w] = false;   /* of another generation */
		waits[w] = CALLER;
		ordered[w] = true;
		wire[w] = ADD
	:: else   /* QP_STATE, MR_STATE, NO_ADAPTER */
	fi
}

inline invalidate(w)
{
	if
	:: state[w] == WINDOW_BOUND || state[w] == WINDOW_ERROR ->
		if
		:: link[w] != DOWN ->
			go(w, STEP_INVALIDATE, WINDOW_INVALIDATING);
			waits[w] = CALLER;
			ordered[w] = true;
			wire[w] = DROP
		:: else   /* QP_STATE */
		fi
	:: else -> no(w, STEP_INVALIDATE, STATE)
	fi
}

/* By somebody else's order. */
inline revoke(w)
{
	if
	:: state[w] == WINDOW_BOUND || state[w] == WINDOW_ERROR -> waits[w] = CALLER; revoke_start(w, STEP_INVALIDATE)
	:: else
	fi
}

inline close(w)
{
	handle[w] = CLOSING;
	if
	:: state[w] == WINDOW_BOUND || state[w] == WINDOW_ERROR -> revoke_start(w, STEP_CLOSE)
	:: else -> stay(w, STEP_CLOSE); rush_if_ordered(w)
	fi;
	end_if_closing(w)
}

inline look(w)
{
	if
	:: state[w] == WINDOW_BOUND -> stay(w, STEP_GET_REMOTE_TOKEN)
	:: else -> no(w, STEP_GET_REMOTE_TOKEN, STATE)
	fi
}

proctype window(byte w)
{
	do
	:: atomic { handle[w] == OPEN -> look(w) }
	:: atomic { handle[w] == OPEN -> no(w, STEP_GET_LOCAL_TOKEN, KIND) }
	:: atomic { handle[w] == OPEN -> no(w, STEP_REGISTER, KIND) }
	:: atomic { handle[w] == OPEN -> no(w, STEP_DEREGISTER, KIND) }
	:: atomic { handle[w] == OPEN -> no(w, STEP_INITIALIZE, KIND) }
	:: atomic { handle[w] == OPEN -> no(w, STEP_FAST_REGISTER, KIND) }
	:: atomic { handle[w] == OPEN -> no(w, STEP_BIND_TO, KIND) }
	:: atomic { handle[w] == OPEN -> no(w, STEP_EXPORT, KIND) }
	:: atomic { handle[w] == OPEN && !crashed -> bind(w) }
	:: atomic { handle[w] == OPEN && !crashed -> invalidate(w) }
	:: atomic { wide && handle[w] == OPEN && !crashed -> revoke(w) }
	:: atomic { handle[w] == OPEN && !crashed -> close(w) }
	:: atomic { handle[w] == ABSENT && !crashed -> handle[w] = OPEN }
	:: handle[w] == ABSENT && crashed -> break
	od
}

/* ---- a connection ends */

inline cut_uses(what)
{
	if
	:: use[0] == what -> use[0] = NONE
	:: else
	fi;
	if
	:: use[1] == what -> use[1] = NONE
	:: else
	fi
}

inline out(w)
{
	cut_uses(w);
	tag[w] = OUT;
	news[w] = news[w] || invalidated[w];
	invalidated[w] = false
}

/* With it go its window and what waits in it. */
inline link_ends(w)
{
	link[w] = CUT;
	use[w] = NONE;
	out(w);
	if
	:: wire[w] == ADD -> wire[w] = REFUSED
	:: wire[w] == DROP -> wire[w] = DONE
	:: else
	fi
}

inline news_of_link(w)
{
	link[w] = DOWN;
	linked[w] = false;
	if
	:: state[w] == WINDOW_BOUND || state[w] == WINDOW_ERROR -> may_touch[w] = false; freed(w, STEP_GONE, true)
	:: else
	fi
}

/* ---- nicd: calls for the MR, and the end of the session */

inline mr_register()
{
	mr_go(STEP_REGISTER, NORMAL_REGISTERING);
	mr_pinned = true;
	may_touch_mr = true;
	mr_waits = CALLER;
	mr_wire = ADD
}

inline mr_deregister()
{
	if
	:: tenant[0] || tenant[1]   /* WINDOW_BOUND */
	:: else -> mr_waits = CALLER; mr_revoke(STEP_DEREGISTER, true)
	fi
}

inline mr_close()
{
	mr_handle = CLOSING;
	if
	:: mr == NORMAL_CREATED -> mr_ended()
	:: mr == NORMAL_REGISTERED || mr == NORMAL_ERROR ->
#ifdef FAULT_CLOSE_WAITS_NOT
		tenant[0] = false;
		tenant[1] = false;
#endif
		mr_revoke(STEP_CLOSE, !(tenant[0] || tenant[1]))
	:: else
	fi
}

/* Its connections end first. */
inline unlink(w)
{
	if
	:: link[w] == UP -> link_ends(w); news_of_link(w)
	:: link[w] == CUT -> news_of_link(w)
	:: else
	fi
}

proctype client()
{
	do
	:: atomic { mr_handle == OPEN && mr == NORMAL_CREATED && up -> mr_register() }
	:: atomic { mr_handle == OPEN && (mr == NORMAL_REGISTERED || mr == NORMAL_ERROR) -> mr_deregister() }
	:: atomic { mr_handle == OPEN && (mr == NORMAL_REGISTERED || mr == NORMAL_ERROR) -> mr_waits = CALLER; mr_revoke(STEP_DEREGISTER, true) }
	:: atomic { mr_handle == CLOSING && mr_for_windows -> mr_waits = CALLER; mr_for_windows = false; mr_armed = true; mr_evicting = true; evict(0); evict(1) }
	:: atomic { mr_handle == OPEN -> mr_close() }
	:: atomic { link[0] == DOWN && up -> link[0] = UP }
	:: atomic { link[1] == DOWN && up -> link[1] = UP }
	:: break
	od;
	atomic {
		crashed = true;
		unlink(0);
		unlink(1);
		if
		:: handle[0] == OPEN -> close(0)
		:: else
		fi;
		if
		:: handle[1] == OPEN -> close(1)
		:: else
		fi;
		if
		:: mr_handle == OPEN -> mr_close()
		:: else
		fi
	};
	mr_handle == ABSENT
}

/* ---- nicd: what comes from the device, and from the clock */

inline tagged(w)
{
	if
	:: gone[w] && handle[w] == OPEN && !evicted[w] -> freed(w, STEP_GONE, true)
	:: else ->
		go(w, STEP_DONE, WINDOW_BOUND);
		ordered[w] = false;
		gone[w] = false;
		answer(w, false);
		if
		:: handle[w] == CLOSING || evicted[w] || !up || !linked[w] -> revoke_start(w, STEP_INVALIDATE)
		:: else
		fi
	fi
}

inline not_dropped(w)
{
	ordered[w] = false;
	if
	:: handle[w] == CLOSING || evicted[w] || waits[w] == PROMISED ->
		retry[w] = true;
		armed[w] = true
	:: else ->
		go(w, STEP_FAILED, WINDOW_ERROR);
		armed[w] = false
	fi;
	if
	:: waits[w] == CALLER -> answer(w, false)
	:: else
	fi
}

inline done(w)
{
	wire[w] = IDLE;
	if
	:: state[w] == WINDOW_BIND_PENDING -> tagged(w)
	:: else -> freed(w, STEP_DONE, true)
	fi
}

inline refused(w)
{
	wire[w] = IDLE;
	if
	:: state[w] == WINDOW_BIND_PENDING -> freed(w, STEP_FAILED, false)
	:: state[w] != WINDOW_BIND_PENDING && tenant[w] -> not_dropped(w)
	:: else -> freed(w, STEP_DONE, true)
	fi
}

inline rushed(w)
{
	if
	:: rush[w] == DONE && rush_counts[w] && !retry[w] -> rush[w] = IDLE; leave(w)
#ifndef FAULT_REFUSED_AND_RUSHED
	:: rush[w] == DONE && rush_counts[w] && retry[w] -> rush[w] = IDLE; freed(w, STEP_DONE, true)   /* nothing else is under way */
#else
	:: rush[w] == DONE && rush_counts[w] && retry[w] -> rush[w] = IDLE; leave(w)
#endif
	:: !(rush[w] == DONE && rush_counts[w]) && retry[w] -> rush[w] = IDLE; retry[w] = false; drop(w)
	:: else -> rush[w] = IDLE
	fi;
	end_if_closing(w)
}

inline heard(w)
{
	if
	:: state[w] == WINDOW_BIND_PENDING -> gone[w] = true
	:: state[w] == WINDOW_BOUND || state[w] == WINDOW_ERROR -> may_touch[w] = false; freed(w, STEP_GONE, true)
	:: state[w] == WINDOW_INVALIDATING -> stay(w, STEP_GONE)
	:: else
	fi
}

inline deadline(w)
{
	armed[w] = false;
	if
	:: waits[w] == CALLER -> waits[w] = PROMISED
	:: else
	fi;
	if
	:: retry[w] && rush[w] == IDLE -> retry[w] = false; armed[w] = true; drop(w)
	:: else
	fi
}

proctype nicd(byte w)
{
end:	do
	:: atomic { wire[w] == DONE -> done(w) }
	:: atomic { wire[w] == REFUSED -> refused(w) }
	:: atomic { rush[w] == DONE || rush[w] == REFUSED -> rushed(w) }
	:: atomic { news[w] -> news[w] = false; heard(w) }
	:: atomic { link[w] == CUT -> news_of_link(w) }
	:: atomic { wide && armed[w] -> deadline(w) }
	od
}

inline mr_confirmed()
{
	mr_go(STEP_DONE, NORMAL_CREATED);
	mr_armed = false;
	mr_pinned = false;
	if
	:: mr_waits != NOBODY -> may_touch_mr = false; mr_waits = NOBODY
	:: else
	fi;
	if
	:: mr_handle == CLOSING -> mr_ended()
	:: else
	fi
}

inline mr_registered()
{
	mr_go(STEP_DONE, NORMAL_REGISTERED);
	mr_waits = NOBODY;
	if
	:: mr_handle == CLOSING || !up -> mr_revoke(STEP_CLOSE, true)
	:: else
	fi
}

inline mr_not_dropped()
{
	if
	:: mr_handle == CLOSING || mr_waits == PROMISED ->
		mr_retry = true;
		mr_armed = true;
		if
		:: mr_waits == CALLER -> mr_waits = NOBODY
		:: else
		fi
	:: else ->
		mr_go(STEP_FAILED, NORMAL_ERROR);
		mr_armed = false;
		mr_waits = NOBODY
	fi
}

inline mr_deadline()
{
	mr_armed = false;
	if
	:: mr_waits == CALLER -> mr_waits = PROMISED
	:: mr_waits != CALLER && mr_retry -> mr_retry = false; mr_armed = true; mr_wire = DROP
	:: else
	fi
}

proctype nicd_mr()
{
end:	do
	:: atomic { mr_wire == DONE ->
		mr_wire = IDLE;
		if
		:: mr == NORMAL_REGISTERING -> mr_registered()
		:: else -> mr_confirmed()
		fi }
	:: atomic { mr_wire == REFUSED -> mr_wire = IDLE; mr_not_dropped() }
	:: atomic { wide && mr_armed -> mr_deadline() }
	od
}

/* ---- the device */

proctype device(byte w)
{
end:	do
	:: atomic { rush[w] == DROP -> out(w); rush[w] = DONE }
	:: atomic { may_refuse && rush[w] == DROP && tag[w] == IN && up -> rush[w] = REFUSED }
	:: atomic { wire[w] == DROP && !ordered[w] && tag[w] == IN -> tag[w] = DYING }
	:: atomic { wire[w] == DROP && !ordered[w] && tag[w] == OUT -> wire[w] = DONE }
	:: atomic { may_refuse && wire[w] == DROP && tag[w] == IN && up -> wire[w] = REFUSED }
	:: atomic { tag[w] == DYING -> out(w) }
	od
}

/* What waits for its turn in a stream, which comes at the latest when the stream ends. */
proctype stream(byte w)
{
end:	do
	:: atomic { wire[w] == ADD && link[w] == UP && up -> tag[w] = IN; wire[w] = DONE }
	:: atomic { wire[w] == ADD -> wire[w] = REFUSED }
	:: atomic { wire[w] == DROP && ordered[w] && tag[w] == IN -> tag[w] = DYING }
	:: atomic { wire[w] == DROP && ordered[w] && tag[w] == OUT -> wire[w] = DONE }
	:: atomic { wide && link[w] == UP -> link_ends(w) }
	od
}

proctype device_mr()
{
end:	do
	:: atomic { mr_wire == ADD -> mr_tag = IN; mr_wire = DONE }
	:: atomic { mr_wire == DROP && mr_tag == IN ->
		assert(tag[0] == OUT && tag[1] == OUT);
		cut_uses(MR);
		mr_tag = OUT;
		mr_wire = DONE }
	:: atomic { mr_wire == DROP && mr_tag == OUT -> mr_wire = DONE }
	:: atomic { may_refuse && mr_wire == DROP && mr_tag == IN && up -> mr_wire = REFUSED }
	od
}

inline lose(w)
{
	if
	:: link[w] == UP -> link_ends(w)
	:: else
	fi;
	out(w);
	news[w] = false;
	if
	:: link[w] == CUT -> news_of_link(w)
	:: else
	fi;
	if
	:: rush[w] == DROP -> rush[w] = DONE
	:: else
	fi;
	if
	:: wire[w] == ADD -> wire[w] = REFUSED
	:: wire[w] == DROP -> wire[w] = DONE
	:: else
	fi
}

inline told_lost(w)
{
	if
	:: handle[w] == ABSENT
	:: handle[w] != ABSENT && (state[w] == WINDOW_BOUND || state[w] == WINDOW_ERROR) -> revoke_start(w, STEP_LOST)
	:: else ->
		stay(w, STEP_LOST);
		if
		:: retry[w] && rush[w] == IDLE -> retry[w] = false; drop(w)
		:: else
		fi
	fi
}

proctype loss()
{
end:	atomic { up = false;
		cut_uses(MR);
		mr_tag = OUT;
		told_lost(0);
		told_lost(1);
		lose(0);
		lose(1);
		if
		:: mr_handle != ABSENT && (mr == NORMAL_REGISTERED || mr == NORMAL_ERROR) -> mr_revoke(STEP_LOST, true)
		:: mr_handle != ABSENT && mr_retry -> mr_retry = false; mr_wire = DROP
		:: else
		fi }
}

proctype peer(byte p)
{
end:	do
	:: atomic { use[p] == NONE && link[p] == UP && tag[p] == IN -> use[p] = p }
	:: atomic { use[p] == NONE && link[p] == UP && mr_tag == IN -> use[p] = MR }
#ifdef FAULT_ANY_PEER
	:: atomic { use[p] == NONE && link[p] == UP && tag[1 - p] == IN -> use[p] = 1 - p }
#endif
	:: atomic { wide && link[p] == UP && tag[p] == IN -> tag[p] = DYING; invalidated[p] = true }
	:: atomic { use[p] == MR ->
		assert(may_touch_mr && mr_pinned);
		use[p] = NONE }
	:: atomic { use[p] < MR ->
		assert(may_touch[use[p]] && may_touch_mr && mr_pinned);
		assert(use[p] == p);   /* its own window, and no other's */
		use[p] = NONE }
	od
}

init {
	atomic {
		run client();
		run nicd_mr();
		run device_mr();
		run window(0);
		run nicd(0);
		run device(0);
		run stream(0);
		run peer(0);
		run peer(1);
		if
		:: wide -> run loss()
		:: else -> run window(1); run nicd(1); run device(1); run stream(1)
		fi
	}
}

#ifdef LIVE
/* What a session leaves behind ends, and its pins with it. */
ltl unpinned { [] (crashed -> <> (mr_handle == ABSENT && handle[0] == ABSENT && !mr_pinned)) }
#endif
