// Loss and gradients of all weights of a model at given values, from the dense model on one process.
#pragma once

#include "support/hooked_method.hpp"
#include "support/layouts.hpp"
#include "support/tensors.hpp"
#include "support/tiny_run.hpp"
#include "support/upload_batch.hpp"

namespace switchyard::testing {

/// The mean loss of a run on one process over the batch of a step, at the weights as they are.
inline double batch_loss(TinyRun& run, std::int64_t step) {
    Transformer& model = run.state().model;
    const std::int64_t count = run.config().data.global_batch, some = run.config().data.micro_batch;
    double sum = 0;
    for (std::int64_t i = 0; i < count; i += some) {
        upload_batch(run.config(), model, step * count + i);
        model.evaluate();
        double one = 0;
        kernels::download(model.loss(), &one);
        sum += one;
    }
    return sum / static_cast<double>(count * run.config().data.seq_len);
}

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

    /// The mean loss over the batch of a step.
    double loss(std::int64_t step = 0) {
        run_.state().model.weights_changed();
        return batch_loss(run_, step);
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
