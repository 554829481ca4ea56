/* SPDX-License-Identifier: MIT */
/*
 * The process nicd-soft: reads its options, makes its sockets, runs the loop until it is told to stop, and leaves
 * nothing behind.
 */
#include <errno.h>
#include <malloc.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>
#include <uv.h>

#include "nicd/soft/control.h"
#include "nicd/soft/device.h"
#include "nicd/soft/listen.h"
#include "nicd/soft/mpa.h"

enum {
	EXIT_USAGE = 2,
	FPDU_MIN = 128,
	MAPPINGS_OWN = 4096,   /* for libraries, stacks, the heap, and memories that are being unmapped */
};

struct options {
	const char *socket;
	const char *data_listen;
	const char *data_advertise;
	uid_t controller_uid;
	uint32_t fpdu;
	bool crc;
	bool exit_with_controller;
	uint32_t caps[SOFT_CAPS];
	uint32_t max_mappings;
};

struct process {
	struct options options;
	uv_loop_t loop;
	uv_signal_t signals[2];
	struct soft_control *control;
	bool stopping;
	bool bound;   /* the socket at options.socket is ours to remove */
};

/* ---- options */

static int set_socket(struct options *o, const char *value)
{
	o->socket = value;
	return 0;
}

/* A name is for units, which are written before the uid is known. */
static int set_controller_uid(struct options *o, const char *value)
{
	const struct passwd *user = getpwnam(value);
	char *end;
	unsigned long uid;

	if (user) {
		o->controller_uid = user->pw_uid;
		return 0;
	}
	errno = 0;
	uid = strtoul(value, &end, 10);
	if (errno || end == value || *end || *value == '-' || uid >= (uid_t)-1)
		return -EINVAL;
	o->controller_uid = (uid_t)uid;
	return 0;
}

static int set_data_listen(struct options *o, const char *value)
{
	o->data_listen = value;
	return 0;
}

static int set_data_advertise(struct options *o, const char *value)
{
	struct sockaddr_storage addr;

	o->data_advertise = value;
	return locator_addr_parse(value, &addr);
}

static int set_crc(struct options *o, const char *value)
{
	o->crc = true;
	return 0;
}

static int set_fpdu(struct options *o, const char *value)
{
	char *end;
	unsigned long n = strtoul(value, &end, 10);

	if (!strcmp(value, "mss")) {
		o->fpdu = SOFT_FPDU_MSS;
		return 0;
	}
	if (*value < '0' || *value > '9' || *end || n < FPDU_MIN || n > FPDU_ULPDU_MAX)
		return -EINVAL;
	o->fpdu = n;
	return 0;
}

static int set_exit_with_controller(struct options *o, const char *value)
{
	o->exit_with_controller = true;
	return 0;
}

static int set_number(uint32_t *at, const char *value)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(value, &end, 10);
	if (errno || end == value || *end || *value == '-' || n > INT32_MAX)
		return -EINVAL;
	*at = (uint32_t)n;
	return 0;
}

static int set_max_mappings(struct options *o, const char *value)
{
	return set_number(&o->max_mappings, value);
}

static int print_help(struct options *o, const char *value);

static int print_version(struct options *o, const char *value)
{
	puts("nicd-soft " NICD_VERSION);
	exit(EXIT_SUCCESS);
}

static const struct option_row {
	const char *name, *value, *help;
	int (*set)(struct options *o, const char *value);
} option_rows[] = {
	{"--socket", "PATH", "where the controller connects, unless LISTEN_FDS brings that socket", set_socket},
	{"--controller-uid", "UID|NAME", "the only user who may control (default: own)", set_controller_uid},
	{"--data-listen", "ADDR:PORT", "where peers connect (default 127.0.0.1:7190); port 0: any", set_data_listen},
	{"--data-advertise", "ADDR:PORT", "what peers are told to connect to (default: where it listens)", set_data_advertise},
	{"--max-mappings", "N", "memories of all accounts mapped at once (default: vm.max_map_count - 4096)", set_max_mappings},
	{"--crc", NULL, "protect every frame by a checksum, also where the peer does not ask for it", set_crc},
	{"--fpdu", "BYTES|mss",
	 "largest frame sent (default: 64 KiB on this host and to a nicd-soft, else what fits a TCP segment; mss: that on this host too)",
	 set_fpdu},
	{"--exit-with-controller", NULL, "end when the controller goes", set_exit_with_controller},
	{"--version", NULL, "print the version", print_version},
	{"--help", NULL, "print this", print_help},
};
enum { OPTION_ROWS = sizeof(option_rows) / sizeof(option_rows[0]) };

static void print_row(const char *name, const char *value, const char *help)
{
	printf("  %s%s%-*s %s\n", name, value ? " " : "", 34 - (int)strlen(name) - (value ? 1 : 0), value ? value : "", help);
}

static int print_help(struct options *o, const char *value)
{
	puts("nicd-soft: a software RNIC (iWARP over TCP), driven by nicd\n");
	for (unsigned i = 0; i < OPTION_ROWS; i++)
		print_row(option_rows[i].name, option_rows[i].value, option_rows[i].help);
	puts("\nHow many connections there may be:\n");
	for (unsigned i = 0; i < SOFT_CAPS; i++)
		print_row(soft_cap_rows[i].name, "N", soft_cap_rows[i].help);
	puts("\nA connection has 5 s to show its ticket, and a peer that was let in 60 s for its first frame.");
	exit(EXIT_SUCCESS);
}

static const struct option_row *find_option(const char *name, size_t len)
{
	for (unsigned i = 0; i < OPTION_ROWS; i++)
		if (strlen(option_rows[i].name) == len && !strncmp(option_rows[i].name, name, len))
			return &option_rows[i];
	return NULL;
}

/* The place of the number that this caps; NULL: no cap is called so. */
static uint32_t *find_cap(struct options *o, const char *name, size_t len)
{
	for (unsigned i = 0; i < SOFT_CAPS; i++)
		if (strlen(soft_cap_rows[i].name) == len && !strncmp(soft_cap_rows[i].name, name, len))
			return &o->caps[i];
	return NULL;
}

/* "--name value" or "--name=value". */
static int options_read(struct options *o, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *name = argv[i], *equals = strchr(name, '=');
		size_t len = equals ? (size_t)(equals - name) : strlen(name);
		const struct option_row *row = find_option(name, len);
		uint32_t *cap = find_cap(o, name, len);
		const char *value = equals ? equals + 1 : NULL;
		bool wants = cap || (row && row->value);

		if (wants && !value)
			value = argv[++i];
		if ((!row && !cap) || wants != !!value || (cap ? set_number(cap, value) : row->set(o, value)) < 0) {
			fprintf(stderr, "nicd-soft: %s%s%s: %s; see --help\n", name, value && !equals ? " " : "",
				value && !equals ? value : "", row || cap ? "no value that it takes" : "no such option");
			return -EINVAL;
		}
	}
	return 0;
}

/* ---- sockets */

static int complain(const char *what, const char *which, int r)
{
	fprintf(stderr, "nicd-soft: cannot %s %s: %s\n", what, which, strerror(-r));
	return r;
}

static bool is_any(const struct sockaddr_storage *addr)
{
	if (addr->ss_family == AF_INET)
		return ((const struct sockaddr_in *)addr)->sin_addr.s_addr == htonl(INADDR_ANY);
	return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)addr)->sin6_addr);
}

/* Locators name the address that is advertised. */
static int check_advertised(const struct process *process, const struct sockaddr_storage *addr)
{
	char text[64];

	if (process->options.data_advertise || !is_any(addr))
		return 0;
	locator_addr_print(addr, text);
	fprintf(stderr, "nicd-soft: no peer can connect to %s; say with --data-advertise what they shall connect to\n", text);
	return -EINVAL;
}

static void advertise(struct process *process, const struct sockaddr_storage *bound)
{
	char text[64];

	locator_addr_print(bound, text);
	soft_device_advertise(soft_control_device(process->control),
			      process->options.data_advertise ? process->options.data_advertise : text);
}

static int data_bind(struct process *process, struct sockaddr_storage *bound)
{
	struct soft_engine *engine = soft_device_engine(soft_control_device(process->control));
	struct sockaddr_storage addr;
	int r = locator_addr_parse(process->options.data_listen, &addr);

	if (r == 0 && check_advertised(process, &addr) < 0)
		return -EINVAL;
	if (r == 0)
		r = soft_engine_listen(engine, (const struct sockaddr *)&addr, bound);
	return r < 0 ? complain("listen for peers at", process->options.data_listen, r) : 0;
}

static int data_inherit(struct process *process, int fd, struct sockaddr_storage *bound)
{
	int r = soft_engine_listen_fd(soft_device_engine(soft_control_device(process->control)), fd, bound);

	return r < 0 ? complain("listen for peers on", "the inherited socket", r) : check_advertised(process, bound);
}

/* An inherited socket goes before the option. */
static int data_open(struct process *process, int inherited)
{
	struct sockaddr_storage bound;
	int r = inherited < 0 ? data_bind(process, &bound) : data_inherit(process, inherited, &bound);

	if (r == 0)
		advertise(process, &bound);
	return r;
}

static int control_open(struct process *process, int inherited)
{
	const char *path = process->options.socket;
	int r, fd = inherited;

	if (fd < 0 && !path) {
		fputs("nicd-soft: no control socket; name one with --socket\n", stderr);
		return -EINVAL;
	}
	if (fd < 0) {
		r = soft_listen_path(path, process->options.controller_uid, &fd);
		if (r < 0)
			return complain("listen for the controller at", path, r);
		process->bound = true;
	}
	return soft_control_listen(process->control, fd);
}

static int sockets_open(struct process *process)
{
	int control, data;
	int r = soft_listen_inherited(&control, &data);

	if (r < 0)
		return complain("use", "LISTEN_FDS (one listening SEQPACKET socket and one TCP socket)", r);
	r = data_open(process, data);
	if (r == 0)
		r = control_open(process, control);
	return r;
}

/* ---- life */

static void on_closed(void *userdata)
{
}

/* What is open closes, and then the loop has nothing left to run for. */
static void stop(struct process *process)
{
	if (process->stopping)
		return;
	process->stopping = true;
	sd_notify(0, "STOPPING=1");
	for (unsigned i = 0; i < 2; i++)
		uv_close((uv_handle_t *)&process->signals[i], NULL);
	soft_control_close(process->control, on_closed, NULL);
}

static void on_signal(uv_signal_t *handle, int signum)
{
	stop(handle->data);
}

static void on_gone(void *userdata)
{
	struct process *process = userdata;

	if (process->options.exit_with_controller)
		stop(process);
}

/* A line for the journal; the engine takes care that they are few. */
static void on_cap(void *userdata, enum soft_cap cap, uint32_t limit, uint64_t refused, const char *peer)
{
	const struct soft_cap_row *row = &soft_cap_rows[cap];

	fprintf(stderr, SD_WARNING "%u %s (%llu times so far%s%s); raise %s if they are welcome\n", limit, row->told,
		(unsigned long long)refused, peer[0] ? ", last " : "", peer, row->name);
}

/* Below what the kernel allows, so that it is we who refuse and the process keeps room for itself. */
static uint32_t mappings_default(void)
{
	FILE *f = fopen("/proc/sys/vm/max_map_count", "re");
	unsigned n = 0;

	if (!f || fscanf(f, "%u", &n) != 1)
		n = 65530;
	if (f)
		fclose(f);
	return n > 2 * MAPPINGS_OWN ? n - MAPPINGS_OWN : n / 2;
}

static void process_limit(struct process *process)
{
	struct soft_device *device = soft_control_device(process->control);
	struct soft_caps *caps = soft_engine_caps(soft_device_engine(device));
	uint32_t mappings = process->options.max_mappings;

	memcpy(caps->max, process->options.caps, sizeof(caps->max));
	caps->tell = on_cap;
	soft_device_limit_mappings(device, mappings ? mappings : mappings_default());
}

static int process_start(struct process *process)
{
	static const int signals[2] = {SIGTERM, SIGINT};
	struct soft_control_options options = {
		.uid = process->options.controller_uid, .gone = on_gone, .userdata = process,
	};
	int r;

	r = uv_loop_init(&process->loop);
	if (r == 0)
		r = uv_loop_configure(&process->loop, UV_METRICS_IDLE_TIME);
	if (r == 0)
		r = soft_control_new(&process->control, &process->loop, &options);
	if (r < 0)
		return complain("start", "the device", r);
	process_limit(process);
	for (unsigned i = 0; i < 2; i++) {
		uv_signal_init(&process->loop, &process->signals[i]);
		process->signals[i].data = process;
		uv_signal_start(&process->signals[i], on_signal, signals[i]);
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct process process = {
		.options = {.data_listen = "127.0.0.1:7190", .controller_uid = geteuid()},
	};
	int r;

	for (unsigned i = 0; i < SOFT_CAPS; i++)
		process.options.caps[i] = soft_cap_rows[i].normal;
	if (options_read(&process.options, argc, argv) < 0)
		return EXIT_USAGE;
	/* As in nicd: buffers come and go, the memory stays. */
	mallopt(M_TRIM_THRESHOLD, 2 << 20);
	signal(SIGPIPE, SIG_IGN);
	if (process_start(&process) < 0)
		return EXIT_FAILURE;
	soft_engine_framing(soft_device_engine(soft_control_device(process.control)), process.options.fpdu, process.options.crc);
	r = sockets_open(&process);
	if (r < 0)
		stop(&process);
	else
		sd_notify(0, "READY=1");
	uv_run(&process.loop, UV_RUN_DEFAULT);
	if (process.bound)
		unlink(process.options.socket);
	soft_control_free(process.control);
	uv_loop_close(&process.loop);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
