// checkpoint_logits CHECKPOINT IDS OUT: the logits (T, V) f64 of one sequence of token ids (text, T of them),
// for comparison with other programs. One rank, no token file.
#include <fstream>
#include <iterator>

#include "core/error.hpp"
#include "inference/inference_state.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/transfer.hpp"
#include "train/checkpoint_header.hpp"

using namespace switchyard;

namespace {

std::vector<double> logits_of(InferenceState& state, const std::vector<std::int32_t>& ids) {
    const std::vector<std::int32_t> ignored(ids.size(), -1), starts(ids.size(), 0);
    const MicroBatch& batch = state.model.batch();
    kernels::upload(ids.data(), batch.tokens);
    kernels::upload(ignored.data(), batch.targets);
    if (!batch.first_key.empty()) kernels::upload(starts.data(), batch.first_key);
    state.model.read();
    const std::int64_t padded = state.model.vocabulary().padded, vocab = state.model.vocabulary().size;
    Tensor row, wide;
    const Arena arena = allocate_scratch([&](Arena& a) {
        row = a.take(MemoryClass::workspace, state.context.dtype, {1, padded});
        wide = a.take(MemoryClass::workspace, DType::f64, {1, padded});
    });
    std::vector<double> all, one(static_cast<std::size_t>(padded));
    for (std::int64_t position = 0; position < static_cast<std::int64_t>(ids.size()); ++position) {
        state.model.next_token_logits(position, row);
        kernels::copy(row, wide);
        kernels::download(wide, one.data());
        all.insert(all.end(), one.begin(), one.begin() + vocab);
    }
    return all;
}

void run(const std::string& checkpoint, const std::string& ids_path, const std::string& out) {
    const Comm world = Comm::duplicate(MPI_COMM_WORLD);
    std::ifstream text(ids_path);
    const std::vector<std::int32_t> ids{std::istream_iterator<std::int32_t>(text), {}};
    const CheckpointHeader header = read_header(world, checkpoint);
    const std::string length = std::to_string(ids.size());
    Config config = stored_config(
        header, checkpoint,
        {"--parallel.tp=1", "--data.micro_batch=1", "--data.global_batch=1", "--data.seq_len=" + length});
    const Topology topology = Topology::create(world, 1);
    Traffic traffic;
    const auto model = allocate_inference(config, topology, traffic);
    model->state->load(CheckpointReader(world, checkpoint));
    const std::vector<double> logits = logits_of(*model->state, ids);
    std::ofstream(out, std::ios::binary)
        .write(reinterpret_cast<const char*>(logits.data()),
               static_cast<std::streamsize>(logits.size() * sizeof(double)));
}

}  // namespace

int main(int argc, char** argv) {
    MpiSession session(argc, argv);
    if (argc != 4) return 2;
    run(argv[1], argv[2], argv[3]);
    return 0;
}
