// Faults that the emulation must find. Each is a small kernel or a few calls that are right, and wrong if the
// fault is planted; test_detectors.py runs both in every flavour.
#pragma once

#include <cmath>
#include <vector>

#include "cuda/device.cuh"

namespace detectors {

using namespace switchyard;
using namespace switchyard::cuda;

/// To add one: a function and, in its file, `const Fault name_fault{"name", {...}, function};`.
struct Fault {
    /// A flavour (plain, address, thread) that finds the fault, and what it says: a regular expression, in
    /// which {line} stands for the lines of the sources that are marked "planted: name".
    struct Finder {
        const char *flavour, *says;
    };
    Fault(const char* name, std::vector<Finder> finders, void (*run)(bool planted));

    const char* name;
    std::vector<Finder> finders;
    void (*run)(bool planted);
};
std::vector<Fault>& all_faults();

/// Ends the program with "wrong result" and status 4 unless `right`.
void expect(bool right);

/// Device memory for `count` numbers, full of NaNs.
float* device_numbers(int count);
/// After everything on the compute stream.
std::vector<float> read(const float* device, int count);

}  // namespace detectors
