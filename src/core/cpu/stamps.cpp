// On the CPU a call returns when its work is done, so a point in time is a reading of the clock.
#include "core/stamps.hpp"

#include <vector>

#include "core/timer.hpp"

namespace switchyard {

struct Stamps::Points {
    std::vector<double> time_s;
};

Stamps::Stamps() : points_(std::make_unique<Points>()) {}
Stamps::~Stamps() = default;
Stamps::Stamps(Stamps&&) noexcept = default;
Stamps& Stamps::operator=(Stamps&&) noexcept = default;

void Stamps::stamp(int i) {
    const auto at = static_cast<std::size_t>(i);
    if (at >= points_->time_s.size()) points_->time_s.resize(at + 1);
    points_->time_s[at] = seconds_now();
}

double Stamps::seconds(int from, int to) const {
    return points_->time_s.at(static_cast<std::size_t>(to)) -
           points_->time_s.at(static_cast<std::size_t>(from));
}

}  // namespace switchyard
