/* SPDX-License-Identifier: MIT */
/*
 * Prints nicd's table of lives, for the model and for what checks it:
 *
 *   print-life names   the states and steps as Promela's mtype
 *   print-life cells   "cell STATE STEP OUTCOME", the outcome being a state, or STATE or KIND for who refuses. What cannot be is left out.
 *
 * It reads the table itself and not what was asked of it, so it is made of life.c.
 */
#include <stdio.h>
#include <string.h>

#include "nicd/life.c"

static const char *const kinds[NIC_KIND_COUNT] = { "NORMAL", "FAST", "WINDOW" };

static void print_names(void)
{
	printf("/* Made by print-life. */\n");
	for (unsigned kind = 0; kind < NIC_KIND_COUNT; kind++) {
		printf("mtype = {");
		for (unsigned s = 0; s < lives[kind].n_states; s++)
			printf("%s %s_%s", s ? "," : "", kinds[kind], lives[kind].states[s]);
		printf(" };\n");
	}
	printf("mtype = { STATE, KIND");
	for (unsigned step = 0; step < NIC_STEP_COUNT; step++)
		printf(", STEP_%s", step_names[step]);
	printf(" };\n");
}

static void print_cell(unsigned kind, unsigned state, unsigned step)
{
	const struct life *life = &lives[kind];
	uint8_t cell = life->cells[step][state];

	if (cell == NEVER)
		return;
	printf("cell %s_%s STEP_%s ", kinds[kind], life->states[state], step_names[step]);
	if (cell == STATE || cell == KIND)
		printf("%s\n", cell == STATE ? "STATE" : "KIND");
	else
		printf("%s_%s\n", kinds[kind], life->states[cell == SAME ? state : (unsigned)cell - FIRST]);
}

int main(int argc, char **argv)
{
	if (argc != 2 || (strcmp(argv[1], "names") != 0 && strcmp(argv[1], "cells") != 0)) {
		fprintf(stderr, "usage: print-life names|cells\n");
		return 2;
	}
	if (strcmp(argv[1], "names") == 0) {
		print_names();
		return 0;
	}
	for (unsigned kind = 0; kind < NIC_KIND_COUNT; kind++)
		for (unsigned step = 0; step < NIC_STEP_COUNT; step++)
			for (unsigned state = 0; state < lives[kind].n_states; state++)
				print_cell(kind, state, step);
	return 0;
}
