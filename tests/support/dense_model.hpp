// Loss and gradients of all weights of a model at given values, from the dense model on one process.
#pragma once

#include "support/hooked_method.hpp"
#include "support/layouts.hpp"
#include "support/tensors.hpp"
#include "support/tiny_run.hpp"

namespace switchyard::testing {

class DenseModel {
  public:
    explicit DenseModel(Config config) : run_(as_dense(std::move(config)), serial_) {
        HookedMethod::install(run_.state()).after_reduction = [&] {
            for (Parameter* p : run_.state().model.parameters())
                gradients_[p->shard.name] = valid(*p, p->gradient);
        };
    }
    std::vector<Parameter*> parameters() { return run_.state().model.parameters(); }
    void set(const std::string& name, const test::Values& values) {
        for (Parameter* p : parameters())
            if (p->shard.name == name) {
                test::HostTensor all = test::host_copy(p->value);
                auto next = values.begin();
                each(*p, all.shape(), [&](std::int64_t i) { all.set(i, *next++); });
                kernels::upload(all.bytes(), p->value);
            }
    }
    /// The gradients of the next step's batch. The caller's next set() overwrites the dense model's own
    /// update.
    const std::map<std::string, test::Values>& gradients() {
        run_.step();
        return gradients_;
    }

    /// The mean loss over the batch of step 0.
    double loss() {
        TrainState& s = run_.state();
        s.model.weights_changed();
        const BatchSource source = synthetic_tokens(run_.config());
        Batch batch;
        double sum = 0;
        for (std::int64_t i = 0; i < run_.config().data.global_batch; ++i) {
            source(i, 1, batch);
            kernels::upload(batch.tokens.data(), s.model.batch().tokens);
            kernels::upload(batch.targets.data(), s.model.batch().targets);
            s.model.evaluate();
            double one = 0;
            kernels::download(s.model.loss(), &one);
            sum += one;
        }
        return sum / static_cast<double>(run_.config().data.global_batch * run_.config().data.seq_len);
    }

  private:
    static Config as_dense(Config config) {
        config.method = {"full", {}};
        return config;
    }
    /// visit(i) for each valid element, in order.
    template <class Visit>
    static void each(const Parameter& p, const Shape& shape, const Visit& visit) {
        const std::int64_t width = p.shard.global.rank() == 2 ? shape[1] : 1;
        for (std::int64_t i = 0; i < p.shard.rows; ++i)
            for (std::int64_t j = 0; j < p.shard.cols; ++j) visit(i * width + j);
    }
    static test::Values valid(const Parameter& p, Tensor t) {
        const test::Values all = test::values_of(t);
        test::Values values;
        each(p, t.shape(), [&](std::int64_t i) { values.push_back(all[static_cast<std::size_t>(i)]); });
        return values;
    }

    Topology serial_ = serial();
    TinyRun run_;
    std::map<std::string, test::Values> gradients_;
};

}  // namespace switchyard::testing
