// The active candidates of a side are a window of r consecutive ones on a ring of C. The pointers of A and B
// start half a window apart, so that no slot is switched on both sides at once.
#include "methods/switchlora/switch_schedule.hpp"

#include <algorithm>
#include <cmath>

#include "config/option_table.hpp"
#include "core/error.hpp"
#include "core/rng.hpp"

namespace switchyard {
namespace {

std::int64_t modulo(std::int64_t x, std::int64_t n) {
    return ((x % n) + n) % n;
}

std::int64_t num_frozen(const std::vector<int>& frozen) {
    return std::count_if(frozen.begin(), frozen.end(), [](int left) { return left > 0; });
}

/// `count` distinct elements of `from`, drawn without replacement from stream `key`.
std::vector<int> draw(std::vector<int> from, std::int64_t count, std::uint64_t key) {
    for (std::int64_t i = 0; i < count; ++i) {
        const auto rest = static_cast<std::uint64_t>(from.size()) - static_cast<std::uint64_t>(i);
        std::swap(from[i], from[i + static_cast<std::int64_t>(uniform_below(key, i, rest))]);
    }
    from.resize(count);
    return from;
}

}  // namespace

SwitchSettings switch_settings(const Config& config, std::int64_t out, std::int64_t in) {
    const MethodConfig& m = config.method;
    SwitchSettings s;
    s.low_rank = option_integer(m, "rank");
    s.num_candidates = std::min(out, in);
    s.interval = option_real(m, "switch_interval");
    s.ratio = option_real(m, "switch_ratio");
    s.freeze_steps = option_integer(m, "freeze_steps");
    s.random_order = option_text(m, "switch_order") == "random";
    s.steps = config.run.steps;
    s.seed = config.run.seed;
    require(s.interval >= 2 * static_cast<double>(s.freeze_steps),
            "method.switch_interval = {} is below 2 x method.freeze_steps = {} (slots would be frozen most "
            "of the time); raise the interval or lower freeze_steps",
            s.interval, 2 * s.freeze_steps);
    return s;
}

double SwitchSettings::rate(std::int64_t step) const {
    const double theta = -std::log(0.3) / (ratio * static_cast<double>(steps));
    return static_cast<double>(low_rank) / (interval * std::exp(theta * static_cast<double>(step + 1)));
}

std::int64_t SwitchSettings::most_at_once() const {
    return std::min({low_rank / 2, num_candidates - low_rank, static_cast<std::int64_t>(rate(0)) + 1});
}

/// The sum of the rates, a geometric series.
double SwitchSettings::switches_left(std::int64_t step) const {
    const double theta = -std::log(0.3) / (ratio * static_cast<double>(steps));
    return rate(step) * std::expm1(-theta * static_cast<double>(steps - step)) / std::expm1(-theta);
}

double SwitchSettings::visits_per_slot() const {
    return 1 + switches_left(0) / static_cast<double>(low_rank);
}

SwitchSchedule::SwitchSchedule(const SwitchSettings& settings, std::string matrix)
    : settings_(settings),
      matrix_(std::move(matrix)),
      count_key_(stream_key(settings.seed, "switch count " + matrix_)) {
    const std::int64_t r = settings.low_rank, c = settings.num_candidates;
    internal_check(r < c, "{}: {} slots for {} candidates", matrix_, r, c);
    for (int side : {0, 1}) {
        pointer_[side] = side == 0 ? 0 : r / 2;
        candidate_[side].resize(r);
        frozen_[side].assign(r, 0);
        for (std::int64_t slot = 0; slot < r; ++slot)
            candidate_[side][slot] = static_cast<int>(c - r + modulo(slot - pointer_[side], r));
    }
}

std::int64_t SwitchSchedule::draw_count(std::int64_t step) const {
    const double rate = settings_.rate(step), whole = std::floor(rate);
    const double chance = uniform(count_key_, step);
    return static_cast<std::int64_t>(whole) + (chance < rate - whole);
}

SideSwitch SwitchSchedule::ring(int side, std::int64_t count) {
    const std::int64_t r = settings_.low_rank;
    SideSwitch s;
    const int last = candidate_[side][modulo(pointer_[side] - 1, r)];
    for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t slot = modulo(pointer_[side] + i, r);
        s.slots.push_back(static_cast<std::int32_t>(slot));
        s.outgoing.push_back(candidate_[side][slot]);
        s.incoming.push_back(static_cast<int>(modulo(last + 1 + i, settings_.num_candidates)));
    }
    pointer_[side] = modulo(pointer_[side] + count, r);
    return s;
}

void SwitchSchedule::draw_random(std::int64_t step, std::int64_t count, Switch& result) {
    std::vector<bool> taken(settings_.low_rank, false);
    for (int side : {0, 1}) {
        const std::string stream =
            (side == 0 ? "switch A " : "switch B ") + matrix_ + " " + std::to_string(step);
        std::vector<int> slots, inactive;
        for (std::int64_t slot = 0; slot < settings_.low_rank; ++slot)
            if (frozen_[side][slot] == 0 && !taken[slot]) slots.push_back(static_cast<int>(slot));
        std::vector<bool> active(settings_.num_candidates, false);
        for (int candidate : candidate_[side]) active[candidate] = true;
        for (std::int64_t c = 0; c < settings_.num_candidates; ++c)
            if (!active[c]) inactive.push_back(static_cast<int>(c));
        SideSwitch& s = side == 0 ? result.a : result.b;
        for (int slot : draw(slots, count, stream_key(settings_.seed, stream + " slots"))) {
            s.slots.push_back(slot);
            s.outgoing.push_back(candidate_[side][slot]);
            taken[slot] = true;
        }
        s.incoming = draw(inactive, count, stream_key(settings_.seed, stream + " candidates"));
    }
}

void SwitchSchedule::apply(const SideSwitch& s, int side) {
    for (std::size_t i = 0; i < s.slots.size(); ++i) {
        candidate_[side][s.slots[i]] = s.incoming[i];
        frozen_[1 - side][s.slots[i]] = static_cast<int>(settings_.freeze_steps);
    }
}

Switch SwitchSchedule::advance(std::int64_t step) {
    const std::int64_t r = settings_.low_rank, frozen_a = num_frozen(frozen_[0]),
                       frozen_b = num_frozen(frozen_[1]);
    // Each pointer may advance up to the slots that the last switches of the other side have frozen.
    std::int64_t available = std::min(modulo(pointer_[1] - frozen_a - pointer_[0], r),
                                      modulo(pointer_[0] - frozen_b - pointer_[1], r));
    if (settings_.random_order) available = (r - std::max(frozen_a, frozen_b)) / 2;
    const std::int64_t count = std::min({draw_count(step), available, settings_.num_candidates - r});
    Switch result;
    if (count <= 0) return result;
    if (settings_.random_order) {
        draw_random(step, count, result);
    } else {
        result.a = ring(0, count);
        result.b = ring(1, count);
    }
    apply(result.a, 0);
    apply(result.b, 1);
    return result;
}

void SwitchSchedule::count_down() {
    for (auto& frozen : frozen_)
        for (int& left : frozen) left -= left > 0;
}

SwitchSchedule::CandidateUse SwitchSchedule::candidate_use() const {
    constexpr double hardly_one = 1e-3;  // expected number of switches below which the walk ends
    SwitchSchedule run(settings_, matrix_);
    std::vector<bool> used(settings_.num_candidates, false);
    for (int candidate : run.candidate_[0]) used[candidate] = true;
    CandidateUse use{settings_.low_rank, 0};
    const auto left = [&] { return settings_.switches_left(use.steps); };
    while (use.candidates < settings_.num_candidates && left() > hardly_one &&
           use.steps < max_steps_looked_at) {
        run.count_down();
        for (int candidate : run.advance(use.steps++).a.incoming) {
            use.candidates += !used[candidate];
            used[candidate] = true;
        }
    }
    const auto expected = static_cast<std::int64_t>(std::min(left(), 1e15));
    use.candidates = std::min(settings_.num_candidates, use.candidates + expected);
    return use;
}

std::vector<std::int64_t> SwitchSchedule::state() const {
    std::vector<std::int64_t> values{pointer_[0], pointer_[1]};
    for (int side : {0, 1}) {
        values.insert(values.end(), candidate_[side].begin(), candidate_[side].end());
        values.insert(values.end(), frozen_[side].begin(), frozen_[side].end());
    }
    return values;
}

void SwitchSchedule::set_state(const std::vector<std::int64_t>& values) {
    const std::int64_t r = settings_.low_rank, c = settings_.num_candidates, longest = settings_.freeze_steps;
    require(
        static_cast<std::int64_t>(values.size()) == 2 + 4 * r,
        "switch tables of {} have {} entries, not {} (the file belongs to another low rank); resume with the "
        "configuration stored in the checkpoint",
        matrix_, values.size(), 2 + 4 * r);
    const auto valid = [&](bool condition, const std::string& entry) {
        require(condition,
                "switch tables of {} hold {} (no such run exists); resume from an older checkpoint", matrix_,
                entry);
    };
    SwitchSchedule loaded = *this;
    std::size_t next = 0;
    for (std::int64_t& pointer : loaded.pointer_) {
        pointer = values[next++];
        valid(pointer >= 0 && pointer < r, fmt::format("pointer {} of {} slots", pointer, r));
    }
    for (int side : {0, 1}) {
        std::vector<bool> active(c, false);
        for (int& candidate : loaded.candidate_[side]) {
            const std::int64_t value = values[next++];
            valid(value >= 0 && value < c, fmt::format("candidate {} of {}", value, c));
            valid(!active[value], fmt::format("candidate {} twice", value));
            active[value] = true;
            candidate = static_cast<int>(value);
        }
        for (int& left : loaded.frozen_[side]) {
            const std::int64_t value = values[next++];
            valid(value >= 0 && value <= longest,
                  fmt::format("a slot frozen for {} updates of at most {}", value, longest));
            left = static_cast<int>(value);
        }
    }
    *this = std::move(loaded);
}

}  // namespace switchyard
