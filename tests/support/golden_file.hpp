// Files of tests/golden in HDF5, and the valid parts of a model's tensors, which they are compared with.
#pragma once

#include <gtest/gtest.h>
#include <hdf5.h>

#include <string>
#include <type_traits>
#include <vector>

#include "kernels/transfer.hpp"
#include "model/parameter.hpp"

namespace switchyard::testing {

class GoldenFile {
  public:
    explicit GoldenFile(const std::string& path)
        : file_(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT)) {}
    ~GoldenFile() { H5Fclose(file_); }
    GoldenFile(const GoldenFile&) = delete;
    GoldenFile& operator=(const GoldenFile&) = delete;

    template <class T>
    std::vector<T> read(const std::string& path) const {
        const hid_t set = H5Dopen2(file_, path.c_str(), H5P_DEFAULT);
        EXPECT_GE(set, 0) << path;
        const hid_t space = H5Dget_space(set);
        std::vector<T> values(H5Sget_simple_extent_npoints(space));
        const hid_t type = std::is_same_v<T, double> ? H5T_NATIVE_DOUBLE : H5T_NATIVE_INT32;
        EXPECT_GE(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0);
        H5Sclose(space);
        H5Dclose(set);
        return values;
    }
    double number(const std::string& name) const {
        const hid_t attribute = H5Aopen(file_, name.c_str(), H5P_DEFAULT);
        double value = 0;
        EXPECT_GE(H5Aread(attribute, H5T_NATIVE_DOUBLE, &value), 0) << name;
        H5Aclose(attribute);
        return value;
    }

  private:
    hid_t file_;
};

/// max |a - b| relative to max |b|.
inline double deviation(const std::vector<double>& a, const std::vector<double>& b) {
    double worst = 0, largest = 0;
    for (std::size_t i = 0; i < b.size(); ++i) {
        worst = std::max(worst, std::abs(a[i] - b[i]));
        largest = std::max(largest, std::abs(b[i]));
    }
    return worst / largest;
}

/// The rows x cols numbers of a tensor with padded rows; f64.
inline std::vector<double> valid_part(const Shard& shard, Tensor tensor) {
    std::vector<double> all(tensor.size()), values;
    kernels::download(tensor, all.data());
    const std::int64_t width = tensor.shape().rank() == 2 ? tensor.dim(1) : 1;
    for (std::int64_t i = 0; i < shard.rows; ++i)
        for (std::int64_t j = 0; j < shard.cols; ++j) values.push_back(all[i * width + j]);
    return values;
}

inline void set_valid_part(const Shard& shard, Tensor tensor, const std::vector<double>& values) {
    std::vector<double> all(tensor.size(), 0.0);
    const std::int64_t width = tensor.shape().rank() == 2 ? tensor.dim(1) : 1;
    for (std::int64_t i = 0; i < shard.rows; ++i)
        for (std::int64_t j = 0; j < shard.cols; ++j) all[i * width + j] = values[i * shard.cols + j];
    kernels::upload(all.data(), tensor);
}

}  // namespace switchyard::testing
