// Safetensors files: an 8-byte little-endian header length, a JSON header (name -> dtype, shape,
// data_offsets), values. Read files come from others: every length, offset, type and name is checked before
// it is used.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/tensor.hpp"
#include "io/files/files.hpp"

namespace switchyard {

/// A tensor in a file; its place in bytes after the header.
struct SafetensorsEntry {
    std::string dtype;  // as written there: F32, BF16, F16, ...
    std::vector<std::int64_t> shape;
    std::uint64_t begin = 0, end = 0;
    std::int64_t size() const;
};

class SafetensorsFile {
  public:
    /// Throws UserError naming file and tensor: lengths beyond the file, offsets that leave it, overlap or
    /// leave holes, types and shapes that do not give the bytes, names given twice, bad JSON.
    explicit SafetensorsFile(const std::string& path);

    const std::string& path() const { return path_; }
    const std::map<std::string, SafetensorsEntry>& entries() const { return entries_; }
    /// Values [first, first + count) of a tensor of type F32, BF16 or F16, exactly. Throws UserError for
    /// other types, and when the file cannot be read.
    void read_f32(const std::string& name, std::int64_t first, std::int64_t count, float* out) const;

  private:
    std::string path_;
    FileDescriptor file_;
    std::uint64_t data_offset_ = 0;
    std::map<std::string, SafetensorsEntry> entries_;
};

/// All tensors of a directory: model.safetensors, or the files of model.safetensors.index.json.
class SafetensorsDirectory {
  public:
    /// Throws UserError: neither or both are there, a file of the index is missing or not beside it, a tensor
    /// is in another file than the index says or in none, a file holds one that the index does not name.
    explicit SafetensorsDirectory(const std::string& path);

    std::vector<std::string> names() const;
    bool has(const std::string& name) const { return place_.contains(name); }
    const SafetensorsEntry& entry(const std::string& name) const;
    const SafetensorsFile& file_of(const std::string& name) const { return files_[place_.at(name)]; }

  private:
    std::vector<SafetensorsFile> files_;
    std::map<std::string, std::size_t> place_;  // name -> index of its file
};

/// One tensor to be written: f32 or bf16, whole.
struct SafetensorsTensor {
    std::string name;
    DType dtype = DType::f32;
    Shape shape;
    std::uint64_t bytes() const { return static_cast<std::uint64_t>(shape.size()) * size_of(dtype); }
};

/// Writes a file front to back.
class SafetensorsWriter {
  public:
    /// Creates `path`, which must not exist, and writes the header.
    SafetensorsWriter(std::string path, const std::vector<SafetensorsTensor>& tensors);
    /// The next values, tensor by tensor in the order given.
    void append(const void* values, std::size_t bytes);
    /// All values are there: syncs and closes.
    void finish();

  private:
    std::string path_;
    FileDescriptor file_;
    std::uint64_t missing_ = 0;  // bytes still to come
};

}  // namespace switchyard
