// Where lanes of a warp meet: shuffles, votes and matrix products of a whole warp; and copies in the
// background.
#include <cstdio>

#include "block_resources.hpp"
#include "sanitizers.hpp"

namespace emulation {
namespace {

struct Meeting {
    unsigned mask = 0, arrived = 0, left = 0;
    bool complete = false, in_use = false;
    const char* operation = nullptr;
    Where where;
    std::uint64_t values[warp_lanes];
    unsigned lanes[warp_lanes];
    float d[warp_lanes][4];
    std::uint32_t a[warp_lanes][4], b[warp_lanes][2];
};
struct Warp {
    Meeting meetings[most_meetings];
};
Warp warps[most_threads / warp_lanes];

/// The meeting that the calling lane joins; complete then says whether it is the last to come.
Meeting& join(unsigned mask, const char* operation, const Where& where) {
    const unsigned lane = self->lane;
    Warp& warp = warps[warp_number()];
    if (!(mask >> lane & 1u))
        error(where, "%s with a mask %08x without the calling lane %u", operation, mask, lane);
    Meeting *meeting = nullptr, *unused = nullptr;
    for (Meeting& m : warp.meetings)
        if (!m.in_use)
            unused = unused ? unused : &m;
        else if (!m.complete && (m.mask & mask))
            meeting = &m;
    if (meeting &&
        (meeting->mask != mask || meeting->operation != operation || !same_place(meeting->where, where)))
        error(where, "lane %u comes to %s with mask %08x, others are in %s of line %u with mask %08x", lane,
              operation, mask, meeting->operation, meeting->where.line(), meeting->mask);
    if (!meeting) {
        if (!unused)
            error(where, "more groups of lanes than are provided for (%u at a time)", most_meetings / 2);
        meeting = unused;
        meeting->mask = mask, meeting->operation = operation, meeting->where = where;
        meeting->arrived = meeting->left = 0, meeting->complete = false, meeting->in_use = true;
    }
    meeting->arrived |= 1u << lane;
    meeting->complete = meeting->arrived == (mask & live_lanes());
    return *meeting;
}

void await(Meeting& m) {
    if (!m.complete) return wait_for_others(m.operation, m.where);
    for (unsigned lane = 0; lane < warp_lanes; ++lane)
        if (lane != self->lane && m.arrived >> lane & 1u) make_ready(lane);
}

/// Where __syncwarp orders the memory accesses of the lanes that meet. The other collectives order nothing.
void* place_of(const Meeting& m) {
    const unsigned masks = 4, warp = warp_number();
    return order_places() ? &order_places()->warps[warp][&m - warps[warp].meetings][m.mask % 61 % masks]
                          : nullptr;
}

void leave(Meeting& m) {
    m.left |= 1u << self->lane;
    m.in_use = m.left != m.arrived;
}

float bf16_value(std::uint32_t both, int which) {
    return std::bit_cast<float>(which ? both & 0xFFFF0000u : both << 16);
}

void multiply_fragments(Meeting& m) {
    float a[16][16], b[16][8];
    for (unsigned lane = 0; lane < warp_lanes; ++lane)
        for (int e = 0; e < 2; ++e) {
            const int group = static_cast<int>(lane) / 4, pair = 2 * (static_cast<int>(lane) % 4) + e;
            for (int i = 0; i < 4; ++i) a[group + i % 2 * 8][pair + i / 2 * 8] = bf16_value(m.a[lane][i], e);
            for (int i = 0; i < 2; ++i) b[pair + 8 * i][group] = bf16_value(m.b[lane][i], e);
        }
    float sum[16][8] = {};
    for (int row = 0; row < 16; ++row)
        for (int k = 0; k < 16; ++k)
            for (int column = 0; column < 8; ++column) sum[row][column] += a[row][k] * b[k][column];
    for (int lane = 0; lane < static_cast<int>(warp_lanes); ++lane)
        for (int i = 0; i < 4; ++i) m.d[lane][i] += sum[lane / 4 + i / 2 * 8][2 * (lane % 4) + i % 2];
}

/// A copy in the background makes its target undefined, and is done when its group is waited for.
struct Copy {
    unsigned char* to;
    const unsigned char* from;
};
struct Copies {
    static constexpr int most = 256, most_groups = 16;
    Copy copies[most];
    int count = 0, groups = 0, group_end[most_groups];
    Where where;  // of the last one
};
Copies background[most_threads];

}  // namespace

void reset_warps(unsigned threads) {
    for (unsigned w = 0; w < (threads + warp_lanes - 1) / warp_lanes; ++w)
        for (Meeting& m : warps[w].meetings) m.in_use = false;
    for (unsigned i = 0; i < threads; ++i) background[i].count = background[i].groups = 0;
}

void lane_exits(unsigned warp, unsigned lane) {
    for (const Meeting& m : warps[warp].meetings)
        if (m.in_use && !m.complete && m.mask >> lane & 1u)
            error(m.where, "lane %u exits while others wait for it in %s", lane, m.operation);
}

void synchronize_warp(unsigned mask, const Where& where) {
    Meeting& m = join(mask, "__syncwarp", where);
    release(place_of(m));
    await(m);
    acquire(place_of(m));
    leave(m);
}

std::uint64_t shuffle(unsigned mask, std::uint64_t value, unsigned source, const char* name,
                      const Where& where) {
    Meeting& m = join(mask, name, where);
    m.values[self->lane] = value;
    await(m);
    if (!(m.arrived >> (source % warp_lanes) & 1u))
        error(where, "lane %u reads lane %u, which does not take part in %s", self->lane, source, name);
    const std::uint64_t result = m.values[source % warp_lanes];
    leave(m);
    return result;
}

std::uint64_t combine(std::uint64_t value, unsigned lanes, std::uint64_t (*combine)(std::uint64_t, std::uint64_t),
                      const Where& where) {
    if (!std::has_single_bit(lanes) || lanes > warp_lanes)
        error(where, "combine_lanes of %u lanes, which is no power of two up to %u", lanes, warp_lanes);
    Meeting& m = join(~0u, "combine_lanes", where);
    m.values[self->lane] = value;
    m.lanes[self->lane] = lanes;
    if (m.complete) {
        if (m.arrived != ~0u) error(where, "combine_lanes by a part of a warp (%08x)", m.arrived);
        for (unsigned lane = 0; lane < warp_lanes; ++lane)
            if (m.lanes[lane] != lanes)
                error(where, "lane %u combines %u lanes, lane %u %u", lane, m.lanes[lane], self->lane, lanes);
        for (unsigned distance = lanes / 2; distance > 0; distance /= 2) {
            std::uint64_t before[warp_lanes];
            for (unsigned lane = 0; lane < warp_lanes; ++lane) before[lane] = m.values[lane];
            for (unsigned lane = 0; lane < warp_lanes; ++lane)
                m.values[lane] = combine(before[lane], before[lane ^ distance]);
        }
    }
    await(m);
    const std::uint64_t result = m.values[self->lane];
    leave(m);
    return result;
}

unsigned ballot(unsigned mask, bool value, const char* name, const Where& where) {
    Meeting& m = join(mask, name, where);
    m.values[self->lane] = value;
    await(m);
    unsigned result = 0;
    for (unsigned lane = 0; lane < warp_lanes; ++lane)
        if (m.arrived >> lane & 1u && m.values[lane]) result |= 1u << lane;
    leave(m);
    return result;
}

void multiply(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const Where& where) {
    Meeting& m = join(~0u, "mma", where);
    const unsigned lane = self->lane;
    for (int i = 0; i < 4; ++i) m.a[lane][i] = a[i], m.d[lane][i] = d[i];
    for (int i = 0; i < 2; ++i) m.b[lane][i] = b[i];
    if (m.complete && m.arrived != ~0u) error(where, "mma by a part of a warp (%08x)", m.arrived);
    if (m.complete) multiply_fragments(m);
    await(m);
    for (int i = 0; i < 4; ++i) d[i] = m.d[lane][i];
    leave(m);
}

void load_matrices(std::uint32_t (&d)[4], const void* row, bool transposed, const Where& where) {
    if (reinterpret_cast<std::uintptr_t>(row) % 16)
        error(where, "ldmatrix from an address that is no multiple of 16");
    if (!in_shared_memory(row, 16))
        error(where, "ldmatrix from an address outside the block's shared memory");
    Meeting& m = join(~0u, transposed ? "ldmatrix.trans" : "ldmatrix", where);
    const unsigned lane = self->lane;
    m.values[lane] = reinterpret_cast<std::uintptr_t>(row);
    if (m.complete && m.arrived != ~0u) error(where, "ldmatrix by a part of a warp (%08x)", m.arrived);
    await(m);
    const unsigned i = lane / 4, j = 2 * (lane % 4);  // of the matrix, or of its transpose
    for (unsigned k = 0; k < 4; ++k) {
        const auto at = [&](unsigned r, unsigned column) {
            return std::uint32_t{
                access::word(reinterpret_cast<const std::uint16_t*>(m.values[8 * k + r]) + column)};
        };
        const std::uint32_t low = transposed ? at(j, i) : at(i, j),
                            high = transposed ? at(j + 1, i) : at(i, j + 1);
        d[k] = low | high << 16;
    }
    leave(m);
}

void copy_async(void* shared, const void* global, bool valid, const Where& where) {
    Copies& mine = background[self->number];
    auto* const to = static_cast<unsigned char*>(shared);
    const auto* const from = valid ? static_cast<const unsigned char*>(global) : nullptr;
    if ((reinterpret_cast<std::uintptr_t>(to) | reinterpret_cast<std::uintptr_t>(from)) % 16)
        error(where, "cp.async of 16 bytes with an address that is no multiple of 16");
    if (!in_shared_memory(to, 16)) error(where, "cp.async to an address outside the block's shared memory");
    if (from && !is_device_memory(from, 16)) error(where, "cp.async from an address outside device memory");
    if (mine.count == Copies::most) error(where, "more copies in the background than are provided for");
    access::fill(to, 0xFF);
    mine.copies[mine.count++] = {to, from};
    mine.where = where;
}

void commit_copies(const Where& where) {
    Copies& mine = background[self->number];
    if (mine.groups == Copies::most_groups)
        error(where, "more groups of copies than are provided for (a wait that never comes?)");
    mine.group_end[mine.groups++] = mine.count;
}

void wait_copies(int pending) {
    Copies& mine = background[self->number];
    const int done = mine.groups - pending;
    if (done <= 0) return;
    const int end = mine.group_end[done - 1];
    for (int i = 0; i < end; ++i) {
        const Copy& copy = mine.copies[i];
        copy.from ? access::copy(copy.to, copy.from) : access::fill(copy.to, 0);
    }
    for (int i = end; i < mine.count; ++i) mine.copies[i - end] = mine.copies[i];
    for (int g = done; g < mine.groups; ++g) mine.group_end[g - done] = mine.group_end[g] - end;
    mine.count -= end, mine.groups -= done;
}

void check_copies(unsigned thread) {
    const Copies& mine = background[thread];
    if (mine.count > 0)
        error(mine.where, "thread %u exits with copies in the background that it did not wait for", thread);
}

}  // namespace emulation
