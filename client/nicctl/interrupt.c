/* SPDX-License-Identifier: MIT */
/*
 * Signals that end a copy: what is half done is put away first. The flag is the one variable of the program, because a
 * handler has nothing else to tell it by. The second signal kills at once.
 */
#include <signal.h>

#include "client/nicctl/nicctl.h"

static volatile sig_atomic_t interrupt_signal;

static void on_signal(int number)
{
	interrupt_signal = number;
}

static const int interrupt_signals[] = { SIGINT, SIGTERM, SIGHUP };

void nicctl_interrupts_catch(void)
{
	/* Without SA_RESTART: what waits gives up. */
	const struct sigaction action = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };

	for (unsigned i = 0; i < sizeof(interrupt_signals) / sizeof(interrupt_signals[0]); i++) {
		struct sigaction old;

		/* nohup's stays. */
		if (sigaction(interrupt_signals[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
			sigaction(interrupt_signals[i], &action, NULL);
	}
}

bool nicctl_interrupted(void)
{
	return interrupt_signal != 0;
}

void nicctl_interrupts_raise(void)
{
	if (!interrupt_signal)
		return;
	signal(interrupt_signal, SIG_DFL);
	raise(interrupt_signal);
}
