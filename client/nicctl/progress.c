/* SPDX-License-Identifier: MIT */
/*
 * How far a copy is, on stderr: one line that is written over on a terminal; lines of their own elsewhere, if asked
 * for; a JSON object a line with --json, if asked for. Ten times a second at most.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/nicctl/nicctl.h"

enum { PROGRESS_NS = 100000000, PROGRESS_BAR = 24 };

void nicctl_progress_init(struct nicctl_progress *progress, struct nicctl *c, uint64_t total)
{
	bool tty = isatty(STDERR_FILENO);

	*progress = (struct nicctl_progress){
		.c = c, .total = total, .start_ns = nicctl_now_ns(), .over = tty && !c->json,
		.show = c->given & NICCTL_PROGRESS ? true : c->given & NICCTL_NO_PROGRESS ? false : tty && !c->json,
	};
}

static void progress_json(const struct nicctl_progress *progress, uint64_t done, double rate, double left)
{
	fprintf(stderr, "{\"progress\": {\"bytes\": %llu, ", (unsigned long long)done);
	if (progress->total)
		fprintf(stderr, "\"total\": %llu, \"eta_seconds\": %.1f, ", (unsigned long long)progress->total, left);
	else
		fprintf(stderr, "\"total\": null, \"eta_seconds\": null, ");
	fprintf(stderr, "\"bytes_per_second\": %.0f}}\n", rate);
}

static void progress_text(const struct nicctl_progress *progress, uint64_t done, double rate, double left)
{
	char bytes[32], total[32], speed[32], bar[PROGRESS_BAR + 1] = "";

	nicctl_bytes_text(bytes, done);
	nicctl_bytes_text(speed, (uint64_t)rate);
	if (progress->over)
		fprintf(stderr, "\r\033[K");
	if (progress->total) {
		double part = (double)done / (double)progress->total;
		unsigned seconds = (unsigned)(left + 0.5);

		nicctl_bytes_text(total, progress->total);
		memset(bar, ' ', PROGRESS_BAR);
		memset(bar, '#', (size_t)(part * PROGRESS_BAR));
		fprintf(stderr, "[%s] %3u %%  %s of %s  %s/s  %u:%02u left", bar, (unsigned)(part * 100), bytes, total, speed,
			seconds / 60, seconds % 60);
	} else {
		fprintf(stderr, "%s  %s/s", bytes, speed);
	}
	if (!progress->over)
		fputc('\n', stderr);
}

void nicctl_progress_show(struct nicctl_progress *progress, uint64_t done)
{
	uint64_t now = nicctl_now_ns();
	double seconds = (double)(now - progress->start_ns) / 1e9, rate, left;

	/* The end is always told, for whoever draws a bar of it. */
	if (!progress->show || (now - progress->shown_ns < PROGRESS_NS && done != progress->total))
		return;
	progress->shown_ns = now;
	rate = seconds > 0 ? (double)done / seconds : 0;
	left = rate > 0 && progress->total > done ? (double)(progress->total - done) / rate : 0;
	if (progress->c->json)
		progress_json(progress, done, rate, left);
	else
		progress_text(progress, done, rate, left);
}

void nicctl_progress_end(struct nicctl_progress *progress)
{
	if (progress->show && progress->over && progress->shown_ns)
		fprintf(stderr, "\r\033[K");
}
