// The header is known before the first value, so values are written as they come.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/error.hpp"
#include "core/sign_of_life.hpp"
#include "io/hugging_face/safetensors.hpp"

namespace switchyard {
namespace {

constexpr std::size_t alignment = 8;  // of the first value's position in the file

std::string header_text(const std::vector<SafetensorsTensor>& tensors) {
    nlohmann::ordered_json header;
    header["__metadata__"] = {{"format", "pt"}};  // older transformers refuse a file without it
    std::uint64_t offset = 0;
    for (const SafetensorsTensor& tensor : tensors) {
        internal_check(tensor.dtype == DType::f32 || tensor.dtype == DType::bf16, "{} as safetensors",
                       name_of(tensor.dtype));
        internal_check(!header.contains(tensor.name), "tensor {} twice", tensor.name);
        nlohmann::ordered_json shape = nlohmann::ordered_json::array();
        for (int i = 0; i < tensor.shape.rank(); ++i) shape.push_back(tensor.shape[i]);
        header[tensor.name] = {{"dtype", tensor.dtype == DType::f32 ? "F32" : "BF16"},
                               {"shape", shape},
                               {"data_offsets", {offset, offset + tensor.bytes()}}};
        offset += tensor.bytes();
    }
    std::string text = header.dump();
    text.append((alignment - text.size() % alignment) % alignment, ' ');
    return text;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(std::string path, const std::vector<SafetensorsTensor>& tensors)
    : path_(std::move(path)), file_(::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) {
    require(file_ >= 0, "cannot create `{}` {}", path_, system_problem);
    ignore_file_size_signal();
    for (const SafetensorsTensor& tensor : tensors) missing_ += tensor.bytes();
    const std::string header = header_text(tensors);
    const std::uint64_t length = header.size();
    write_all(file_, {reinterpret_cast<const char*>(&length), sizeof length}, path_);
    write_all(file_, header, path_);
}

void SafetensorsWriter::append(const void* values, std::size_t bytes) {
    internal_check(bytes <= missing_, "{}: {} bytes too many", path_, bytes - missing_);
    sign_of_life("writing weights");
    write_all(file_, {static_cast<const char*>(values), bytes}, path_);
    missing_ -= bytes;
}

void SafetensorsWriter::finish() {
    internal_check(missing_ == 0, "{}: {} bytes are missing", path_, missing_);
    require(::fsync(file_) == 0, "cannot sync `{}` {}", path_, system_problem);
    file_ = FileDescriptor();
}

}  // namespace switchyard
