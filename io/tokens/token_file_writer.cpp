// Growing datasets, and `path`.partial from its creation to its renaming.
#include "io/tokens/token_file_writer.hpp"

#include <unistd.h>

#include <filesystem>

#include "core/error.hpp"
#include "io/files/files.hpp"

namespace switchyard {

using hdf5::Handle;
using namespace token_format;

namespace {

Handle create_dataset(hid_t group, const char* name, hid_t type) {
    const hsize_t size = 0, unlimited = H5S_UNLIMITED, chunk = chunk_elements;
    const Handle space(H5Screate_simple(1, &size, &unlimited), H5Sclose, "H5Screate_simple");
    const Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, "H5Pcreate");
    SWITCHYARD_HDF5(H5Pset_chunk(creation, 1, &chunk));
    SWITCHYARD_HDF5(H5Pset_fletcher32(creation));
    SWITCHYARD_HDF5(H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER));
    // Without a chunk cache whole blocks are written once, and an error is reported by the call that caused
    // it.
    const Handle access(H5Pcreate(H5P_DATASET_ACCESS), H5Pclose, "H5Pcreate");
    SWITCHYARD_HDF5(H5Pset_chunk_cache(access, 0, 0, 1.0));
    return Handle(H5Dcreate2(group, name, type, space, H5P_DEFAULT, creation, access), H5Dclose,
                  "H5Dcreate2");
}

/// Turns errors of HDF5 while creating into messages for users.
template <class Work>
auto creating(Work work) {
    try {
        return work();
    } catch (const UserError& problem) {
        fail("cannot write a token file: {} (it is written there first); choose another --output",
             without_advice(problem.what()));
    }
}

Handle create_file(const std::string& path) {
    const Handle access = hdf5::file_access();
    SWITCHYARD_HDF5(H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST));
    return creating([&] { return hdf5::create_in(path, H5P_DEFAULT, access); });
}

/// Turns errors of HDF5 while writing into messages for users.
template <class Work>
void writing(Work work) {
    try {
        work();
    } catch (const UserError& problem) {
        fail(
            "cannot write the token file: {} (nothing of it is kept); free space, raise `ulimit -f`, or "
            "choose another --output",
            without_advice(problem.what()));
    }
}

}  // namespace

GrowingDataset::GrowingDataset(hid_t group, const char* name, hid_t type)
    : type_(type), element_bytes_(H5Tget_size(type)), dataset_(create_dataset(group, name, type)) {
    buffer_.reserve(block_elements * element_bytes_);
}

void GrowingDataset::append(std::uint64_t value) {
    checksum_ += checksum_term(size_++, value);
    const auto* bytes =
        reinterpret_cast<const std::byte*>(&value);  // little endian: the low bytes come first
    buffer_.insert(buffer_.end(), bytes, bytes + element_bytes_);
    if (buffer_.size() == block_elements * element_bytes_) flush();
}

void GrowingDataset::flush() {
    const hsize_t count = buffer_.size() / element_bytes_, begin = written_, size = written_ + count;
    if (count == 0) return;
    writing([&] {
        SWITCHYARD_HDF5(H5Dset_extent(dataset_, &size));
        const Handle file_space(H5Dget_space(dataset_), H5Sclose, "H5Dget_space");
        SWITCHYARD_HDF5(H5Sselect_hyperslab(file_space, H5S_SELECT_SET, &begin, nullptr, &count, nullptr));
        const Handle memory_space(H5Screate_simple(1, &count, nullptr), H5Sclose, "H5Screate_simple");
        SWITCHYARD_HDF5(H5Dwrite(dataset_, type_, memory_space, file_space, H5P_DEFAULT, buffer_.data()));
    });
    written_ = size;
    buffer_.clear();
}

void GrowingDataset::read(std::uint64_t begin, std::uint64_t count, std::vector<std::uint64_t>& out) {
    flush();
    out.resize(count);
    read_range(dataset_, H5T_NATIVE_UINT64, begin, count, out.data());
}

std::uint64_t GrowingDataset::get(std::uint64_t index) {
    std::vector<std::uint64_t> value;
    read(index, 1, value);
    return value[0];
}

void GrowingDataset::truncate(std::uint64_t size) {
    flush();
    const hsize_t extent = size;
    SWITCHYARD_HDF5(H5Dset_extent(dataset_, &extent));
    written_ = size_ = size;
}

void GrowingDataset::finish() {
    flush();
    write_attribute(dataset_, "checksum", checksum_);
}

TokenFileWriter::TokenFileWriter(std::string path, TokenFileInfo fixed)
    : path_(std::move(path)),
      partial_(path_ + ".partial"),
      held_(creating([&] { return create_held(partial_); })),
      made_(switchyard::identity_of(held_)),
      info_(std::move(fixed)),
      file_(create_file(partial_)) {
    info_.format_version = version;
    parts_.reserve(2);
    parts_.push_back(make_part(TokenSplit::training));
    parts_.push_back(make_part(TokenSplit::validation));
    write_tokenizer();
}

TokenFileWriter::~TokenFileWriter() {
    if (committed_) return;
    parts_.clear();
    file_.reset();
    if (is_still_at(partial_, made_)) ::unlink(partial_.c_str());
}

TokenFileWriter::Part TokenFileWriter::make_part(TokenSplit split) const {
    Handle group(H5Gcreate2(file_, group_of(split), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Gclose,
                 "H5Gcreate2");
    const hid_t id_type = info_.vocab_size <= 65536 ? H5T_NATIVE_UINT16 : H5T_NATIVE_UINT32;
    GrowingDataset tokens(group, "tokens", id_type), starts(group, "document_starts", H5T_NATIVE_INT64);
    return {std::move(group), std::move(tokens), std::move(starts)};
}

void TokenFileWriter::write_tokenizer() {
    const std::string& model = info_.tokenizer_model;
    if (info_.tokenizer_kind != TokenizerKind::none) info_.tokenizer_fingerprint = checksum_bytes(model);
    const hsize_t size = model.size();
    const Handle links(H5Pcreate(H5P_LINK_CREATE), H5Pclose, "H5Pcreate");
    SWITCHYARD_HDF5(H5Pset_create_intermediate_group(links, 1));
    const Handle space(H5Screate_simple(1, &size, nullptr), H5Sclose, "H5Screate_simple");
    const Handle dataset(
        H5Dcreate2(file_, tokenizer_path, H5T_STD_U8LE, space, links, H5P_DEFAULT, H5P_DEFAULT), H5Dclose,
        "H5Dcreate2");
    SWITCHYARD_HDF5(H5Dwrite(dataset, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, model.data()));
    write_attribute(dataset, "checksum", checksum_bytes(model));
}

void TokenFileWriter::start_document(TokenSplit split) {
    Part& part = parts_[index_of(split)];
    part.starts.append(part.tokens.size());
    if (info_.begin_token >= 0) part.tokens.append(static_cast<std::uint64_t>(info_.begin_token));
}

void TokenFileWriter::append(TokenSplit split, const std::vector<std::int32_t>& ids, std::size_t skip) {
    GrowingDataset& tokens = parts_[index_of(split)].tokens;
    for (std::size_t i = skip; i < ids.size(); ++i) tokens.append(static_cast<std::uint64_t>(ids[i]));
}

void TokenFileWriter::move_last_document(TokenSplit split) {
    Part &from = parts_[index_of(split)], &to = parts_[1 - index_of(split)];
    internal_check(from.starts.size() > 0, "no document to move");
    const std::uint64_t last = from.starts.size() - 1, begin = from.starts.get(last),
                        end = from.tokens.size();
    to.starts.append(to.tokens.size());
    std::vector<std::uint64_t> ids;
    for (std::uint64_t at = begin; at < end; at += block_elements) {
        from.tokens.read(at, std::min<std::uint64_t>(block_elements, end - at), ids);
        for (std::size_t i = 0; i < ids.size(); ++i) {
            from.tokens.forget(at + i, ids[i]);
            to.tokens.append(ids[i]);
        }
    }
    from.tokens.truncate(begin);
    from.starts.forget(last, begin);
    from.starts.truncate(last);
}

void TokenFileWriter::write_attributes(double validation, std::uint64_t seed) const {
    const Handle root(H5Gopen2(file_, "/", H5P_DEFAULT), H5Gclose, "H5Gopen2");
    write_attribute(root, "format", std::string(format_name));
    write_attribute(root, "format_version", info_.format_version);
    write_attribute(root, "vocab_size", info_.vocab_size);
    write_attribute(root, "begin_token", std::int64_t{info_.begin_token});
    write_attribute(root, "end_token", std::int64_t{info_.end_token});
    write_attribute(root, "tokenizer_kind", std::string(name_of(info_.tokenizer_kind)));
    write_attribute(root, "fingerprint", info_.fingerprint);
    write_attribute(root, "tokenizer_fingerprint", info_.tokenizer_fingerprint);
    write_attribute(root, "validation", validation);
    write_attribute(root, "seed", static_cast<std::int64_t>(seed));
}

TokenFileInfo TokenFileWriter::commit(double validation, std::uint64_t seed,
                                      std::vector<TokenSource> sources) {
    for (Part& part : parts_) {
        part.tokens.finish();
        part.starts.finish();
    }
    info_.sources = std::move(sources);
    info_.num_tokens = num_tokens(TokenSplit::training);
    info_.num_validation_tokens = num_tokens(TokenSplit::validation);
    info_.num_documents = num_documents(TokenSplit::training);
    info_.num_validation_documents = num_documents(TokenSplit::validation);
    info_.fingerprint = fingerprint({parts_[0].tokens.checksum(), parts_[0].starts.checksum()},
                                    {parts_[1].tokens.checksum(), parts_[1].starts.checksum()});
    write_sources(file_, info_.sources);
    write_attributes(validation, seed);
    parts_.clear();
    writing([&] { SWITCHYARD_HDF5(H5Fflush(file_, H5F_SCOPE_GLOBAL)); });
    file_.reset();
    require(is_still_at(partial_, made_),
            "`{}` was replaced or removed while it was written (does another process write there?); choose "
            "another --output",
            partial_);
    publish_file(partial_, path_);
    committed_ = true;
    return info_;
}

}  // namespace switchyard
