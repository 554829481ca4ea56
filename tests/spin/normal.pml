/* SPDX-License-Identifier: MIT */
/*
 * The life of normal memory regions: clients with one each, peers who know every token, and a device.
 *
 * A client may call anything at any time, does not wait for answers, and may crash. nicd takes one thing at a time: a call, an answer
 * of the device, a deadline. The device adds or refuses, drops or refuses (EBUSY), takes its time, and may be lost. A peer's access has a
 * beginning, when its token is looked up, and an end, when its bytes are touched; dropping a tag cuts those that are between.
 */
#include "life.pml"

#ifndef MRS
#define MRS 3
#endif
#ifndef PEERS
#define PEERS 2
#endif
#define BUDGET ((MRS + 1) / 2)   /* so many may be pinned */
#define NONE MRS

mtype = { NOBODY, CALLER, PROMISED };        /* who waits for an outcome; PROMISED: was told REVOKE_PENDING, is owed REVOKE_CONFIRMED */
mtype = { IDLE, ADD, DROP, DONE, REFUSED };  /* between nicd and the device: a command on its way there, or an answer on its way back */
mtype = { OUT, IN, DYING };                  /* a tag at the device */
mtype = { ABSENT, OPEN, CLOSING };           /* the MR as its client sees it */

/* nicd */
mtype state[MRS] = NORMAL_CREATED;
mtype handle[MRS] = OPEN;
mtype waits[MRS] = NOBODY;
bool retry[MRS];      /* the device refused to drop, and nobody is there to ask again: the deadline will */
bool armed[MRS];      /* the deadline */
bool pinned[MRS];     /* charged */
byte n_pinned;
bool crashed[MRS];

/* the device */
mtype wire[MRS] = IDLE;
mtype tag[MRS] = OUT;
byte use[PEERS] = NONE;
bool up = true;
#ifdef REFUSALS   /* so many, and no more */
byte refusals;
#define may_refuse (refusals < REFUSALS)
#define count_refusal refusals++
#else
#define may_refuse true
#define count_refusal skip
#endif

/* Nobody has been told that it is over. */
bool may_touch[MRS];

#include "cell.pml"

/* Taking a cell of nicd's table, and being refused by one. */
#define go(i, step, to) cell(state[i], step, to); state[i] = to
#define stay(i, step) cell(state[i], step, state[i])
#define no(i, step, why) cell(state[i], step, why)

/* ---- nicd: ends and answers */

inline unpin(i)
{
	assert(pinned[i]);
	pinned[i] = false;
	n_pinned--;
}

/* The outcome of a register or deregister; `over`: it says that the MR cannot be touched any more. */
inline answer(i, over)
{
	assert(waits[i] == CALLER);
	waits[i] = NOBODY;
	if
	:: over -> may_touch[i] = false
	:: else
	fi
}

/* The last thing that is heard of an MR. */
inline ended(i)
{
	assert(handle[i] == CLOSING && state[i] == NORMAL_CREATED && waits[i] == NOBODY && wire[i] == IDLE);
	assert(!pinned[i] && !armed[i] && !retry[i]);
	handle[i] = ABSENT;
	may_touch[i] = false
}

inline revoke(i, step)
{
	go(i, step, NORMAL_REVOKING);
	armed[i] = true;
	wire[i] = DROP
}

inline register_failed(i)
{
	go(i, STEP_FAILED, NORMAL_CREATED);
#ifndef FAULT_PIN_KEPT
	unpin(i);
#endif
	answer(i, false);
	if
	:: handle[i] == CLOSING -> ended(i)
	:: else
	fi
}

inline registered(i)
{
	go(i, STEP_DONE, NORMAL_REGISTERED);
	answer(i, false);
	if
	:: handle[i] == CLOSING -> revoke(i, STEP_CLOSE)
	:: else
	fi
}

inline confirmed(i)
{
	go(i, STEP_DONE, NORMAL_CREATED);
	armed[i] = false;
	unpin(i);
	if
	:: waits[i] == CALLER -> answer(i, true)
	:: waits[i] == PROMISED -> waits[i] = NOBODY; may_touch[i] = false   /* REVOKE_CONFIRMED */
	:: else
	fi;
	if
	:: handle[i] == CLOSING -> ended(i)
	:: else
	fi
}

inline not_dropped(i)
{
	if
#ifndef FAULT_CLOSE_GIVES_UP
	:: handle[i] == CLOSING || waits[i] == PROMISED ->
#else
	:: waits[i] == PROMISED ->
#endif
		retry[i] = true;
		armed[i] = true;
		if
		:: waits[i] == CALLER -> answer(i, false)
		:: else
		fi
	:: else ->
		go(i, STEP_FAILED, NORMAL_ERROR);
		armed[i] = false;
		if
		:: waits[i] == CALLER -> answer(i, false)
		:: else
		fi
	fi
}

/* ---- nicd: calls */

inline look(i, step)
{
	if
	:: state[i] == NORMAL_REGISTERED -> stay(i, step)
	:: else -> no(i, step, STATE)
	fi
}

inline register(i)
{
	if
	:: state[i] != NORMAL_CREATED -> no(i, STEP_REGISTER, STATE)
	:: state[i] == NORMAL_CREATED && up && n_pinned < BUDGET ->
		go(i, STEP_REGISTER, NORMAL_REGISTERING);
		pinned[i] = true;
		n_pinned++;
		may_touch[i] = true;
		waits[i] = CALLER;
		wire[i] = ADD
	:: else   /* NO_ADAPTER, QUOTA: nothing was taken */
	fi
}

inline deregister(i)
{
	if
	:: state[i] == NORMAL_REGISTERED || state[i] == NORMAL_ERROR ->
		waits[i] = CALLER;
		revoke(i, STEP_DEREGISTER)
	:: else -> no(i, STEP_DEREGISTER, STATE)
	fi
}

inline close(i)
{
	handle[i] = CLOSING;
	if
	:: state[i] == NORMAL_CREATED -> stay(i, STEP_CLOSE); ended(i)
	:: state[i] == NORMAL_REGISTERED || state[i] == NORMAL_ERROR -> revoke(i, STEP_CLOSE)
	:: else -> stay(i, STEP_CLOSE)
	fi
}

proctype client(byte i)
{
	do
	:: atomic { handle[i] == OPEN -> look(i, STEP_GET_LOCAL_TOKEN) }
	:: atomic { handle[i] == OPEN -> look(i, STEP_GET_REMOTE_TOKEN) }
	:: atomic { handle[i] == OPEN -> look(i, STEP_BIND_TO) }
	:: atomic { handle[i] == OPEN -> look(i, STEP_EXPORT) }
	:: atomic { handle[i] == OPEN -> no(i, STEP_INITIALIZE, KIND) }
	:: atomic { handle[i] == OPEN -> no(i, STEP_FAST_REGISTER, KIND) }
	:: atomic { handle[i] == OPEN -> no(i, STEP_INVALIDATE, KIND) }
	:: atomic { handle[i] == OPEN -> no(i, STEP_BIND, KIND) }
	:: atomic { handle[i] == OPEN -> register(i) }
	:: atomic { handle[i] == OPEN -> deregister(i) }
	:: atomic { handle[i] == OPEN -> close(i) }
	:: atomic { handle[i] == ABSENT -> handle[i] = OPEN }
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

proctype nicd(byte i)
{
end:	do
	:: atomic { wire[i] == DONE ->
		wire[i] = IDLE;
		if
		:: state[i] == NORMAL_REGISTERING && up -> registered(i)
		:: state[i] == NORMAL_REGISTERING && !up -> register_failed(i)
		:: else -> confirmed(i)
		fi }
	:: atomic { wire[i] == REFUSED ->
		wire[i] = IDLE;
		if
		:: state[i] == NORMAL_REGISTERING -> register_failed(i)
		:: else -> not_dropped(i)
		fi }
	:: atomic { armed[i] ->
		armed[i] = false;
		if
		:: waits[i] == CALLER ->
#ifdef FAULT_DEADLINE_ANSWERS
			answer(i, true)
#else
			waits[i] = PROMISED
#endif
		:: waits[i] != CALLER && retry[i] ->
			retry[i] = false;
			armed[i] = true;
			wire[i] = DROP
		:: else
		fi }
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
	:: PEERS > 1 && use[PEERS - 1] == i -> use[PEERS - 1] = NONE
	:: else
	fi
}

proctype device(byte i)
{
end:	do
	:: atomic { wire[i] == ADD && up -> assert(tag[i] == OUT); tag[i] = IN; wire[i] = DONE }
	:: atomic { wire[i] == ADD -> wire[i] = REFUSED }
	:: atomic { wire[i] == DROP && tag[i] == IN ->
		tag[i] = DYING;
#ifdef FAULT_CONFIRMED_EARLY
		wire[i] = DONE
#endif
	   }
	:: atomic { wire[i] == DROP && tag[i] == OUT -> wire[i] = DONE }
	:: atomic { wire[i] == DROP && tag[i] == IN && up && may_refuse -> count_refusal; wire[i] = REFUSED }
	:: atomic { tag[i] == DYING ->
		cut(i);
		tag[i] = OUT;
		if
		:: wire[i] == DROP -> wire[i] = DONE
		:: else
		fi }
	od
}

inline lose(i)
{
	cut(i);
	tag[i] = OUT;
	if
	:: wire[i] == ADD -> wire[i] = REFUSED
	:: wire[i] == DROP -> wire[i] = DONE
	:: else
	fi;
	if
	:: handle[i] == ABSENT
	:: handle[i] != ABSENT && (state[i] == NORMAL_REGISTERED || state[i] == NORMAL_ERROR) -> revoke(i, STEP_LOST)
	:: else ->
		stay(i, STEP_LOST);
		if
		:: retry[i] -> retry[i] = false; wire[i] = DROP
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

proctype peer(byte p)
{
end:	do
	:: atomic { use[p] == NONE && tag[0] == IN -> use[p] = 0 }
#if MRS > 1
	:: atomic { use[p] == NONE && tag[1] == IN -> use[p] = 1 }
#endif
#if MRS > 2
	:: atomic { use[p] == NONE && tag[2] == IN -> use[p] = 2 }
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
			run client(i)
		}
		for (i : 0 .. PEERS - 1) {
			run peer(i)
		}
		run loss();
		i = 0
	}
}

#ifdef LIVE
/* Who waits is answered, and what is closed ends, whatever others do, if the device does not refuse for ever. */
ltl answered { [] (waits[0] == CALLER -> <> (waits[0] != CALLER)) }
ltl promised { [] (waits[0] == PROMISED -> <> (waits[0] != PROMISED)) }
ltl closed { [] (handle[0] == CLOSING -> <> (handle[0] == ABSENT)) }
ltl unpinned { [] (crashed[0] -> <> (handle[0] == ABSENT && !pinned[0])) }
#endif
