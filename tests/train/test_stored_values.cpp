// A run goes on with the rates it began with, whatever a method would choose by now.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "io/checkpoint/checkpoint_file.hpp"
#include "io/run/run_directory.hpp"
#include "methods/registry.hpp"
#include "support/temporary_directory.hpp"
#include "train/resume_rules.hpp"

namespace switchyard {
namespace {

class StoredValues : public ::testing::Test {
  protected:
    std::string file(const std::string& name) const { return folder_.file(name); }
    std::string checkpoints() const { return RunDirectory::checkpoints_of(file("run")); }
    /// A checkpoint of step `step` whose configuration has these lines in [optim].
    void write(std::int64_t step, const std::string& lines) {
        std::filesystem::create_directories(checkpoints());
        CheckpointWriter writer(Comm(), checkpoint_path(checkpoints(), step));
        CheckpointHeader header;
        header.step = step;
        header.config = "[model]\nvocab_size = 300\n[optim]\n" + lines;
        header.dtype = "f32";
        write_header(writer, header, 0, Topology::imaginary(1, 1, 0));
        writer.commit();
    }
    Config kept(std::vector<std::string> arguments = {}) {
        arguments.push_back("--run.dir=" + file("run"));
        ParsedConfig given = parse_config("", "", arguments, method_options());
        keep_stored_values(Comm(), given);
        return given.config;
    }

  private:
    test::TemporaryDirectory folder_;
};

TEST_F(StoredValues, WhatIsNotGivenIsWhatTheNewestCheckpointHas) {
    EXPECT_EQ(kept().optim.lr, auto_value) << "no directory yet";
    write(10, "lr = 0.5\ndense_lr = 0.5\n");
    write(20, "lr = 0.25\ndense_lr = 0.125\n");
    EXPECT_EQ(kept().optim.lr, 0.25);
    EXPECT_EQ(kept().optim.dense_lr, 0.125);
    EXPECT_EQ(kept({"--optim.lr=0.75"}).optim.lr, 0.75);
    EXPECT_EQ(kept({"--optim.lr=0.75"}).optim.dense_lr, 0.125);
}

TEST_F(StoredValues, ZeroForTheDenseRateMeantTheOtherRate) {
    write(10, "lr = 0.5\ndense_lr = 0\n");
    EXPECT_EQ(kept().optim.dense_lr, 0.5);
    CheckpointHeader header = read_header(Comm(), checkpoint_path(checkpoints(), 10));
    EXPECT_EQ(header.layers, 0);
    header.layers = -1;  // the file has no weights that could be compared with the configuration
    EXPECT_EQ(stored_config(header, "x").optim.dense_lr, 0.5);
}

TEST_F(StoredValues, ADamagedFileIsPassedOver) {
    write(10, "lr = 0.5\ndense_lr = 0.25\n");
    std::ofstream(checkpoint_path(checkpoints(), 20)) << "cut off";
    EXPECT_EQ(kept().optim.lr, 0.5);
}

TEST_F(StoredValues, AFolderThatCannotBeListedIsLeftToTheRun) {
    std::filesystem::create_directories(file("run"));
    std::ofstream(checkpoints()) << "a file";
    EXPECT_EQ(kept().optim.lr, auto_value);
}

TEST_F(StoredValues, AnUnknownMethodIsLeftToTheRefusalToResume) {
    write(10, "lr = 0.5\n[method]\nname = unheard_of\n");
    EXPECT_EQ(kept().optim.lr, auto_value);
}

}  // namespace
}  // namespace switchyard
