/* SPDX-License-Identifier: MIT */
/* With -DCELLS the model says which cells of nicd's table it takes, if pan is built with -DPRINTF. */
#ifdef CELLS
hidden mtype said;
#define say(name) said = name; printm(said)
#define cell(from, step, to) printf("cell "); say(from); printf(" "); say(step); printf(" "); say(to); printf("\n")
#else
#define cell(from, step, to) skip
#endif
