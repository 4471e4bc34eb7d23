// The structure of a token file is read in a child process and sent as bytes to the parent and to other
// ranks.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/error.hpp"
#include "io/files/hdf5_objects.hpp"
#include "io/files/structure_reader.hpp"
#include "io/tokens/token_facts.hpp"
#include "io/tokens/token_format.hpp"

namespace switchyard {

using hdf5::Handle;
using namespace token_format;
using nlohmann::json;

namespace {

json json_of(const ValuePlace& place) {
    return {place.size, place.element_bytes, place.offset.has_value(), place.offset.value_or(0)};
}

ValuePlace place_from(const json& all) {
    ValuePlace place{all[0].get<std::uint64_t>(), all[1].get<std::uint64_t>(), {}};
    if (all[2].get<bool>()) place.offset = all[3].get<std::uint64_t>();
    return place;
}

/// In CBOR, whose texts may hold any bytes.
std::string to_bytes(const TokenFileFacts& facts) {
    const TokenFileInfo& info = facts.info;
    json sources = json::array(), places = json::array();
    for (const TokenSource& source : info.sources)
        sources.push_back({source.name, source.weight, source.documents});
    for (const TokenFileFacts::Part& part : facts.parts)
        places.insert(places.end(), {json_of(part.tokens), json_of(part.starts)});
    const json all{info.format_version,
                   info.vocab_size,
                   info.begin_token,
                   info.end_token,
                   info.fingerprint,
                   info.tokenizer_fingerprint,
                   static_cast<int>(info.tokenizer_kind),
                   info.tokenizer_model,
                   sources,
                   facts.file_bytes,
                   places};
    std::string bytes;
    json::to_cbor(all, bytes);
    return bytes;
}

/// Reads the whole index of a dataset's chunks, which must be as many as its values need.
void walk_chunks(hid_t file, const std::string& path) {
    constexpr std::uint64_t most_chunks = 5'000'000;  // an index of more takes too long to read
    const Handle dataset = hdf5::open_object(file, path);
    const Handle creation(H5Dget_create_plist(dataset), H5Pclose, "H5Dget_create_plist");
    hsize_t chunk = 0, stored = 0;
    if (H5Pget_layout(creation) != H5D_CHUNKED || H5Pget_chunk(creation, 1, &chunk) != 1 || chunk == 0)
        return;
    const std::uint64_t needed = (extent(dataset) + chunk - 1) / chunk;
    if (needed > most_chunks) return;
    const Handle space(H5Dget_space(dataset), H5Sclose, "H5Dget_space");
    SWITCHYARD_HDF5(H5Dget_num_chunks(dataset, space, &stored));
    require(stored == needed, "{} has {} chunks instead of {}", path, stored, needed);
}

std::string walked_facts(const std::string& path) {
    const TokenFileFacts facts = read_token_facts(path);
    const Handle file = hdf5::open_file(path);
    try {
        for (const TokenSplit split : {TokenSplit::training, TokenSplit::validation})
            for (const std::string& dataset : {tokens_path(split), starts_path(split)})
                walk_chunks(file, dataset);
    } catch (const UserError&) {  // whoever reads those values finds and reports it
    }
    return to_bytes(facts);
}

bool is_token_file_here(const std::string& path) {
    try {
        const Handle file = hdf5::open_file(path);
        return says_token_file(Handle(H5Gopen2(file, "/", H5P_DEFAULT), H5Gclose, "H5Gopen2"));
    } catch (const UserError&) {
        return false;
    }
}

/// Whether it is a token file: "yes" or "no". Reads all of the structure, because where HDF5 does not survive
/// that it must happen here, in a child process.
std::string token_structure(const std::string& path) {
    if (!is_token_file_here(path)) return "no";
    try {
        walked_facts(path);
    } catch (const UserError&) {  // whoever opens the file finds and reports it
    }
    return "yes";
}

const RegisterStructureReader registered_readers[]{{"tokens", token_structure},
                                                   {"token facts", walked_facts}};

}  // namespace

std::string examine_token_file(const std::string& path) {
    return read_structure("token facts", path, walked_facts);
}

TokenFileFacts token_facts_from_bytes(const std::string& bytes) {
    const json all = json::from_cbor(bytes);
    TokenFileFacts facts;
    TokenFileInfo& info = facts.info;
    info.format_version = all[0].get<std::int64_t>();
    info.vocab_size = all[1].get<std::int64_t>();
    info.begin_token = all[2].get<std::int32_t>();
    info.end_token = all[3].get<std::int32_t>();
    info.fingerprint = all[4].get<std::uint64_t>();
    info.tokenizer_fingerprint = all[5].get<std::uint64_t>();
    info.tokenizer_kind = static_cast<TokenizerKind>(all[6].get<int>());
    info.tokenizer_model = all[7].get<std::string>();
    for (const json& source : all[8])
        info.sources.push_back(
            {source[0].get<std::string>(), source[1].get<double>(), source[2].get<std::int64_t>()});
    facts.file_bytes = all[9].get<std::uint64_t>();
    for (std::size_t i = 0; i < facts.parts.size(); ++i)
        facts.parts[i] = {place_from(all[10][2 * i]), place_from(all[10][2 * i + 1])};
    facts.count();
    return facts;
}

bool is_token_file(const std::string& path) {
    std::error_code error;
    return std::filesystem::is_regular_file(path, error) &&
           read_structure("tokens", path, token_structure) == "yes";
}

}  // namespace switchyard
