// A group hands its tensors either to the shared products or to one linear after the other.
#include "model/linear_group.hpp"

#include "core/error.hpp"

namespace switchyard {

LinearGroup::LinearGroup(Split split, const Extent& in, std::initializer_list<Output> outputs)
    : split_(split) {
    linears_.reserve(outputs.size());
    for (const Output& output : outputs) linears_.emplace_back(output.name, split, output.extent, in);
}

void LinearGroup::allocate(const ModelContext& context, GroupAdapters adapters) {
    internal_check(adapters.of_linear.size() == linears_.size(), "{} adapters for {} linears",
                   adapters.of_linear.size(), linears_.size());
    for (std::size_t i = 0; i < linears_.size(); ++i)
        linears_[i].allocate(context, std::move(adapters.of_linear[i]));
    shared_ = std::move(adapters.shared);
}

void LinearGroup::set_recomputed() {
    for (Linear& linear : linears_) linear.set_recomputed();
}

void LinearGroup::forward(Tensor x, std::initializer_list<Tensor> y) const {
    if (shared_) {
        shared_->forward(linears_, x, {y.begin(), y.size()});
    } else {
        const Tensor* next = y.begin();
        for (const Linear& linear : linears_) linear.forward(x, *next++);
    }
    if (split_ == Split::column) output_complete(y);
}

void LinearGroup::output_complete(std::initializer_list<Tensor> y) const {
    const Tensor* next = y.begin();
    for (const Linear& linear : linears_) linear.output_complete(*next++);
}

void LinearGroup::backward(Tensor x, std::initializer_list<Tensor> d_y, Tensor d_x) {
    if (shared_) return shared_->backward(linears_, x, {d_y.begin(), d_y.size()}, d_x, Write::overwrite);
    const Tensor* next = d_y.begin();
    for (Linear& linear : linears_) {
        const Write write = next == d_y.begin() ? Write::overwrite : Write::accumulate;
        linear.backward(x, *next++, d_x, write);
    }
}

std::vector<Linear*> linears_of(const std::vector<LinearGroup*>& groups) {
    std::vector<Linear*> all;
    for (LinearGroup* group : groups)
        for (Linear& linear : group->linears()) all.push_back(&linear);
    return all;
}

}  // namespace switchyard
