// SentencePiece models such as other programs train.
#pragma once

#include <gtest/gtest.h>
#include <sentencepiece_trainer.h>

#include <string>
#include <unordered_map>
#include <vector>

namespace switchyard::test {

inline std::string sentencepiece_model(const std::vector<std::string>& lines,
                                       std::unordered_map<std::string, std::string> options) {
    class Iterator : public sentencepiece::SentenceIterator {
      public:
        explicit Iterator(const std::vector<std::string>& lines) : lines_(lines) {}
        bool done() const override { return position_ == lines_.size(); }
        void Next() override { ++position_; }
        const std::string& value() const override { return lines_[position_]; }
        sentencepiece::util::Status status() const override { return {}; }

      private:
        const std::vector<std::string>& lines_;
        std::size_t position_ = 0;
    } iterator(lines);
    std::string model;
    options.emplace("minloglevel", "2");
    const auto status = sentencepiece::SentencePieceTrainer::Train(options, &iterator, &model);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return model;
}

/// A model like T5's: unigram, compatibility characters replaced, runs of spaces and line ends folded into
/// one space.
inline std::string folding_model() {
    std::vector<std::string> lines;
    for (int i = 0; i < 40; ++i) lines.push_back("ka lo mi ten sur fi ran vel do");
    return sentencepiece_model(
        lines, {{"model_type", "unigram"}, {"vocab_size", "24"}, {"hard_vocab_limit", "false"}});
}

}  // namespace switchyard::test
