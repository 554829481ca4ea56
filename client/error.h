/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Why a call failed, as nicd_error_info: from nicd's reply, from the table of reasons when the library refuses by the same
 * rule, from the table below when the matter is the library's own, or from the system.
 */
#include "client/nicd.h"
#include "proto/nicd.pb-c.h"
#include "proto/reason.h"

/* X(NAME, NDK status, errno, text, cure) */
#define ERROR_LOCALS(X) \
	X(NOT_CONNECTED, DEVICE_REMOVED, ENOTCONN, "the connection to nicd is lost", "open a new session with nicd_open()") \
	X(CONNECTION_LOST, DEVICE_REMOVED, ECONNRESET, "the connection to nicd ended before the answer came", \
	  "open a new session with nicd_open()") \
	X(SESSION_CLOSED, CANCELLED, ECANCELED, "nicd_free() was called before the answer came", "") \
	X(LIST_FREED, CANCELLED, ECANCELED, "the list was freed before its page came", "") \
	X(FORKED, INVALID_DEVICE_STATE, EOWNERDEAD, "the session belongs to the process that this one was forked from", \
	  "open a session of its own in the child") \
	X(IN_CALLBACK, INVALID_DEVICE_STATE, EBUSY, "nicd_dispatch() was called inside a callback", "return from the callback first") \
	X(STILL_USED, DEVICE_BUSY, EBUSY, "`observed` open handles stand on the object, and its close is answered after theirs", \
	  "close them first, or use the async call") \
	X(HAS_HANDLE, INVALID_PARAMETER, EEXIST, "the Qp has a handle already", "use that one") \
	X(FETCHING, INVALID_DEVICE_STATE, EBUSY, "a page is being fetched", "wait for its callback") \
	X(ARGUMENT, INVALID_PARAMETER, EINVAL, "an argument is NULL, out of its range, or of another session", \
	  "see the comment of the call in nicd.h") \
	X(STRUCT_SIZE, INVALID_PARAMETER, EINVAL, "the struct's size is `observed`, at least `limit` is needed", \
	  "set its member size to sizeof before the call") \
	X(STRUCT_NEWER, INVALID_PARAMETER, E2BIG, "the struct has members that this library does not know, and they are not 0", \
	  "leave them 0, or use a newer library") \
	X(NO_MEMORY, INSUFFICIENT_RESOURCES, ENOMEM, "this process is out of memory", "release memory") \
	X(GREETING_TIMEOUT, TIMEOUT, ETIMEDOUT, "nicd did not answer in time", "see whether it runs, and its journal") \
	X(NOT_NICD, PROTOCOL_VIOLATION, EPROTO, "what came from the socket is not what nicd says", \
	  "check the socket's path and that library and nicd are of one version") \
	X(MESSAGE_TOO_BIG, INVALID_PARAMETER, EMSGSIZE, "the request does not fit into one message", "use fewer or shorter arguments") \
	X(HUGE_PAGES, INSUFFICIENT_RESOURCES, ENOMEM, "`limit` huge pages of the size asked for are free, and `observed` are needed", \
	  "let the administrator raise nr_hugepages in /sys/kernel/mm/hugepages/hugepages-2048kB (-1048576kB for 1 GiB), " \
	  "or use NICD_BUFFER_HUGE, which falls back to smaller pages") \
	X(HUGE_PAGES_SIZE, INSUFFICIENT_RESOURCES, ENOMEM, "the kernel has no huge pages of the size asked for", \
	  "see /sys/kernel/mm/hugepages for those it has, or use NICD_BUFFER_HUGE, which falls back to smaller pages") \
	X(HUGE_PAGES_GROUP, INSUFFICIENT_RESOURCES, ENOMEM, \
	  "`limit` huge pages are free and `observed` needed, but this process was not given them", \
	  "raise hugetlb.2MB.max (hugetlb.1GB.max) of its cgroup, or see whether others have reserved them")

enum error_local {
#define X(name, status, err, text, cure) ERROR_##name,
	ERROR_LOCALS(X)
#undef X
	ERROR_LOCAL_COUNT
};

/* All fill *ret and return its negative errno. */
int error_local(struct nicd_error_info *ret, enum error_local which, uint64_t limit, uint64_t observed);
int error_reason(struct nicd_error_info *ret, const struct nicd_error *error);
/* `err` is a positive errno; `what` and `cure` are printed: "what: No such file or directory". */
int error_system(struct nicd_error_info *ret, int err, const char *what, const char *cure);
int error_reply(struct nicd_error_info *ret, const Nicd__Error *error);
int error_fatal(struct nicd_error_info *ret, const Nicd__Fatal *fatal);
