/* SPDX-License-Identifier: MIT */
/*
 * What nicd has beyond NDKPI: the one table of its extensions, and QueryExtension, which shows of it what an object has. NDKPI defines no
 * extension, only the way to ask; a uuid, once given, is for ever, and so is what a version of it means.
 */
#include <string.h>

#include "daemon/method.h"

#define UUID(a, b, c, d, e) { \
	(uint8_t)((a) >> 24), (uint8_t)((a) >> 16), (uint8_t)((a) >> 8), (uint8_t)(a), (uint8_t)((b) >> 8), (uint8_t)(b), \
	(uint8_t)((c) >> 8), (uint8_t)(c), (uint8_t)((d) >> 8), (uint8_t)(d), (uint8_t)((e) >> 40), (uint8_t)((e) >> 32), \
	(uint8_t)((e) >> 24), (uint8_t)((e) >> 16), (uint8_t)((e) >> 8), (uint8_t)(e) }

/* Sets of enum nic_type. */
enum {
	ADAPTER = 1u << NIC_ADAPTER,
	MEMORY = 1u << NIC_MEMORY,
	PD = 1u << NIC_PD,
	MR = 1u << NIC_MR,
	MW = 1u << NIC_MW,
	MAPPING = 1u << NIC_MAPPING,
	QP = 1u << NIC_QP,
	TICKET = 1u << NIC_TICKET,
	EXPORT = 1u << NIC_EXPORT,
	EVERY = ADAPTER | MEMORY | PD | MR | MW | MAPPING | QP | TICKET | EXPORT,
};

struct extension {
	uint8_t uuid[16];
	uint32_t version;
	uint32_t objects;    /* that have it */
	const char *name;
	const char *calls;   /* as nicd.Request calls them */
};

static const struct extension extensions[] = {
	/* objects, by serial */
	{ UUID(0x0b96dac1u, 0x4e8eu, 0x46a4u, 0x90f2u, 0x9a96596e5655ull), 1, EVERY, "nicd.list", "list" },
	/* the accounts */
	{ UUID(0x6be11b2fu, 0x1047u, 0x40a7u, 0x8512u, 0xd7e47dd558caull), 1, ADAPTER, "nicd.ledger", "ledger" },
	/* NDK's consumer brings locked MDLs; ours a memfd */
	{ UUID(0x4615b7b4u, 0xd967u, 0x4c8du, 0xba80u, 0x6f4e83a6a607ull), 1, ADAPTER | MEMORY, "nicd.memory", "add_memory" },
	/* those of many MRs at once */
	{ UUID(0xdc777a88u, 0xa9a5u, 0x434bu, 0xa811u, 0x354594beb338ull), 1, MR, "nicd.tokens", "query_tokens" },
	/* who can touch it */
	{ UUID(0x27a580dcu, 0x0fc7u, 0x4757u, 0x9ea4u, 0xb4102f2c87a1ull), 1, MR | MW | EXPORT, "nicd.who", "who" },
	/* ends remote access, by serial */
	{ UUID(0xe41c1d3eu, 0x327fu, 0x4c7cu, 0xad0eu, 0x519cf9b072e7ull), 1, MR | MW | QP | TICKET | EXPORT, "nicd.revoke", "revoke" },
	/* the right to connect to a PD */
	{ UUID(0x500da1dfu, 0xd541u, 0x4775u, 0x8e87u, 0xa47a41e4b84aull), 1, PD | MR | TICKET, "nicd.ticket", "create_ticket" },
	/* a named range of an MR, and the right to connect to it */
	{ UUID(0x64a7d265u, 0x7d59u, 0x4295u, 0xa4d1u, 0x6649b8b95784ull), 1, MR | EXPORT, "nicd.export", "create_export" },
	/* NdkCreateQp and NdkConnect in one; the Qps that peers made */
	{ UUID(0x3c343affu, 0x213au, 0x479bu, 0xa94cu, 0x803ba691c6b0ull), 1, PD | QP, "nicd.connect", "connect_qp query_qp" },
	/* up to 1,024 transfers with one completion */
	{ UUID(0xe6c3e9efu, 0xaa66u, 0x4eb9u, 0x84f5u, 0xd376581403b1ull), 1, QP, "nicd.transfer-list", "transfer_list" },
	/* OP_NOTIFY: the owner of the door hears that all is there */
	{ UUID(0x1c3e6358u, 0x61c1u, 0x4f1eu, 0x9064u, 0x3f897d7f540bull), 1, QP | TICKET | EXPORT, "nicd.notify", "write transfer_list" },
};

enum { EXTENSIONS = sizeof(extensions) / sizeof(extensions[0]), UUID_SIZE = sizeof(extensions[0].uuid) };

/* The answer's memory: the messages, and the pointers to them. */
struct extension_list {
	Nicd__Extension items[EXTENSIONS];
	Nicd__Extension *pointers[EXTENSIONS];
};

/* Of one object: all extensions, or the one asked for. An adapter has what its objects have. */
static void extension_fill(Nicd__ExtensionList *list, struct extension_list *mem, uint32_t object, const uint8_t *uuid)
{
	list->extensions = mem->pointers;
	for (unsigned i = 0; i < EXTENSIONS; i++) {
		const struct extension *extension = &extensions[i];
		Nicd__Extension *item = &mem->items[list->n_extensions];

		if (!(object == ADAPTER || extension->objects & object) || (uuid && memcmp(uuid, extension->uuid, UUID_SIZE) != 0))
			continue;
		nicd__extension__init(item);
		/* protobuf-c has no const strings; nothing writes to a message that is packed. */
		item->uuid = (ProtobufCBinaryData){ UUID_SIZE, (uint8_t *)extension->uuid };
		item->version = extension->version;
		item->name = (char *)extension->name;
		item->calls = (char *)extension->calls;
		item->objects = extension->objects;
		mem->pointers[list->n_extensions++] = item;
	}
}

int method_query_extension(struct request *request, struct answer *answer, struct nicd_error *err)
{
	const Nicd__QueryExtension *args = request->args;
	Nicd__ExtensionList *list = &answer->extensions;
	struct extension_list *mem;

	if (args->uuid.len != 0 && args->uuid.len != UUID_SIZE)
		return nicd_refuse_at(err, NICD_R_VALUE, UUID_SIZE, args->uuid.len);
	mem = answer_alloc(answer, request->client->host->env, sizeof(*mem));
	if (!mem)
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	nicd__extension_list__init(list);
	extension_fill(list, mem, 1u << request->objects[0]->type, args->uuid.len ? args->uuid.data : NULL);
	if (args->uuid.len && (!list->n_extensions || list->extensions[0]->version < args->version))
		return nicd_refuse_at(err, NICD_R_EXTENSION, list->n_extensions ? list->extensions[0]->version : 0, args->version);
	answer->reply.extensions = list;
	answer->reply.result_case = NICD__REPLY__RESULT_EXTENSIONS;
	return 0;
}
