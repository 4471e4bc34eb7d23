// The passes of attention by cuDNN. Plans are made at the start of a run, for the one shape that it has; a
// batch is cut into equal parts, so that what cuDNN keeps of the scores stays within bounds however many
// sequences there are.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "core/calls.hpp"
#include "core/error.hpp"
#include "core/units.hpp"
#include "cuda/kernels/attention/cudnn/attention_graphs.hpp"
#include "cuda/kernels/attention/fused.hpp"
#include "cuda/runtime.hpp"

namespace switchyard::kernels::attention::fused {
namespace {

namespace cudnn = cuda::cudnn;

constexpr std::size_t wanted_scores_bytes = std::size_t{256} << 20,
                      most_workspace_bytes = std::size_t{1} << 30;
constexpr std::int64_t wanted_tokens = 16384;

std::size_t aligned(std::size_t bytes) {
    return (bytes + 255) / 256 * 256;
}

struct Passes {
    Extents at_once{};
    cudnn::Plan forward, backward;
    std::string problem;

    std::size_t delta_bytes() const {
        return aligned(static_cast<std::size_t>(at_once.b * at_once.h * at_once.t) * sizeof(float));
    }
    std::size_t workspace_bytes() const {
        return std::max(forward.workspace_bytes, backward.workspace_bytes);
    }
};

/// By the shape alone: the most sequences within bounds that divide the batch, at least one.
Extents part_of(Extents e) {
    const std::int64_t batch = e.b;
    for (; e.b > 1; --e.b)
        if (batch % e.b == 0 && scores_bytes(e) <= wanted_scores_bytes && e.b * e.t <= wanted_tokens) break;
    return e;
}

cudnnHandle_t handle() {
    static const cudnnHandle_t made = [] {
        const cudaStream_t stream = cuda::compute_stream();
        cudnnHandle_t created = nullptr;
        cudnn::check(cudnn::library().create(&created), "it is started");
        cudnn::check(cudnn::library().set_stream(created, stream), "it is given a stream");
        return created;
    }();
    return made;
}

Passes make_passes(const Extents& at_once) {
    Passes passes;
    passes.at_once = at_once;
    passes.problem = cudnn::problem_with_library();
    if (!passes.problem.empty()) return passes;
    try {
        handle();
        const cudnnBackendDescriptor_t device = cudnn::current_device(cuda::device_number());
        passes.forward = forward_graph(at_once).plan(device, most_workspace_bytes);
        passes.backward = backward_graph(at_once).plan(device, most_workspace_bytes);
    } catch (const cudnn::Refusal& refusal) {
        passes.problem = refusal.what();
    }
    return passes;
}

const Passes& passes_for(const Extents& e) {
    using Key = std::array<std::int64_t, 5>;
    static auto* const all = new std::map<Key, Passes>;
    const Extents at_once = part_of(e);
    const Key key{at_once.b, e.t, e.h, e.k, e.d};
    const auto found = all->find(key);
    return found != all->end() ? found->second : all->emplace(key, make_passes(at_once)).first->second;
}

/// One call of cuDNN: part `part` of the batch.
class Part {
  public:
    Part(const Passes& passes, Tensor scratch, std::int64_t part)
        : passes_(passes), scratch_(scratch), part_(part) {}

    void* of(Tensor x) const {
        return x.data<std::byte>() + x.bytes() / x.dim(0) * part_ * passes_.at_once.b;
    }
    void* delta() const { return scratch_.raw(); }
    void run(const cudnn::Plan& plan, std::vector<void*> addresses) {
        addresses.insert(addresses.end(), {&scale_, &lowest_, &one_});
        addresses.resize(plan.ids.size());  // the forward pass has no use for the last one
        count_call(Call::launch);
        try {
            cudnn::execute(handle(), plan, addresses, scratch_.data<std::byte>() + passes_.delta_bytes());
        } catch (const cudnn::Refusal& refusal) {
            fail(
                "cuDNN fails: {} (attention was not computed); resume from the last checkpoint with "
                "kernels.attention = own",
                refusal.what());
        }
    }

  private:
    const Passes& passes_;
    Tensor scratch_;
    std::int64_t part_;
    float scale_ = static_cast<float>(1 / std::sqrt(static_cast<double>(passes_.at_once.d)));
    float lowest_ = -std::numeric_limits<float>::infinity(), one_ = 1;
};

}  // namespace

std::string library_text() {
    if (!cudnn::problem_with_library().empty()) return "";
    const std::size_t version = cudnn::library().version();
    return fmt::format("cuDNN {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

std::string problem_with(const Extents& e) {
    return passes_for(e).problem;
}

std::int64_t sequences_at_once(const Extents& e) {
    return passes_for(e).at_once.b;
}

std::size_t scratch_bytes(const Extents& e) {
    const Passes& passes = passes_for(e);
    return passes.delta_bytes() + passes.workspace_bytes();
}

void forward(const Extents& e, Tensor q, Tensor k, Tensor v, Tensor o, Tensor lse, Tensor scratch) {
    const Passes& passes = passes_for(e);
    for (std::int64_t part = 0; part < e.b / passes.at_once.b; ++part) {
        Part p(passes, scratch, part);
        p.run(passes.forward, {p.of(q), p.of(k), p.of(v), p.of(o), p.of(lse)});
    }
}

void backward(const Extents& e, const AttentionBackward& x) {
    const Passes& passes = passes_for(e);
    for (std::int64_t part = 0; part < e.b / passes.at_once.b; ++part) {
        Part p(passes, x.scratch, part);
        p.run(passes.backward, {p.of(x.q), p.of(x.k), p.of(x.v), p.of(x.o), p.of(x.d_o), p.of(x.lse),
                                p.delta(), p.of(x.d_q), p.of(x.d_k), p.of(x.d_v)});
    }
}

}  // namespace switchyard::kernels::attention::fused
