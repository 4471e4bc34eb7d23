// Trains a SentencePiece model on an evenly spread sample of the inputs. Private to io/.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/tokens/text_input.hpp"

namespace switchyard {

/// Lines of about `max_bytes` of text, from blocks spread evenly over all inputs; everything if it is not
/// more. All inputs must be seekable and of a decided format. Throws UserError for a bad line
/// unless the rule leaves such lines out; tokenizing counts them.
std::vector<std::string> sample_lines(const std::vector<TextInput>& inputs, const TextRule&,
                                      std::uint64_t max_bytes);

/// Returns a serialized byte-pair model with exactly `vocab_size` pieces: <unk> 0, <s> 1, </s> 2, the 256
/// bytes, then text. As in LLaMA's own model, text is taken unchanged (identity normalization, spaces and
/// line ends kept, digits separate, unknown characters as bytes), so that decoding gives the text back.
/// Throws UserError if the text does not fit the size.
std::string train_tokenizer(std::vector<std::string> lines, std::int64_t vocab_size);

}  // namespace switchyard
