/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The control socket of nicd-soft: admits one controller at a time, by its uid, reads its frames, and writes what the
 * device answers. A violation ends the connection; what the device then keeps is what the controller said in its Hello.
 */
#include <sys/types.h>
#include <uv.h>

struct soft_control;
struct soft_device;

struct soft_control_options {
	uid_t uid;                         /* the only one admitted */
	void (*gone)(void *userdata);      /* a controller that was admitted went; may be NULL */
	void *userdata;
};

/* Makes the device, too. -ENOMEM or what libuv says. */
int soft_control_new(struct soft_control **ret, uv_loop_t *loop, const struct soft_control_options *options);
/* Ends the controller and the device; the loop must run until `closed`, in which the control may be freed. */
void soft_control_close(struct soft_control *control, void (*closed)(void *userdata), void *userdata);
void soft_control_free(struct soft_control *control);

struct soft_device *soft_control_device(struct soft_control *control);

/* Takes a listening SOCK_SEQPACKET socket, also on failure. Once. */
int soft_control_listen(struct soft_control *control, int fd);
/* Takes a connected one, also on failure. -EPERM: another uid; -EBUSY: there is a controller. */
int soft_control_admit(struct soft_control *control, int fd);
