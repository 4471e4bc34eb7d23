// Everything that is listed becomes a part of a dataset, with functions that pack or take its rows.
#include "io/checkpoint/state_io.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "core/error.hpp"
#include "io/checkpoint/part.hpp"
#include "io/checkpoint/stored_values.hpp"
#include "kernels/elementwise.hpp"

namespace switchyard {
namespace {

template <class Bits>
void transpose(const std::byte* in, std::byte* out, std::int64_t rows, std::int64_t cols) {
    constexpr std::int64_t tile = 16;
    const auto* from = reinterpret_cast<const Bits*>(in);
    auto* to = reinterpret_cast<Bits*>(out);
    for (std::int64_t i0 = 0; i0 < rows; i0 += tile)
        for (std::int64_t j = 0; j < cols; ++j)
            for (std::int64_t i = i0; i < std::min(rows, i0 + tile); ++i)
                to[j * rows + i] = from[i * cols + j];
}

/// out (cols, rows) <- in (rows, cols)
void transpose(const std::byte* in, std::byte* out, std::int64_t rows, std::int64_t cols,
               std::size_t element_bytes) {
    internal_check(element_bytes == 1 || element_bytes == 4 || element_bytes == 8,
                   "transpose of {}-byte values", element_bytes);
    (element_bytes == 1   ? transpose<std::uint8_t>
     : element_bytes == 4 ? transpose<std::uint32_t>
                          : transpose<std::uint64_t>)(in, out, rows, cols);
}

/// Memory that grows when needed and keeps its pages from one dataset to the next. Contents are lost when it
/// grows.
class ScratchMemory {
  public:
    std::byte* of(std::size_t bytes) {
        if (bytes > capacity_) bytes_ = std::make_unique_for_overwrite<std::byte[]>(capacity_ = bytes);
        return bytes_.get();
    }

  private:
    std::unique_ptr<std::byte[]> bytes_;
    std::size_t capacity_ = 0;
};

std::uint64_t stored_bytes(const Shape& global, DType dtype) {
    return static_cast<std::uint64_t>(global.size()) * size_of(stored_dtype(dtype));
}

/// What a rank holds of distributed rows, and how it gets at them.
struct HeldRows {
    std::vector<std::int32_t> held;
    std::int64_t cols = 0;
    DType dtype = DType::f32;
    bool transposed = false;
    RowPlace from, to;

    HeldRows(const DistributedRows& d, const RowAccess& access)
        : cols(d.cols), dtype(access.dtype), transposed(d.transposed), from(access.from), to(access.to) {
        for (const std::int32_t row : d.held)
            if (row < d.rows) held.push_back(row);
    }
    Part part(const DistributedRows& d) const {
        Part part{runs_of(held, d.row0), {{d.col0, d.cols}}};
        if (transposed) std::swap(part.rows, part.cols);
        return part;
    }
    std::int64_t num_held() const { return static_cast<std::int64_t>(held.size()); }
};

/// The same rows, restricted to their columns [first, first + count).
RowPlace columns_of(const RowPlace& place, std::int64_t first, std::int64_t count) {
    return [&place, first, count](std::int32_t row) {
        kernels::RowPart part = place(row);
        part.column += first;
        part.width = count;
        return part;
    };
}

/// Whether every rank of the world outside the group holds the same as one in it.
bool shared(const DistributedRows& d, int ranks) {
    return d.overlaps || (d.group->size() < ranks && d.rows * d.cols == d.global.size());
}

}  // namespace

struct StateIo::Scratch {
    ScratchMemory converted, transposed;

    /// Rows [first, first + count) of the dataset, which are columns of the tensors' rows if it is
    /// transposed.
    void get(const HeldRows& x, std::int64_t first, std::int64_t count, std::byte* packed) {
        if (!x.transposed) return get_rows(x.from, std::span(x.held).subspan(first, count), x.dtype, packed);
        std::byte* const columns = transposed.of(x.held.size() * count * size_of(x.dtype));
        get_rows(columns_of(x.from, first, count), x.held, x.dtype, columns);
        transpose(columns, packed, x.num_held(), count, size_of(x.dtype));
    }

    std::int64_t set(const HeldRows& x, DType stored, std::int64_t first, std::int64_t count,
                     const std::byte* packed) {
        const std::int64_t values = count * (x.transposed ? x.num_held() : x.cols);
        std::int64_t inexact = 0;
        if (stored != x.dtype) {
            std::byte* const to = converted.of(values * size_of(x.dtype));
            inexact = convert_values(stored, x.dtype, packed, to, values);
            packed = to;
        }
        if (!x.transposed) {
            set_rows(x.to, std::span(x.held).subspan(first, count), x.dtype, packed);
            return inexact;
        }
        std::byte* const columns = transposed.of(values * size_of(x.dtype));
        transpose(packed, columns, count, x.num_held(), size_of(x.dtype));
        set_rows(columns_of(x.to, first, count), x.held, x.dtype, columns);
        return inexact;
    }
};

StateIo::StateIo(CheckpointWriter& writer) : writer_(&writer), scratch_(std::make_shared<Scratch>()) {}
StateIo::StateIo(const CheckpointReader& reader) : reader_(&reader), scratch_(std::make_shared<Scratch>()) {}
StateIo::StateIo(std::uint64_t& dataset_bytes) : counted_bytes_(&dataset_bytes) {}
StateIo::~StateIo() = default;

void StateIo::tensor(const std::string& path, const Shard& shard, Tensor values) {
    if (counted_bytes_) {
        *counted_bytes_ += stored_bytes(shard.global, values.dtype());
        return;
    }
    writer_ ? writer_->write(path, shard, values) : reader_->want(path, shard, values);
}

void StateIo::formed(const std::string& path, const Shard& shard, DType dtype, const FormedRows& rows) {
    if (counted_bytes_) {
        *counted_bytes_ += stored_bytes(shard.global, dtype);
        return;
    }
    const auto of_some = [shard](std::int64_t count) {
        Shard some = shard;
        some.rows = count;
        return some;
    };
    if (writer_)
        return writer_->write(path, shard, stored_dtype(dtype),
                              [rows, of_some](auto first, auto count, std::byte* packed) {
                                  const Tensor room = rows.room(count);
                                  rows.form(first, room);
                                  PartValues(of_some(count), room).pack(0, count, packed);
                              });
    reader_->want(
        path, shard.global, dtype,
        {.part = part_of(shard),
         .shared = shard.replicas != 1,
         .sink = [rows, of_some, path, reader = reader_](auto first, auto count, const std::byte* packed) {
             const Tensor room = rows.room(count);
             kernels::zero(room);
             const auto inexact =
                 PartValues(of_some(count), room).unpack(reader->stored_type(path), 0, count, packed);
             rows.store(first, room);
             return inexact;
         }});
}

void StateIo::rows(const std::string& path, const DistributedRows& d, const RowAccess& access) {
    if (counted_bytes_) {
        *counted_bytes_ += stored_bytes(d.global, access.dtype);
        return;
    }
    const auto held = std::make_shared<const HeldRows>(d, access);
    if (writer_)
        return writer_->declare(
            path, d.global, access.dtype,
            {.part = held->part(d),
             .replica = d.replica,
             .source = [held, scratch = scratch_](auto first, auto count, std::byte* packed) {
                 scratch->get(*held, first, count, packed);
             }});
    reader_->want(path, d.global, access.dtype,
                  {.part = held->part(d),
                   .shared = shared(d, reader_->ranks()),
                   .sink = [held, path, reader = reader_, scratch = scratch_](auto first, auto count,
                                                                              const std::byte* packed) {
                       return scratch->set(*held, reader->stored_type(path), first, count, packed);
                   }});
}

void StateIo::integers(const std::string& path, std::vector<std::int64_t>& values, int world_rank) {
    const auto count = static_cast<std::int64_t>(values.size());
    const Shard shard{path, {count}, 0, 0, count, 1, world_rank};
    if (counted_bytes_)
        *counted_bytes_ += stored_bytes(shard.global, DType::i64);
    else if (reader_)
        values = reader_->table(path, values.size());
    else
        writer_->write(path, shard, DType::i64,
                       [values = std::as_const(values)](auto first, auto number, std::byte* packed) {
                           std::memcpy(packed, values.data() + first,
                                       static_cast<std::size_t>(number) * sizeof(std::int64_t));
                       });
}

void StateIo::attribute(const std::string& object, const std::string& key, std::int64_t& value) {
    if (writer_)
        writer_->attribute(object, key, value);
    else if (reader_)
        value = reader_->integer(object, key, std::numeric_limits<std::int64_t>::min(),
                                 std::numeric_limits<std::int64_t>::max());
}

void StateIo::note(const std::string& object, const std::string& key, const Attribute& value) {
    if (writer_) writer_->attribute(object, key, value);
}

void StateIo::complete(const CheckpointReader::Progress& progress) {
    if (reader_) reader_->fetch(progress);
}

}  // namespace switchyard
