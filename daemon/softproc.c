/* SPDX-License-Identifier: MIT */
/*
 * Owned by the device. The control socket has a path for a moment only: bound beside nicd's own socket, which is
 * locked, connected to, and removed again, so that nothing is left behind however nicd ends. The child gets the
 * listening end.
 *
 * Between fork and exec there are only calls that are safe where other threads run; what they need is made before.
 */
#include "daemon/softproc.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/options.h"
#include "daemon/util.h"

extern char **environ;

enum { LISTEN_FD = 3, PATIENCE_MS = 2000, ARGUMENTS = 8 + OPTIONS_TEXT / 2 };

/* Everything the child needs, made before the fork. */
struct spawn {
	char *argv[ARGUMENTS];
	char **envp;
	char listen_pid[32];       /* "LISTEN_PID=", the number is put in by the child */
	char words[OPTIONS_TEXT];  /* what argv points into */
	const char *program;
	int fd;
	pid_t parent;
};

/* ---- the child */

/* Like snprintf("%d"), which may not be called here. */
static void append_number(char *text, unsigned n)
{
	char digits[16], *at = digits;

	text += strlen(text);
	do
		*at++ = (char)('0' + n % 10);
	while (n /= 10);
	while (at > digits)
		*text++ = *--at;
	*text = '\0';
}

static void signals_reset(void)
{
	sigset_t none;

	for (int i = 1; i < NSIG; i++)
		signal(i, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void __attribute__((noreturn)) child_run(struct spawn *spawn)
{
	signals_reset();
	/* Its own group: Ctrl-C on a terminal is for nicd, which then stops it in order. */
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != spawn->parent)
		_exit(127);
	append_number(spawn->listen_pid, (unsigned)getpid());
	/* dup2 onto itself would leave it closed by exec. */
	if (spawn->fd == LISTEN_FD ? fcntl(LISTEN_FD, F_SETFD, 0) < 0 : dup2(spawn->fd, LISTEN_FD) < 0)
		_exit(127);
	execve(spawn->program, spawn->argv, spawn->envp);
	_exit(127);
}

/* ---- the parent */

static void spawn_arguments(struct spawn *spawn, const struct options *options)
{
	unsigned n = 0;

	spawn->argv[n++] = (char *)options->soft_program;
	spawn->argv[n++] = (char *)"--exit-with-controller";
	if (options->data_listen[0]) {
		spawn->argv[n++] = (char *)"--data-listen";
		spawn->argv[n++] = (char *)options->data_listen;
	}
	if (options->data_advertise[0]) {
		spawn->argv[n++] = (char *)"--data-advertise";
		spawn->argv[n++] = (char *)options->data_advertise;
	}
	strcpy(spawn->words, options->soft_options);
	for (char *word, *rest = spawn->words; (word = strsep(&rest, " \t"));)
		if (*word)
			spawn->argv[n++] = word;
	spawn->argv[n] = NULL;
}

/* Ours without what the service manager told us about our own sockets and supervision. */
static int spawn_environment(struct spawn *spawn)
{
	static const char *const not[] = { "LISTEN_", "NOTIFY_SOCKET=", "WATCHDOG_", "JOURNAL_STREAM=" };
	size_t n = 0;

	while (environ[n])
		n++;
	spawn->envp = calloc(n + 4, sizeof(*spawn->envp));
	if (!spawn->envp)
		return -ENOMEM;
	n = 0;
	for (char **e = environ; *e; e++) {
		bool keep = true;

		for (unsigned i = 0; i < ELEMENTS(not); i++)
			keep &= strncmp(*e, not[i], strlen(not[i])) != 0;
		if (keep)
			spawn->envp[n++] = *e;
	}
	strcpy(spawn->listen_pid, "LISTEN_PID=");
	spawn->envp[n++] = (char *)"LISTEN_FDS=1";
	spawn->envp[n++] = spawn->listen_pid;
	spawn->envp[n++] = (char *)"LISTEN_FDNAMES=control";
	return 0;
}

/* A pair like socketpair's, but the server's end still listens, as nicd-soft expects. */
static int control_open(const char *path, int *listening, int *connection)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	_cleanup_fd_ int server = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	_cleanup_fd_ int client = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r = 0;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, path);
	if (server < 0 || client < 0)
		return -errno;
	unlink(path);
	if (bind(server, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return -errno;
	if (listen(server, 1) < 0 || connect(client, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		r = -errno;
	unlink(path);
	if (r < 0)
		return r;
	*listening = fd_steal(&server);
	*connection = fd_steal(&client);
	return 0;
}

static void control_path(char *dst, size_t size, const struct options *options)
{
	if (options->soft_socket[0])
		snprintf(dst, size, "%s", options->soft_socket);
	else
		snprintf(dst, size, "%s.soft", options->socket);
}

static int spawn_run(struct softproc *softproc, int listening)
{
	struct spawn spawn = { .program = softproc->options->soft_program, .fd = listening, .parent = getpid() };
	int r = spawn_environment(&spawn);

	if (r < 0)
		return r;
	spawn_arguments(&spawn, softproc->options);
	softproc->pid = fork();
	if (softproc->pid == 0)
		child_run(&spawn);
	r = softproc->pid < 0 ? -errno : 0;
	if (r < 0)
		softproc->pid = 0;
	free(spawn.envp);
	softproc->asked = 0;
	return r;
}

int softproc_start(struct softproc *softproc, char *message, size_t size)
{
	const struct options *options = softproc->options;
	char path[OPTIONS_PATH + 8];
	_cleanup_fd_ int listening = -1;
	_cleanup_fd_ int connection = -1;
	int r;

	if (access(options->soft_program, X_OK) < 0) {
		r = -errno;
		snprintf(message, size, "cannot start nicd-soft: %s: %s; name it with --soft-program", options->soft_program, strerror(-r));
		return r;
	}
	control_path(path, sizeof(path), options);
	r = control_open(path, &listening, &connection);
	if (r < 0) {
		snprintf(message, size, "cannot make the control socket of nicd-soft, %s: %s; use a shorter --socket in a writable directory",
			 path, strerror(-r));
		return r;
	}
	r = spawn_run(softproc, listening);
	if (r < 0) {
		snprintf(message, size, "cannot start a process for nicd-soft: %s", strerror(-r));
		return r;
	}
	return fd_steal(&connection);
}

/* ---- its end */

static void on_child(uv_signal_t *signal, int signum)
{
	struct softproc *softproc = container_of(signal, struct softproc, child);
	char how[128];
	int status;

	if (!softproc->pid || waitpid(softproc->pid, &status, WNOHANG) != softproc->pid)
		return;
	softproc->pid = 0;
	uv_timer_stop(&softproc->patience);
	if (WIFSIGNALED(status))
		snprintf(how, sizeof(how), "killed by %s", strsignal(WTERMSIG(status)));
	else if (WEXITSTATUS(status) == 127)
		snprintf(how, sizeof(how), "could not be executed");
	else
		snprintf(how, sizeof(how), "exit code %d", WEXITSTATUS(status));
	softproc->ended(softproc, how);
}

static void on_patience(uv_timer_t *timer)
{
	struct softproc *softproc = container_of(timer, struct softproc, patience);

	if (softproc->pid)
		kill(softproc->pid, softproc->asked++ ? SIGKILL : SIGTERM);
}

void softproc_stop(struct softproc *softproc)
{
	if (!softproc->pid)
		return;
	kill(softproc->pid, SIGTERM);
	softproc->asked = 1;
	uv_timer_start(&softproc->patience, on_patience, PATIENCE_MS, PATIENCE_MS);
}

int softproc_init(struct softproc *softproc, uv_loop_t *loop, const struct options *options)
{
	int r;

	softproc->options = options;
	softproc->pid = 0;
	uv_timer_init(loop, &softproc->patience);
	softproc->open_handles = 1;
	r = uv_signal_init(loop, &softproc->child);
	if (r < 0)
		return r;
	softproc->open_handles = 2;
	return uv_signal_start(&softproc->child, on_child, SIGCHLD);
}

static void on_closed(uv_handle_t *handle)
{
	((struct softproc *)handle->data)->open_handles--;
}

void softproc_close(struct softproc *softproc)
{
	if (!softproc->open_handles)
		return;
	softproc->patience.data = softproc->child.data = softproc;
	uv_close((uv_handle_t *)&softproc->patience, on_closed);
	if (softproc->open_handles == 2)
		uv_close((uv_handle_t *)&softproc->child, on_closed);
}
