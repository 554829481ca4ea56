/* SPDX-License-Identifier: MIT */
/* A nicd for the benchmark: rootless, in a directory of its own, pinned, and gone when the benchmark is. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bench/bench.h"

static pid_t only_child(pid_t pid)
{
	char path[64];
	int child = 0;

	snprintf(path, sizeof path, "/proc/%d/task/%d/children", pid, pid);
	FILE *f = fopen(path, "re");
	if (!f || fscanf(f, "%d", &child) != 1)
		child = 0;
	if (f)
		fclose(f);
	return child;
}

void daemon_start(struct daemon *daemon, const char *nicd, const char *soft, int cpu)
{
	char sock[80], admin[80], config[80], ready[16], byte;
	int p[2];

	strcpy(daemon->dir, "/tmp/nicd-bench-XXXXXX");
	if (!mkdtemp(daemon->dir) || pipe(p) < 0)
		bench_die("mkdtemp");
	snprintf(sock, sizeof sock, "%s/nicd.sock", daemon->dir);
	snprintf(admin, sizeof admin, "%s/admin.sock", daemon->dir);
	snprintf(config, sizeof config, "%s/nicd.conf", daemon->dir);
	snprintf(ready, sizeof ready, "%d", p[1]);
	/* One account has all there is. */
	FILE *f = fopen(config, "we");
	if (!f || fputs("[limits]\nqps = 64K\nsessions = 16000\n", f) < 0 || fclose(f) != 0)
		bench_die(config);
	daemon->pid = fork();
	if (daemon->pid < 0)
		bench_die("fork");
	if (daemon->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		close(p[0]);
		bench_pin(0, cpu);
		if (!getenv("NICD_BENCH_VERBOSE"))
			dup2(open("/dev/null", O_WRONLY), 2);
		execl(nicd, nicd, "--rootless", "--provider", "soft", "--socket", sock, "--admin-socket", admin, "--soft-program",
		      soft, "--data-listen", "127.0.0.1:0", "--allow-connect", "127.0.0.0/8", "--config", config,
		      "--ready-fd", ready, NULL);
		_exit(127);
	}
	close(p[1]);
	if (read(p[0], &byte, 1) != 1)
		bench_die("nicd did not start (NICD_BENCH_VERBOSE=1 shows what it says)");
	close(p[0]);
	daemon->soft = only_child(daemon->pid);
	if (!daemon->soft)
		bench_die("nicd-soft is not a child of nicd");
}

void daemon_stop(struct daemon *daemon)
{
	char cmd[96];

	kill(daemon->pid, SIGTERM);
	waitpid(daemon->pid, NULL, 0);
	snprintf(cmd, sizeof cmd, "rm -rf -- '%s'", daemon->dir);
	if (system(cmd) != 0)
		fprintf(stderr, "bench: %s is left behind\n", daemon->dir);
}

uint64_t daemon_pss(const struct daemon *daemon)
{
	char path[64], line[256];
	unsigned long long kb = 0;

	snprintf(path, sizeof path, "/proc/%d/smaps_rollup", daemon->pid);
	FILE *f = fopen(path, "re");
	if (!f)
		bench_die(path);
	while (fgets(line, sizeof line, f))
		if (sscanf(line, "Pss: %llu kB", &kb) == 1)
			break;
	fclose(f);
	return kb * 1024;
}
