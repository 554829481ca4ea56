/* SPDX-License-Identifier: MIT */
/* What ranges have in common, whoever names them. Nothing here keeps a Memory. */
#include "nicd/range.h"

/* `begins`, `ends`: it must begin, and end, at a page. */
static int range_check(const struct nic_range *range, uint64_t page, bool begins, bool ends, struct nicd_error *err)
{
	uint64_t size = range->memory->facts.size, end;

	if (range->memory->closing)
		return nicd_refuse(err, NICD_R_HANDLE);
	if (range->length == 0)
		return nicd_refuse_at(err, NICD_R_LENGTH_ZERO, 1, 0);
	if (range->length > UINT64_MAX - range->offset)
		return nicd_refuse_at(err, NICD_R_RANGE_OVERFLOW, UINT64_MAX - range->offset, range->length);
	end = range->offset + range->length;
	if (!nic_range_ok(range->offset, range->length, size))
		return nicd_refuse_at(err, NICD_R_RANGE_BEYOND, size, end);
	if (begins && range->offset % page != 0)
		return nicd_refuse_at(err, NICD_R_RANGE_NOT_JOINED, page, range->offset);
	if (ends && end % page != 0)
		return nicd_refuse_at(err, NICD_R_RANGE_NOT_JOINED, page, end);
	return 0;
}

int nic_ranges_check(const struct nic_range *ranges, unsigned n, uint64_t page, uint64_t *total, struct nicd_error *err)
{
	uint64_t sum = 0;

	if (n == 0 || n > NICD_RANGES)
		return nicd_refuse_at(err, NICD_R_COUNT, NICD_RANGES, n);
	for (unsigned i = 0; i < n; i++) {
		uint64_t own = page ? page : ranges[i].memory->facts.page_size;
		int r = range_check(&ranges[i], own, page || i > 0, i + 1 < n, err);

		if (r < 0)
			return r;
		if (ranges[i].length > UINT64_MAX - sum)
			return nicd_refuse_at(err, NICD_R_RANGE_OVERFLOW, UINT64_MAX - sum, ranges[i].length);
		sum += ranges[i].length;
	}
	*total = sum;
	return 0;
}

unsigned nic_ranges_cut(const struct nic_range *ranges, unsigned n, uint64_t offset, uint64_t length, struct nic_tag_range *ret)
{
	unsigned n_cut = 0;

	for (unsigned i = 0; i < n && length > 0; i++) {
		uint64_t part;

		if (offset >= ranges[i].length) {
			offset -= ranges[i].length;
			continue;
		}
		part = ranges[i].length - offset;
		if (part > length)
			part = length;
		ret[n_cut++] = (struct nic_tag_range){
			.memory = ranges[i].memory->object.serial,
			.offset = ranges[i].offset + offset,
			.length = part,
		};
		offset = 0;
		length -= part;
	}
	return n_cut;
}

int nic_ranges_reserve(const struct nic_range *ranges, unsigned n, struct nic_adapter *adapter, struct nicd_error *err)
{
	for (unsigned i = 0; i < n; i++) {
		int r = nic_memory_reserve(ranges[i].memory, adapter, err);

		if (r < 0) {
			nic_ranges_cancel(ranges, i, adapter);
			return r;
		}
	}
	return 0;
}

bool nic_ranges_attach(const struct nic_range *ranges, unsigned n, unsigned *attached, struct nic_adapter *adapter, struct nic_waiter *waiter)
{
	for (; *attached < n; (*attached)++) {
		struct nic_memory *memory = ranges[*attached].memory;

		if (!nic_memory_attached(memory, adapter)) {
			nic_memory_attach(memory, adapter, waiter);
			return false;
		}
	}
	return true;
}

void nic_ranges_cancel(const struct nic_range *ranges, unsigned n, struct nic_adapter *adapter)
{
	while (n-- > 0)
		nic_memory_cancel(ranges[n].memory, adapter);
}

unsigned nic_ranges_part(const struct nic_range *ranges, unsigned n, uint64_t offset, uint64_t length, struct nic_range *ret)
{
	unsigned pieces = 0;

	for (unsigned i = 0; i < n && length > 0; i++) {
		uint64_t part = ranges[i].length;

		if (offset >= part) {
			offset -= part;
			continue;
		}
		part -= offset;
		if (part > length)
			part = length;
		ret[pieces++] = (struct nic_range){ ranges[i].memory, ranges[i].offset + offset, part };
		offset = 0;
		length -= part;
	}
	return pieces;
}
