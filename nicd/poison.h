/* SPDX-License-Identifier: MIT */
#pragma once
/* For memory that is handed out in parts: lets the address sanitizer watch over the parts that nobody has. */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define poison(ptr, size) __asan_poison_memory_region(ptr, size)
#define unpoison(ptr, size) __asan_unpoison_memory_region(ptr, size)
#else
#define poison(ptr, size) ((void)(ptr), (void)(size))
#define unpoison(ptr, size) ((void)(ptr), (void)(size))
#endif
