/* SPDX-License-Identifier: MIT */
/* nicd: reads its options and runs. Exit code 0: told to stop; 1: failed; 2: wrong command line. */
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "daemon/log.h"
#include "daemon/options.h"
#include "daemon/paths.h"

/* What we open must not become 0, 1 or 2, where somebody would write to it. */
static void standard_descriptors(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

int main(int argc, char **argv)
{
	const int exit_code[] = { [OPTIONS_EXIT] = 0, [OPTIONS_USAGE] = 2, [OPTIONS_FAILED] = 1 };
	struct options options;
	enum options_result result;
	char message[512];

	standard_descriptors();
	/* A burst of frames takes and gives back the same few buffers: not by way of the kernel each time. */
	mallopt(M_TRIM_THRESHOLD, 2 << 20);
	signal(SIGPIPE, SIG_IGN);
	umask(077);
	options_init(&options);
	result = options_read(&options, argc, argv);
	if (result != OPTIONS_RUN)
		return exit_code[result];
	log_init(options.log_priority);
	if (paths_complete(&options, message, sizeof(message)) < 0) {
		log_write(LOG_ERR, "cannot start: %s", message);
		return 1;
	}
	return daemon_run(&options);
}
