// Points in time in the work of a back end. A device works while the host goes on, so the host's clock around
// a call measures nothing; a point passes when the work before it is done. Each back end defines them.
#pragma once

#include <memory>

namespace switchyard {

/// Points are numbered from 0 and may be set again.
class Stamps {
  public:
    Stamps();
    ~Stamps();
    Stamps(Stamps&&) noexcept;
    Stamps& operator=(Stamps&&) noexcept;

    /// Point `i` passes when all work that was called before it is done.
    void stamp(int i);
    /// Seconds from one point to another; waits until both have passed.
    double seconds(int from, int to) const;

  private:
    struct Points;
    std::unique_ptr<Points> points_;
};

/// Time spans in which the work stood still because it waited for other ranks.
class Waits {
  public:
    void begin() { stamps_.stamp(2 * count_); }
    void end() { stamps_.stamp(2 * count_++ + 1); }
    int count() const { return count_; }
    void forget() { count_ = 0; }
    /// Seconds of spans first ... last - 1 together.
    double seconds(int first, int last) const {
        double sum = 0;
        for (int i = first; i < last; ++i) sum += stamps_.seconds(2 * i, 2 * i + 1);
        return sum;
    }

  private:
    Stamps stamps_;
    int count_ = 0;
};

}  // namespace switchyard
