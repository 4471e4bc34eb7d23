// Each collective is checked once with values that any misplaced part would change, then timed on zeros.
#include "selftest/network.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "comm/messages.hpp"
#include "core/arena.hpp"
#include "core/error.hpp"
#include "core/sign_of_life.hpp"
#include "core/units.hpp"
#include "kernels/elementwise.hpp"
#include "selftest/comparison.hpp"

namespace switchyard::selftest {
namespace {

constexpr std::int64_t payloads[] = {4 << 10, 256 << 10, 8 << 20};  // bytes

struct Group {
    const char* name;
    const Comm& comm;
};

/// The tensors of one payload: what is reduced, or sent, and what is scratch, or received.
struct Buffers {
    Arena arena;
    Tensor data, other;
};

/// Element i of rank r; small whole numbers, so that sums are exact.
double value_of(std::int64_t i, int rank) {
    return static_cast<double>(i % 251 + rank % 7);
}

class Collective {
  public:
    Collective(const Group& group, std::int64_t payload)
        : comm_(group.comm), elements_(std::max<std::int64_t>(payload / 4, group.comm.size())) {}
    virtual ~Collective() = default;

    void allocate() {
        buffers_.arena = allocate_scratch([&](Arena& a) {
            buffers_.data = a.take(MemoryClass::workspace, DType::f32, {elements()});
            buffers_.other = a.take(MemoryClass::workspace, DType::f32, {elements() + 16 * comm_.size()});
        });
        Values values;
        for (std::int64_t i = 0; i < elements(); ++i) values.push_back(value_of(i, comm_.rank()));
        set_values(buffers_.data, values);
    }
    virtual void run() = 0;
    virtual const char* name() const = 0;
    /// Throws UserError if the results of the first run() are wrong.
    virtual void check() = 0;
    void clear() {
        kernels::zero(buffers_.data);
        kernels::zero(buffers_.other);
    }
    std::int64_t payload() const { return elements() * 4; }
    double sent_bytes() const { return traffic_.bytes[static_cast<int>(TrafficGroup::other)]; }

  protected:
    /// Parts of an exchange have equal sizes.
    std::int64_t elements() const { return elements_ / comm_.size() * comm_.size(); }
    void compare(Tensor got, std::int64_t first, const std::function<double(std::int64_t)>& expected) const {
        const Values values = values_of(got);
        for (std::size_t i = 0; i < values.size(); ++i) {
            const std::int64_t at = first + static_cast<std::int64_t>(i);
            require(
                values[i] == expected(at),
                "element {} is {} instead of {} (messages arrive damaged or in the wrong place); update the "
                "MPI library or switch off the transport it uses",
                at, values[i], expected(at));
        }
    }

    const Comm& comm_;
    Buffers buffers_;
    Traffic traffic_;

  private:
    std::int64_t elements_;
};

class AllReduce : public Collective {
  public:
    using Collective::Collective;
    const char* name() const override { return "all-reduce"; }
    void run() override {
        start_all_reduce(comm_, buffers_.data, buffers_.other, traffic_, TrafficGroup::other).wait();
    }
    void check() override {
        double of_ranks = 0;
        for (int rank = 0; rank < comm_.size(); ++rank) of_ranks += rank % 7;
        compare(buffers_.data, 0,
                [&](std::int64_t i) { return static_cast<double>(i % 251 * comm_.size()) + of_ranks; });
    }
};

class Exchange : public Collective {
  public:
    using Collective::Collective;
    const char* name() const override { return "exchange"; }
    void run() override {
        std::vector<Tensor> send, received;
        for (int rank = 0; rank < comm_.size(); ++rank) {
            send.push_back(part(buffers_.data, rank));
            received.push_back(part(buffers_.other, rank));
        }
        start_exchange(comm_, send, received, traffic_, TrafficGroup::other).wait();
    }
    void check() override {
        const std::int64_t n = elements() / comm_.size();
        for (int rank = 0; rank < comm_.size(); ++rank)
            if (rank != comm_.rank())
                compare(part(buffers_.other, rank), comm_.rank() * n,
                        [&](std::int64_t i) { return value_of(i, rank); });
    }

  private:
    Tensor part(Tensor whole, int rank) const {
        const std::int64_t n = elements() / comm_.size();
        return whole.rows(rank * n, n);
    }
};

/// Seconds of one call on this rank: the shortest of some rounds of several calls, in which all ranks of the
/// group take part. Collective over the group.
double seconds_of(const Comm& comm, Collective& collective) {
    constexpr double round_s = 0.01;
    constexpr int rounds = 3, most_calls = 50;
    Stamps stamps;
    const auto round = [&](int calls) {
        barrier(comm);
        stamps.stamp(0);
        for (int i = 0; i < calls; ++i) collective.run();
        stamps.stamp(1);
        return stamps.seconds(0, 1) / calls;
    };
    const double first_s = all_reduce_max(comm, round(1));
    const int calls = std::clamp(static_cast<int>(round_s / std::max(first_s, 1e-9)), 1, most_calls);
    double best_s = round(calls);
    for (int i = 1; i < rounds; ++i) best_s = std::min(best_s, round(calls));
    return std::max(best_s, 1e-9);
}

Line collective_line(const Setting& setting, const Group& group, Collective& collective) {
    Line line{.section = "collectives",
              .name = fmt::format("{} {} of {}, {}", collective.name(), group.name, group.comm.size(),
                                  bytes_text(static_cast<double>(collective.payload())))};
    line.numbers = {{"operation", collective.name()},
                    {"group", group.name},
                    {"group_ranks", group.comm.size()},
                    {"payload_bytes", collective.payload()}};
    Timing timing;
    timing.problem = problem_of(setting, [&] { collective.allocate(); });
    double sent = 0;
    if (timing.problem.empty()) {
        collective.run();  // an error of MPI itself ends all ranks
        sent = collective.sent_bytes();
        timing.problem = problem_of(setting, [&] {
            collective.check();
            collective.clear();
        });
    }
    if (timing.problem.empty()) {
        const double seconds = seconds_of(group.comm, collective);
        sign_of_life("self-test");
        timing.seconds = gather_values(setting.topology.world, seconds);
        line.numbers["sent_bytes_per_rank"] = sent;
        line.numbers["seconds"] = json_of(spread_of(timing.seconds));
        const double rate = spread_of(timing.rates(sent)).median;
        if (collective.payload() > 1 << 20 && verdict_of_rate(rate, least_network_rate) == Verdict::slow) {
            line.verdict = Verdict::slow;
            line.advice = fmt::format(
                "{}B/s is no more than Gigabit Ethernet gives (communication will dominate a step); let the "
                "MPI "
                "library use the fast network (OMPI_MCA_pml=ucx, FI_PROVIDER, `ompi_info`), or start no more "
                "ranks than cores",
                count_text(rate));
        }
    }
    line = rate_line(setting, std::move(line), timing, sent, "B/s");
    if (!timing.seconds.empty())
        line.result = fmt::format("{:.1f} us, {}", 1e6 * spread_of(timing.seconds).median, line.result);
    return line;
}

}  // namespace

std::vector<Line> collective_lines(const Setting& setting) {
    const Topology& t = setting.topology;
    std::vector<Group> groups;
    if (t.tp_size() > 1) groups.push_back({"tp", t.tp});
    if (t.dp_size() > 1) groups.push_back({"dp", t.dp});
    if (groups.size() == 2) groups.push_back({"world", t.world});
    std::vector<Line> lines;
    for (const Group& group : groups)
        for (std::int64_t payload : payloads) {
            AllReduce all_reduce(group, payload);
            lines.push_back(collective_line(setting, group, all_reduce));
            Exchange exchange(group, payload);
            lines.push_back(collective_line(setting, group, exchange));
        }
    return lines;
}

}  // namespace switchyard::selftest
