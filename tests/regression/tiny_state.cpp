// tiny_state TP FROM STEPS TO [--key=value...] [+ TP FROM STEPS TO ...]: tiny runs of tests, one after another, on
// the ranks that it is started on. Each loads the state FROM (-: step 0), makes STEPS steps, prints step, loss and
// gradient norm of each in full precision, and saves the state in TO (-: not at all); a line + follows each run but
// the last. For comparison of back ends, whose programs differ in nothing else.
#include <mpi.h>

#include <algorithm>
#include <cstdlib>

#include "core/error.hpp"
#include "core/output.hpp"
#include "io/checkpoint/state_io.hpp"
#include "support/tiny_run.hpp"

using namespace switchyard;

namespace {

void load(testing::TinyRun& run, const std::string& path) {
    const CheckpointReader reader(run.state().context.topology.world, path);
    StateIo io(reader);
    run.state().step = std::get<std::int64_t>(reader.attribute("/", "step"));
    run.state().visit(io);
}

void save(testing::TinyRun& run, const std::string& path) {
    CheckpointWriter writer(run.state().context.topology.world, path);
    StateIo io(writer);
    writer.attribute("/", "step", run.state().step);
    writer.attribute("/", "dtype", run.config().run.dtype);
    run.state().visit(io);
    writer.commit();
}

void run(const Comm& world, const std::vector<std::string>& words) {
    require(words.size() >= 4, "usage: tiny_state TP FROM STEPS TO [--key=value...] [+ ...]");
    std::vector<std::string> arguments{"--model.num_heads=4", "--model.num_kv_heads=4"};  // on every back end
    arguments.insert(arguments.end(), words.begin() + 4, words.end());
    arguments.push_back("--parallel.tp=" + words[0]);
    const Topology topology = Topology::create(world, std::atoi(words[0].c_str()));
    Config config = testing::tiny_config(arguments);
    config.data.micro_batch =
        testing::micro_batch_of_few_passes(config.data.global_batch, topology.dp_size());
    testing::TinyRun run(config, topology);
    if (words[1] != "-") load(run, words[1]);
    for (int i = 0; i < std::atoi(words[2].c_str()); ++i) {
        const StepResult result = run.step();
        if (world.rank() == 0)
            print_result("{} {:.17g} {:.17g}\n", run.state().step, result.loss, result.grad_norm);
    }
    if (words[3] != "-") save(run, words[3]);
}

void run_all(const std::vector<std::string>& words) {
    const Comm world = Comm::duplicate(MPI_COMM_WORLD);
    for (auto first = words.begin();; ) {
        const auto last = std::find(first, words.end(), "+");
        run(world, {first, last});
        if (last == words.end()) return;
        if (world.rank() == 0) print_result("+\n");
        first = last + 1;
    }
}

}  // namespace

int main(int argc, char** argv) {
    MPI_Init(&argc, &argv);
    int status = 0;
    try {
        run_all({argv + 1, argv + argc});
    } catch (const std::exception& error) {
        print_error("error: {}", error.what());
        status = 1;
    }
    if (status != 0) MPI_Abort(MPI_COMM_WORLD, status);
    MPI_Finalize();
    return 0;
}
