/* SPDX-License-Identifier: MIT */
/* The common head of handles. See object.h. */
#include <stdlib.h>

#include "client/conn.h"
#include "client/object.h"

static int object_compare(const struct object *a, const struct object *b)
{
	return a->id < b->id ? -1 : a->id > b->id;
}

RB_PROTOTYPE(object_tree, object, by_id, object_compare)
RB_GENERATE(object_tree, object, by_id, object_compare)

void *object_new(struct nicd *n, uint32_t type, size_t size, struct object *parent, void (*fini)(struct object *object))
{
	struct object *object = calloc(1, size);

	if (!object)
		return NULL;
	object->n = n;
	object->type = type;
	object->fini = fini;
	object->refs = 1;
	if (parent) {
		object->parent = object_ref(parent);
		parent->users++;
	}
	TAILQ_INSERT_TAIL(&n->objects, object, of_session);
	return object;
}

struct object *object_ref(struct object *object)
{
	object->refs++;
	return object;
}

struct object *object_unref(struct object *object)
{
	if (!object || --object->refs > 0)
		return NULL;
	if (object->fini)
		object->fini(object);
	TAILQ_REMOVE(&object->n->objects, object, of_session);
	object_unref(object->parent);
	free(object->why);
	free(object);
	return NULL;
}

bool object_live(struct object *object, uint64_t id, uint64_t serial)
{
	if (id == 0 || object->state != OBJECT_PENDING)
		return false;
	object->id = id;
	object->serial = serial;
	/* A closed one may no more be found, but calls that were made before the close still need its id. */
	if (!object->closed && RB_INSERT(object_tree, &object->n->ids, object)) {
		object->id = 0;
		return false;
	}
	object->state = OBJECT_LIVE;
	return true;
}

void object_fail(struct object *object, const struct nicd_error_info *why)
{
	object->state = OBJECT_FAILED;
	object->why = malloc(sizeof(*why));
	if (object->why)
		*object->why = *why;
}

void object_close(struct object *object)
{
	object->closed = true;
	if (object->state == OBJECT_LIVE)
		RB_REMOVE(object_tree, &object->n->ids, object);
	if (object->parent)
		object->parent->users--;
	object_unref(object);
}

struct object *object_find(struct nicd *n, uint64_t id)
{
	struct object key = { .id = id };

	return RB_FIND(object_tree, &n->ids, &key);
}
