// Several ranks or one, from the variables of launchers.
// BACK ENDS: cpu. The environment alone.
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "comm/launcher.hpp"

namespace switchyard {
namespace {

using Variables = std::map<std::string, const char*>;

Environment environment_of(const Variables& variables) {
    return [&](const char* name) {
        const auto found = variables.find(name);
        return found == variables.end() ? nullptr : found->second;
    };
}

bool several(const Variables& variables) {
    return started_as_one_of_several(environment_of(variables));
}

int ranks(const Variables& variables) {
    return ranks_of_mpirun(environment_of(variables));
}

TEST(Launcher, AProcessByItself) {
    EXPECT_FALSE(several({}));
    EXPECT_FALSE(several({{"SLURM_JOB_ID", "1"}, {"SLURM_NTASKS", "64"}})) << "in a batch script";
    EXPECT_FALSE(several({{"OMPI_COMM_WORLD_SIZE", "1"}}));
    EXPECT_FALSE(several({{"PMI_SIZE", "1"}, {"PMI_RANK", "0"}, {"PMI_FD", "5"}}));
    EXPECT_FALSE(several(
        {{"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "1"}, {"SLURM_NTASKS", "64"}, {"PMIX_RANK", "0"}}));
}

TEST(Launcher, OneOfSeveral) {
    EXPECT_TRUE(several({{"OMPI_COMM_WORLD_SIZE", "2"}}));
    EXPECT_TRUE(several({{"PMI_SIZE", "16"}, {"PMI_RANK", "3"}}));
    EXPECT_TRUE(several({{"MV2_COMM_WORLD_SIZE", "8"}}));
    EXPECT_TRUE(several({{"FLUX_JOB_SIZE", "8"}}));
    EXPECT_TRUE(several({{"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "4"}}));
    EXPECT_TRUE(several({{"SLURM_STEP_ID", "0"}, {"SLURM_NTASKS", "4"}}));
    EXPECT_TRUE(several({{"PMIX_RANK", "0"}})) << "of how many is not said";
}

TEST(Launcher, WhatMpirunSaysOfItsRanks) {
    EXPECT_EQ(ranks({}), 0);
    EXPECT_EQ(ranks({{"OMPI_COMM_WORLD_SIZE", "2"}}), 2);
    EXPECT_EQ(ranks({{"PMI_SIZE", "16"}, {"PMI_RANK", "3"}}), 16);
    EXPECT_EQ(ranks({{"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "4"}}), 0) << "srun is not asked";
}

TEST(Launcher, TheInnermostCounts) {
    EXPECT_FALSE(
        several({{"OMPI_COMM_WORLD_SIZE", "1"}, {"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "4"}}));
    EXPECT_TRUE(
        several({{"OMPI_COMM_WORLD_SIZE", "4"}, {"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "1"}}));
}

}  // namespace
}  // namespace switchyard
