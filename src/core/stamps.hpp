// Points in time of a back end's work. A device works while the host goes on, so the host's clock around a
// call says nothing: here a point passes when the work before it is done. Defined by the back end.
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

    /// Point `i` passes when all work that was called before is done.
    void stamp(int i);
    /// From one point to another; waits until both have passed.
    double seconds(int from, int to) const;

  private:
    struct Points;
    std::unique_ptr<Points> points_;
};

/// Spans in which work stood still, waiting for other ranks.
class Waits {
  public:
    void begin() { stamps_.stamp(2 * count_); }
    void end() { stamps_.stamp(2 * count_++ + 1); }
    int count() const { return count_; }
    void forget() { count_ = 0; }
    /// Of the spans first ... last - 1.
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
