// Safetensors files: an 8-byte little-endian header length, a JSON header (name -> dtype, shape,
// data_offsets), values. Files that are read are of unknown origin, so every length, offset, type and name is
// checked before it is used.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/tensor.hpp"
#include "io/files/files.hpp"

namespace switchyard {

/// A tensor in a file, and its position in bytes after the header.
struct SafetensorsEntry {
    std::string dtype;  // as written in the file: F32, BF16, F16, ...
    std::vector<std::int64_t> shape;
    std::uint64_t begin = 0, end = 0;
    std::int64_t size() const;
};

class SafetensorsFile {
  public:
    /// Throws UserError naming file and tensor: lengths beyond the file, offsets that leave it, overlap or
    /// leave holes, types and shapes that do not match the number of bytes, repeated names, invalid JSON.
    explicit SafetensorsFile(const std::string& path);

    const std::string& path() const { return path_; }
    const std::map<std::string, SafetensorsEntry>& entries() const { return entries_; }
    /// Reads values [first, first + count) of a tensor of type F32, BF16 or F16, exactly. Throws UserError
    /// for other types and if the file cannot be read.
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
    /// Throws UserError if neither or both of these are present, if a file of the index is missing or outside
    /// the directory, if a tensor is in another file than the index says or in none, or if a file holds a
    /// tensor that the index does not name.
    explicit SafetensorsDirectory(const std::string& path);

    std::vector<std::string> names() const;
    bool has(const std::string& name) const { return place_.contains(name); }
    const SafetensorsEntry& entry(const std::string& name) const;
    const SafetensorsFile& file_of(const std::string& name) const { return files_[place_.at(name)]; }

  private:
    std::vector<SafetensorsFile> files_;
    std::map<std::string, std::size_t> place_;  // name -> index of its file
};

/// A whole tensor to be written, f32 or bf16.
struct SafetensorsTensor {
    std::string name;
    DType dtype = DType::f32;
    Shape shape;
    std::uint64_t bytes() const { return static_cast<std::uint64_t>(shape.size()) * size_of(dtype); }
};

/// Writes a file from beginning to end.
class SafetensorsWriter {
  public:
    /// Creates `path`, which must not exist, and writes the header.
    SafetensorsWriter(std::string path, const std::vector<SafetensorsTensor>& tensors);
    /// Appends the next values; tensors must come in the order given.
    void append(const void* values, std::size_t bytes);
    /// To be called after all values: syncs and closes the file.
    void finish();

  private:
    std::string path_;
    FileDescriptor file_;
    std::uint64_t missing_ = 0;  // bytes that are still to be written
};

}  // namespace switchyard
