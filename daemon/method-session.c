/* SPDX-License-Identifier: MIT */
/* Methods of the session itself: Hello, and the adapters. */
#include "daemon/method.h"

#include <string.h>

#include "daemon/util.h"

enum { HELLO_TEXT = 64 };

/* NDK's version rule: the same major, and a minor that we have. */
static int hello_version(const Nicd__Hello *hello, struct nicd_error *err)
{
	if (hello->major == NICD_MAJOR && hello->min_minor <= NICD_MINOR)
		return 0;
	return nicd_refuse_at(err, NICD_R_VERSION, NICD_MAJOR * 1000 + NICD_MINOR,
			      hello->major * UINT64_C(1000) + hello->min_minor);
}

/* The adapters, their pointers, and the text of their addresses lie in one piece of the answer's memory. */
static int hello_adapters(struct client *client, struct answer *answer, struct nicd_error *err)
{
	const struct nic_objects *adapters = &client->host->nic->adapters;
	Nicd__AdapterInfo *infos;
	struct nic_object *object;
	size_t n = 0, each = sizeof(Nicd__AdapterInfo) + sizeof(Nicd__AdapterInfo *) + HELLO_TEXT;
	char *texts;

	TAILQ_FOREACH(object, adapters, of_owner)
		n++;
	if (!n)
		return 0;
	infos = answer_alloc(answer, client->host->env, n * each);
	if (!infos)
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	answer->hello.adapters = (Nicd__AdapterInfo **)(infos + n);
	texts = (char *)(answer->hello.adapters + n);
	TAILQ_FOREACH(object, adapters, of_owner) {
		size_t i = answer->hello.n_adapters++;

		answer->hello.adapters[i] = &infos[i];
		answer_fill_adapter(&infos[i], container_of(object, struct nic_adapter, object), &client->owner,
				    texts + i * HELLO_TEXT);
	}
	return 0;
}

int method_hello(struct request *request, struct answer *answer, struct nicd_error *err)
{
	static char name[] = "nicd " NICD_VERSION;
	const Nicd__Hello *hello = request->args;
	struct client *client = request->client;
	Nicd__HelloReply *reply = &answer->hello;
	int r;

	r = hello_version(hello, err);
	if (r < 0)
		return r;
	if (!text_is_utf8(hello->client, NICD_STRING))
		return nicd_refuse_at(err, NICD_R_STRING, NICD_STRING, strlen(hello->client));
	nicd__hello_reply__init(reply);
	r = hello_adapters(client, answer, err);
	if (r < 0)
		return r;
	reply->major = NICD_MAJOR;
	reply->minor = NICD_MINOR;
	reply->daemon = name;
	reply->role = (Nicd__Role)client->identity.role;
	reply->boot_id = (ProtobufCBinaryData){ NICD_BOOT_ID_SIZE, client->host->boot_id };
	reply->session = client->serial;
	reply->resume_secret = (ProtobufCBinaryData){ NICD_RESUME_SECRET_SIZE, client->resume_secret };
	reply->account = client->owner.account->key;
	answer->reply.hello = reply;
	answer->reply.result_case = NICD__REPLY__RESULT_HELLO;
	memcpy(client->label, hello->client, strlen(hello->client) + 1);
	client->state = CLIENT_READY;
	return 0;
}

int method_query_adapter(struct request *request, struct answer *answer, struct nicd_error *err)
{
	answer_adapter(answer, container_of(request->objects[0], struct nic_adapter, object), &request->client->owner);
	return 0;
}
