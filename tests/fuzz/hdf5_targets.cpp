// Mutants of checkpoints and token files, plain and with repaired checksums of metadata. Their structures are
// read in child processes, as the program does it; a mutant that verifies must hold what was written.
#include <filesystem>

#include "core/error.hpp"
#include "fuzz/hdf5_repair.hpp"
#include "fuzz/target_list.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/files/files.hpp"
#include "io/tokens/token_file.hpp"
#include "io/tokens/tokenize.hpp"

namespace switchyard::fuzz {
namespace {

/// A file with all that real ones have: groups with few and with many links, attributes and matrices.
std::string checkpoint() {
    static const std::string bytes = [] {
        const std::string path = folder() + "/original.h5";
        CheckpointWriter writer(Comm(), path);
        for (int i = 0; i < 12; ++i) writer.attribute("/", "key" + std::to_string(i), std::int64_t{i});
        writer.attribute("/", "config", std::string("[run]\nsteps = 20\n"));
        writer.attribute("/data", "next_sample", std::int64_t{240});
        std::vector<float> values{0.5f, -1.0f, 2.0f, 3.5f, -0.25f, 8.0f};
        for (int i = 0; i < 10; ++i) {
            const std::string name = "layer" + std::to_string(i);
            const Shard shard{name, {3, 2}, 0, 0, 3, 2, 0};
            writer.write("/model/" + name, shard, HostBlock{values.data(), DType::f32, {3, 2}});
        }
        writer.attribute("/model/layer3", "scale", 0.25);
        writer.commit();
        return read_file(path);
    }();
    return bytes;
}

void check_checkpoint(const std::string& bytes) {
    checkpoint();
    const std::string path = file_of("mutant.h5", bytes);
    if (!verify_file(path).empty()) return;
    const std::vector<Difference> differences = diff_files(folder() + "/original.h5", path, 0);
    expect(differences.empty(), differences.empty() ? "" : differences[0].path + ": " + differences[0].text);
}

void check_repaired_checkpoint(const std::string& bytes) {
    static const std::vector<SealedBlock> blocks = sealed_blocks(checkpoint());
    std::string repaired = bytes;
    repair_checksums(repaired, blocks);
    check_checkpoint(repaired);
}

std::vector<std::string> checkpoint_seeds() {
    return {checkpoint()};
}

std::string token_file() {
    static const std::string bytes = [] {
        TokenizeOptions options;
        std::string text;
        for (int i = 0; i < 300; ++i)
            text += "word" + std::to_string(i % 37) + " of line " + std::to_string(i) + "\n\n";
        options.inputs = {file_of("words.txt", text)};
        options.output = folder() + "/tokens.h5";
        options.vocab_size = 290;
        options.show_progress = false;
        tokenize(options);
        return read_file(options.output);
    }();
    return bytes;
}

std::vector<std::int32_t> ids_of(const std::string& path) {
    const TokenFile file(path);
    std::vector<std::int32_t> ids(static_cast<std::size_t>(file.info().num_tokens));
    file.read(TokenSplit::training, 0, file.info().num_tokens, ids.data());
    return ids;
}

void check_token_file(const std::string& bytes) {
    token_file();
    static const std::vector<std::int32_t> ids = ids_of(folder() + "/tokens.h5");
    const std::string path = file_of("mutant.h5", bytes);
    if (!is_token_file(path) || !verify_token_file(path).empty()) return;
    expect(ids_of(path) == ids, "other tokens verify");
}

void check_repaired_token_file(const std::string& bytes) {
    static const std::vector<SealedBlock> blocks = sealed_blocks(token_file());
    std::string repaired = bytes;
    repair_checksums(repaired, blocks);
    check_token_file(repaired);
}

std::vector<std::string> token_file_seeds() {
    return {token_file()};
}

}  // namespace

std::vector<Target> hdf5_targets() {
    const std::vector<std::string> words{"OHDR", "OCHK", "FRHP", "BTHD", "EAHD", "SNOD", "TREE", "HEAP"};
    return {{"checkpoint", check_checkpoint, checkpoint_seeds, words, 150},
            {"checkpoint_repaired", check_repaired_checkpoint, checkpoint_seeds, words, 150},
            {"token_file", check_token_file, token_file_seeds, words, 150},
            {"token_file_repaired", check_repaired_token_file, token_file_seeds, words, 150}};
}

}  // namespace switchyard::fuzz
