// What collectives.hpp offers for host values whatever the back end: scalars, texts, verdicts and rows.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <new>
#include <numeric>

#include "comm/collectives.hpp"
#include "comm/failure.hpp"
#include "comm/messages.hpp"
#include "core/calls.hpp"
#include "core/error.hpp"
#include "core/sign_of_life.hpp"

namespace switchyard {

const char* name_of(TrafficGroup group) {
    static const char* const names[] = {"activations", "loss",   "gradients", "values", "candidates",
                                        "moves",       "frozen", "batches",   "other"};
    static_assert(std::size(names) == num_traffic_groups);
    return names[static_cast<int>(group)];
}

double all_reduce_bytes(double payload_bytes, int ranks) {
    return std::round(2 * all_gather_bytes(payload_bytes, ranks));
}

double all_gather_bytes(double payload_bytes, int ranks) {
    return payload_bytes * (ranks - 1) / ranks;
}

double broadcast_bytes(double payload_bytes, int ranks) {
    return std::round(all_gather_bytes(payload_bytes, ranks));
}

Pending& Pending::operator=(Pending&& other) noexcept {
    if (this != &other) {
        Pending ended(std::move(*this));
        finish_ = std::exchange(other.finish_, nullptr);
    }
    return *this;
}

Pending::~Pending() {
    try {
        wait();
    } catch (...) {
        // With no exception under way nobody would hear of the failure.
        if (std::uncaught_exceptions() == 0) std::terminate();
    }
}

void Pending::wait() {
    if (auto finish = std::exchange(finish_, nullptr)) finish();
}

namespace {

/// Largest for sign = 1, smallest for sign = -1; NaN if one is.
double extreme(const std::vector<double>& values, double sign) {
    double result = values[0];
    for (double value : values)
        if (std::isnan(value) || sign * value > sign * result) result = value;
    return result;
}

std::uint64_t collectives_so_far = 0;

void send_to_all(const Comm& comm, void* data, std::size_t bytes, int root, const char* group = nullptr) {
    const HostCollective here({"broadcast", group, comm.size(), static_cast<double>(bytes)});
    if (comm.size() == 1) return;
    for (std::size_t offset = 0; offset < bytes; offset += message_limit)
        SWITCHYARD_MPI(MPI_Bcast(static_cast<std::byte*>(data) + offset,
                                 static_cast<int>(std::min(message_limit, bytes - offset)), MPI_BYTE, root,
                                 comm.handle()));
}

}  // namespace

std::uint64_t host_collectives() {
    return collectives_so_far;
}

HostCollective::HostCollective(const char* name, const Comm& comm)
    : HostCollective({name, nullptr, comm.size(), 0}) {}

HostCollective::HostCollective(const CollectiveCall& call) : call_(call) {
    ++collectives_so_far;
    if (call_.ranks > 1) note_collective(call_, CollectiveState::awaited);
}

HostCollective::~HostCollective() {
    if (call_.ranks > 1) note_collective(call_, CollectiveState::ended);
}

double all_reduce_sum(const Comm& comm, double value) {
    const auto values = gather_values(comm, value);
    return std::accumulate(values.begin() + 1, values.end(), values[0]);
}

double all_reduce_max(const Comm& comm, double value) {
    return extreme(gather_values(comm, value), 1);
}

double all_reduce_min(const Comm& comm, double value) {
    return extreme(gather_values(comm, value), -1);
}

std::uint64_t all_reduce_sum_u64(const Comm& comm, std::uint64_t value) {
    const auto values = gather_values(comm, value);
    return std::accumulate(values.begin(), values.end(), std::uint64_t{0});
}

std::vector<std::uint64_t> all_reduce_sum_u64(const Comm& comm, std::vector<std::uint64_t> values) {
    constexpr std::size_t most = message_limit / sizeof(std::uint64_t);
    const HostCollective here("sum of values", comm);
    for (std::size_t begin = 0; comm.size() > 1 && begin < values.size(); begin += most)
        SWITCHYARD_MPI(MPI_Allreduce(MPI_IN_PLACE, values.data() + begin,
                                     static_cast<int>(std::min(most, values.size() - begin)), MPI_UINT64_T,
                                     MPI_SUM, comm.handle()));
    return values;
}

std::int64_t broadcast(const Comm& comm, std::int64_t value, int root) {
    send_to_all(comm, &value, sizeof value, root);
    return value;
}

std::string broadcast(const Comm& comm, std::string text, int root) {
    text.resize(broadcast(comm, static_cast<std::int64_t>(text.size()), root));
    send_to_all(comm, text.data(), text.size(), root);
    return text;
}

void broadcast(const Comm& comm, std::span<std::int32_t> values, Traffic& traffic, TrafficGroup group) {
    if (comm.size() == 1 || values.empty()) return;
    count_call(Call::collective);
    traffic.add(group, broadcast_bytes(static_cast<double>(values.size_bytes()), comm.size()));
    if (traffic.waits) traffic.waits->begin();
    send_to_all(comm, values.data(), values.size_bytes(), 0, name_of(group));
    if (traffic.waits) traffic.waits->end();
}

std::vector<std::string> gather(const Comm& comm, const std::string& mine) {
    const HostCollective here("gather of texts", comm);
    if (comm.size() == 1) return {mine};
    std::vector<int> sizes(comm.size()), offsets(comm.size());
    const int size = static_cast<int>(mine.size());
    SWITCHYARD_MPI(MPI_Gather(&size, 1, MPI_INT, sizes.data(), 1, MPI_INT, 0, comm.handle()));
    std::exclusive_scan(sizes.begin(), sizes.end(), offsets.begin(), 0);
    std::string all(comm.rank() == 0 ? static_cast<std::size_t>(offsets.back()) + sizes.back() : 0, '\0');
    SWITCHYARD_MPI(MPI_Gatherv(mine.data(), size, MPI_CHAR, all.data(), sizes.data(), offsets.data(),
                               MPI_CHAR, 0, comm.handle()));
    std::vector<std::string> texts;
    for (int rank = 0; comm.rank() == 0 && rank < comm.size(); ++rank)
        texts.push_back(all.substr(offsets[rank], sizes[rank]));
    return texts;
}

void barrier(const Comm& comm) {
    const HostCollective here("barrier", comm);
    if (comm.size() > 1) SWITCHYARD_MPI(MPI_Barrier(comm.handle()));
}

namespace {

enum class Kind : char { user = 'u', internal = 'i', none = 'n' };

/// What went wrong, if anything did, and of what kind it is.
struct Outcome {
    Kind kind = Kind::none;
    std::string message;
};

Outcome outcome_of(const std::function<void()>& work) {
    try {
        work();
        return {};
    } catch (const InternalError& error) {
        return {Kind::internal, error.what()};
    } catch (const std::bad_alloc&) {
        return {Kind::user,
                "out of memory (an allocation failed); use more ranks or a smaller problem per rank"};
    } catch (const std::exception& error) {
        return {Kind::user, error.what()};
    } catch (...) {
        return {Kind::user, "an unknown exception"};
    }
}

template <class Error, class Agreed>
[[noreturn]] void throw_as(bool alone, const std::string& text) {
    if (alone) throw Error(text);
    throw Agreed(text);
}

/// Throws the same on all ranks; `alone`: there is only one.
[[noreturn]] void throw_agreed(Kind kind, bool alone, const std::string& text) {
    if (kind == Kind::internal) throw_as<InternalError, AgreedInternalError>(alone, text);
    throw_as<UserError, AgreedError>(alone, text);
}

/// agree() for an error of the user or of the program itself: the kind of the lowest rank that failed counts.
void agree(const Comm& comm, const Outcome& outcome) {
    struct Verdict {
        int first_failed, all_failed;
    };
    const bool ok = outcome.kind == Kind::none;
    Verdict verdict{ok ? comm.size() : comm.rank(), !ok};
    const HostCollective here("agreement", comm);
    if (comm.size() > 1) {
        const Verdict mine = verdict;
        const WaitingForOthers waiting;
        SWITCHYARD_MPI(MPI_Allreduce(&mine, &verdict, 2, MPI_INT, MPI_MIN, comm.handle()));
    }
    const auto [first, all] = verdict;
    if (first == comm.size()) return;
    const std::string sent = broadcast(comm, static_cast<char>(outcome.kind) + outcome.message, first);
    throw_agreed(static_cast<Kind>(sent[0]), comm.size() == 1,
                 sent.substr(1) + (all ? "" : fmt::format(" [on rank {} of {}]", first, comm.size())));
}

}  // namespace

void agree(const Comm& comm, bool ok, const std::string& message) {
    agree(comm, ok ? Outcome{} : Outcome{Kind::user, message});
}

void agree_on(const Comm& comm, const std::function<void()>& work) {
    agree(comm, outcome_of(work));
}

FirstText first_text(const Comm& comm, const std::string& mine) {
    const std::vector<char> has = gather_values(comm, static_cast<char>(!mine.empty()));
    const auto first = static_cast<int>(std::find(has.begin(), has.end(), 1) - has.begin());
    if (first == comm.size()) return {};
    return {broadcast(comm, mine, first), first, static_cast<int>(std::count(has.begin(), has.end(), 1))};
}

std::string text_of_root(const Comm& comm, const std::function<std::string()>& work) {
    if (comm.size() == 1) return work();
    std::string sent;
    if (comm.rank() == 0) {
        std::string text;
        const Outcome outcome = outcome_of([&] { text = work(); });
        sent = static_cast<char>(outcome.kind) + (outcome.kind == Kind::none ? text : outcome.message);
    }
    {
        const WaitingForOthers waiting;
        sent = broadcast(comm, std::move(sent));
    }
    const auto kind = static_cast<Kind>(sent[0]);
    sent.erase(0, 1);
    if (kind != Kind::none) throw_agreed(kind, false, sent);
    return sent;
}

}  // namespace switchyard
