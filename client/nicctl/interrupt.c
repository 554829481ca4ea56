/* SPDX-License-Identifier: MIT */
/*
 * Signals that end a copy: what is half done is put away first. The flag is the one variable of the program, because a
 * handler has nothing else to tell it by. The second signal kills at once.
 *
 * A signal may come between a look at the flag and a call that blocks, which nothing would wake then. So the handler sets a timer, whose
 * alarms interrupt whatever blocks, again and again until the flag was seen.
 */
#include <signal.h>
#include <sys/time.h>

#include "client/nicctl/nicctl.h"

static volatile sig_atomic_t interrupt_signal;

enum { AGAIN_US = 20000 };

static void again(suseconds_t us)
{
	const struct itimerval timer = { .it_interval.tv_usec = us, .it_value.tv_usec = us };

	setitimer(ITIMER_REAL, &timer, NULL);   /* one system call, and nothing else */
}

static void on_signal(int number)
{
	interrupt_signal = number;
	again(AGAIN_US);
}

static void on_alarm(int number)
{
}

static const int interrupt_signals[] = { SIGINT, SIGTERM, SIGHUP };

void nicctl_interrupts_catch(void)
{
	/* Without SA_RESTART: what waits gives up. */
	const struct sigaction action = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };
	const struct sigaction alarm = { .sa_handler = on_alarm };

	sigaction(SIGALRM, &alarm, NULL);
	for (unsigned i = 0; i < sizeof(interrupt_signals) / sizeof(interrupt_signals[0]); i++) {
		struct sigaction old;

		/* nohup's stays. */
		if (sigaction(interrupt_signals[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
			sigaction(interrupt_signals[i], &action, NULL);
	}
}

bool nicctl_interrupted(void)
{
	if (!interrupt_signal)
		return false;
	again(0);
	return true;
}

void nicctl_interrupts_raise(void)
{
	if (!interrupt_signal)
		return;
	signal(interrupt_signal, SIG_DFL);
	raise(interrupt_signal);
}
