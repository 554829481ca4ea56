/* SPDX-License-Identifier: MIT */
/* Keys: drawn like tokens, so that none is equal to one -> compared with what posts name -> dropped, and in quarantine like a token. */
#include "nicd/soft/key.h"

#include <errno.h>
#include <stdlib.h>

#include "nicd/soft/table.h"
#include "proto/secret.h"

enum {
	FIRST_KEYS = 64,
	SECRET = SOFT_KEYS * sizeof(struct nic_ptok) + SOFT_KEY_MARKS * sizeof(uint16_t),
};

static uint64_t value_of(const void *owner, uint32_t place)
{
	return ((const struct soft_keys *)owner)->values[place].v;
}

static uint64_t pd_of(const void *owner, uint32_t place)
{
	return ((const struct soft_keys *)owner)->keys[place].pd;
}

int soft_keys_init(struct soft_keys *keys)
{
	*keys = (struct soft_keys){.n_places = 1};
	keys->values = secret_map(SECRET);
	keys->marks = keys->values ? (uint16_t *)(keys->values + SOFT_KEYS) : NULL;
	if (keys->values && soft_index_init(&keys->by_value, FIRST_KEYS, value_of, keys) == 0 &&
	    soft_index_init(&keys->by_pd, FIRST_KEYS, pd_of, keys) == 0)
		return 0;
	soft_keys_deinit(keys);
	return -ENOMEM;
}

void soft_keys_deinit(struct soft_keys *keys)
{
	soft_index_deinit(&keys->by_value);
	soft_index_deinit(&keys->by_pd);
	keys->values = secret_unmap(keys->values, SECRET);
	free(keys->keys);
	*keys = (struct soft_keys){0};
}

/* 0: no memory, or no place left. */
static uint32_t place_take(struct soft_keys *keys)
{
	uint32_t place = keys->first_free, max = keys->max_places ? keys->max_places * 2 : FIRST_KEYS;
	struct soft_key *more;

	if (place) {
		keys->first_free = keys->keys[place].next_free;
		return place;
	}
	if (keys->n_places >= keys->max_places && max <= SOFT_KEYS) {
		more = realloc(keys->keys, max * sizeof(*more));
		if (!more)
			return 0;
		keys->keys = more;
		keys->max_places = max;
	}
	return keys->n_places < keys->max_places ? keys->n_places++ : 0;
}

static void place_give(struct soft_keys *keys, uint32_t place)
{
	keys->keys[place] = (struct soft_key){.next_free = keys->first_free};
	keys->first_free = place;
}

int soft_key_add(struct soft_tags *tags, uint64_t pd, uint64_t owner, struct nic_ptok *ret, struct nicd_error *err)
{
	struct soft_keys *keys = &tags->keys;
	uint32_t place = soft_index_find(&keys->by_pd, pd);

	if (place && keys->keys[place].owner != owner)
		return nicd_refuse_at(err, NICD_R_DEVICE_BUSY, keys->keys[place].owner, owner);
	if (place) {
		*ret = keys->values[place];
		return 0;
	}
	if (pd == 0 || owner == 0)
		return nicd_refuse(err, NICD_R_SERIAL);
	if (keys->n >= SOFT_KEYS - 1)
		return nicd_refuse_at(err, NICD_R_TAGS_EXHAUSTED, SOFT_KEYS - 1, keys->n);
	if (soft_index_reserve(&keys->by_value) < 0 || soft_index_reserve(&keys->by_pd) < 0 || !(place = place_take(keys)))
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	keys->values[place].v = soft_tokens_draw(&tags->tokens);
	if (keys->values[place].v == 0) {
		place_give(keys, place);
		return nicd_refuse(err, NICD_R_TAGS_EXHAUSTED);
	}
	keys->keys[place] = (struct soft_key){.pd = pd, .owner = owner};
	soft_index_add(&keys->by_value, keys->values[place].v, place);
	keys->marks[soft_key_mark(keys->values[place].v)]++;
	soft_index_add(&keys->by_pd, pd, place);
	keys->n++;
	*ret = keys->values[place];
	return 0;
}

void soft_key_drop(struct soft_tags *tags, uint64_t pd)
{
	struct soft_keys *keys = &tags->keys;
	uint32_t place = soft_index_find(&keys->by_pd, pd);

	if (!place)
		return;
	soft_index_remove(&keys->by_pd, pd, place);
	keys->marks[soft_key_mark(keys->values[place].v)]--;
	soft_token_release(&tags->tokens, &keys->by_value, keys->values[place].v, place, soft_tokens_ms(&tags->tokens));
	keys->values[place].v = 0;
	place_give(keys, place);
	keys->n--;
}

void soft_keys_drop_all(struct soft_tags *tags)
{
	for (uint32_t place = 1; tags->keys.n > 0 && place < tags->keys.n_places; place++)
		if (tags->keys.keys[place].pd)
			soft_key_drop(tags, tags->keys.keys[place].pd);
}

const struct soft_key *soft_key_of(const struct soft_tags *tags, uint64_t pd)
{
	uint32_t place = tags->keys.n > 0 ? soft_index_find(&tags->keys.by_pd, pd) : 0;

	return place ? &tags->keys.keys[place] : NULL;
}

bool soft_key_is(const struct soft_tags *tags, const struct soft_key *key, uint32_t said)
{
	return tags->keys.values[key - tags->keys.keys].v == said;
}
