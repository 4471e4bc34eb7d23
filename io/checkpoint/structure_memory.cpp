// A driver of HDF5 is a table of C functions, which no exception may leave. Functions that HDF5 does not need
// for a file in memory are left out.
#include "io/checkpoint/structure_memory.hpp"

#include <algorithm>
#include <cstring>
#include <new>

// From HDF5 1.13 on drivers have a header of their own.
#if __has_include(<H5FDdevelop.h>)
#include <H5FDdevelop.h>
#endif

namespace switchyard {
namespace {

struct File : H5FD_t {
    StructureMemory* memory = nullptr;
    haddr_t allocated = 0;
};

/// What a property list holds for open_file().
struct Info {
    StructureMemory* memory;
};

File& file_of(H5FD_t* file) {
    return *static_cast<File*>(file);
}
const File& file_of(const H5FD_t* file) {
    return *static_cast<const File*>(file);
}

H5FD_t* open_file(const char*, unsigned flags, hid_t access, haddr_t) {
    const auto* const info = static_cast<const Info*>(H5Pget_driver_info(access));
    auto* const file = new (std::nothrow) File{};
    if (!file || !info) return nullptr;
    file->memory = info->memory;
    if (flags & H5F_ACC_TRUNC) file->memory->clear();
    return file;
}

herr_t close_file(H5FD_t* file) {
    delete &file_of(file);
    return 0;
}

/// The flags of HDF5's own file driver, so that HDF5 places everything as in a file on disk.
herr_t query(const H5FD_t*, unsigned long* flags) {
    if (flags)
        *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
                 H5FD_FEAT_AGGREGATE_SMALLDATA;
    return 0;
}

haddr_t get_allocated(const H5FD_t* file, H5FD_mem_t) {
    return file_of(file).allocated;
}

herr_t set_allocated(H5FD_t* file, H5FD_mem_t, haddr_t bytes) {
    file_of(file).allocated = bytes;
    return 0;
}

haddr_t get_size(const H5FD_t* file, H5FD_mem_t) {
    return file_of(file).memory->size();
}

herr_t read_values(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t at, size_t bytes, void* to) {
    file_of(file).memory->read(at, static_cast<std::byte*>(to), bytes);
    return 0;
}

herr_t write_values(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t at, size_t bytes, const void* from) try {
    file_of(file).memory->write(at, static_cast<const std::byte*>(from), bytes);
    return 0;
} catch (const std::bad_alloc&) {
    return -1;
}

herr_t truncate_file(H5FD_t* file, hid_t, hbool_t) {
    file_of(file).memory->resize(file_of(file).allocated);
    return 0;
}

/// Fields that HDF5 1.10 does not have.
template <class Driver>
void set_version(Driver& driver) {
    if constexpr (requires { driver.version; }) {
        driver.version = 1;
        driver.value = static_cast<decltype(driver.value)>(511);  // from the range for private use
    }
}

hid_t register_driver() {
    H5FD_class_t driver{};
    set_version(driver);
    driver.name = "structure_memory";
    driver.maxaddr = HADDR_MAX;
    driver.fc_degree = H5F_CLOSE_WEAK;
    driver.fapl_size = sizeof(Info);
    driver.open = open_file;
    driver.close = close_file;
    driver.query = query;
    driver.get_eoa = get_allocated;
    driver.set_eoa = set_allocated;
    driver.get_eof = get_size;
    driver.read = read_values;
    driver.write = write_values;
    driver.truncate = truncate_file;
    constexpr H5FD_mem_t map[] = H5FD_FLMAP_DICHOTOMY;
    std::copy(std::begin(map), std::end(map), driver.fl_map);
    const hid_t id = H5FDregister(&driver);
    hdf5::check(id < 0 ? -1 : 0, "H5FDregister");
    return id;
}

}  // namespace

void StructureMemory::use_for(hid_t access) {
    static const hid_t driver = register_driver();
    const Info info{this};
    SWITCHYARD_HDF5(H5Pset_driver(access, driver, &info));
}

void StructureMemory::clear() {
    pages_.clear();
    size_ = 0;
}

void StructureMemory::write(std::uint64_t at, const std::byte* from, std::size_t bytes) {
    size_ = std::max(size_, at + bytes);
    while (bytes > 0) {
        std::unique_ptr<Page>& page = pages_[at / page_bytes];
        if (!page) page = std::make_unique<Page>();
        const std::size_t first = at % page_bytes, count = std::min(bytes, page_bytes - first);
        std::memcpy(page->data() + first, from, count);
        at += count, from += count, bytes -= count;
    }
}

void StructureMemory::read(std::uint64_t at, std::byte* to, std::size_t bytes) const {
    while (bytes > 0) {
        const std::size_t first = at % page_bytes, count = std::min(bytes, page_bytes - first);
        const auto page = pages_.find(at / page_bytes);
        if (page == pages_.end())
            std::memset(to, 0, count);
        else
            std::memcpy(to, page->second->data() + first, count);
        at += count, to += count, bytes -= count;
    }
}

std::vector<ByteRange> StructureMemory::written(ByteRange range) const {
    std::vector<ByteRange> all;
    for (auto page = pages_.lower_bound(range.begin / page_bytes);
         page != pages_.end() && page->first * page_bytes < range.end; ++page) {
        const ByteRange bytes = common({page->first * page_bytes, (page->first + 1) * page_bytes}, range);
        if (bytes.size() == 0) continue;
        if (!all.empty() && all.back().end == bytes.begin)
            all.back().end = bytes.end;
        else
            all.push_back(bytes);
    }
    return all;
}

}  // namespace switchyard
