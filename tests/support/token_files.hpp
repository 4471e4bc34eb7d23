// Text, token files and their contents for the tests of tokens and loaders.
#pragma once

#include <string>
#include <vector>

#include "core/rng.hpp"
#include "io/tokens/tokenize.hpp"
#include "support/temporary_directory.hpp"

namespace switchyard::test {

/// `num_documents` documents of some lines of made-up words, blank lines between them; a pure function of the
/// seed.
inline std::string sample_text(int num_documents, std::uint64_t seed) {
    static const char* const syllables[] = {"ka",  "lo", "mi", "ten", "sur", "ran",
                                            "vel", "do", "pi", "shu", "gar", "eth"};
    const std::uint64_t key = stream_key(seed, "sample text");
    std::uint64_t next = 0;
    const auto draw = [&](std::uint64_t bound) { return uniform_below(key, next++, bound); };
    std::string text;
    for (int d = 0; d < num_documents; ++d) {
        if (d > 0) text += "\n\n";
        const std::uint64_t num_lines = 1 + draw(4);
        for (std::uint64_t l = 0; l < num_lines; ++l) {
            if (l > 0) text += '\n';
            const std::uint64_t num_words = 3 + draw(9);
            for (std::uint64_t w = 0; w < num_words; ++w) {
                if (w > 0) text += ' ';
                for (std::uint64_t s = 1 + draw(3); s > 0; --s) text += syllables[draw(12)];
            }
            text += '.';
        }
    }
    return text + "\n";
}

inline TokenizeOptions quiet_options(const std::string& input, const std::string& output) {
    TokenizeOptions options;
    options.inputs = {input};
    options.output = output;
    options.vocab_size = 400;
    options.validation = 0.1;
    options.show_progress = false;
    options.overwrite = true;
    return options;
}

inline std::vector<std::int32_t> all_ids(const TokenFile& file, TokenSplit split) {
    const TokenFileInfo& info = file.info();
    std::vector<std::int32_t> ids(static_cast<std::size_t>(
        split == TokenSplit::training ? info.num_tokens : info.num_validation_tokens));
    file.read(split, 0, static_cast<std::int64_t>(ids.size()), ids.data());
    return ids;
}

/// Texts of the documents of a split, by decoding up to each end token.
inline std::vector<std::string> documents(const TokenFile& file, TokenSplit split) {
    const Tokenizer tokenizer(file.info().tokenizer_model);
    std::vector<std::string> texts;
    std::vector<std::int32_t> ids;
    for (const std::int32_t id : all_ids(file, split)) {
        if (id == file.info().end_token) {
            texts.push_back(tokenizer.decode(ids));
            ids.clear();
        } else {
            ids.push_back(id);
        }
    }
    return texts;
}

}  // namespace switchyard::test
