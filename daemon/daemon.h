/* SPDX-License-Identifier: MIT */
#pragma once
/* The process: one loop, and everything that hangs on it. */

struct options;

/* Runs until told to stop; options are complete. Returns the exit code: 0, or 1 with the reason in the journal. */
int daemon_run(const struct options *options);
