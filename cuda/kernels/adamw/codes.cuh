// The update of moments that are codes, for the file of those that are numbers.
#pragma once

#include <vector>

#include "kernels/adamw.hpp"

namespace switchyard::kernels {

/// 1 / (1 - beta^step) of the first and the second moment.
struct Corrections {
    double m, v;
};

/// A parameter whose moments are codes, and its corrections on the device, one for each step counter.
struct CodedRows {
    const AdamWRows* rows = nullptr;
    const Corrections* corrections = nullptr;
};

/// To be called after the launch that forms the corrections.
void update_coded(const std::vector<CodedRows>&, const double* clip);

}  // namespace switchyard::kernels
