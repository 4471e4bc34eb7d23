// A shadow's block is a Block with adapters of this file: they own no weight, and multiply by that of the
// model's linear.
#include "model/shadow.hpp"

#include "core/error.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/matmul.hpp"

namespace switchyard {
namespace {

class Follower : public Adapter {
  public:
    explicit Follower(const Linear& followed) : followed_(followed) {}

    void forward(const Linear&, Tensor x, Tensor y) override {
        kernels::matmul({.a = x, .b = followed_.weight(), .c = y, .op_b = kernels::Op::transpose});
    }
    void backward(const Linear&, Tensor, Tensor, Tensor, Write) override {
        internal_check(false, "backward() of a shadow");
    }
    void on_output(const Linear&, Tensor y) override { followed_.adapter()->on_shadow_output(followed_, y); }
    Cost cost(const Linear& linear) const override {
        return {.forward =
                    2 * static_cast<double>(linear.out().size) * static_cast<double>(linear.in().size)};
    }
    bool owns_weight() const override { return true; }
    std::vector<Parameter*> parameters() override { return {}; }

  private:
    const Linear& followed_;
};

}  // namespace

Shadow::Shadow(const ModelContext& context, const Vocab& vocab, std::vector<Block>& blocks,
               const Scratch& scratch)
    : model_vocab_(vocab),
      model_blocks_(blocks),
      scratch_(scratch),
      world_rank_(context.topology.world.rank()),
      dp_rank_(context.topology.dp_rank()),
      recompute_(context.config.model.recompute) {
    blocks_.reserve(blocks.size());
    const Parameter& embedding = vocab.embedding();
    embedding_.shard = embedding.shard;
    embedding_.role = embedding.role;
    embedding_.value = context.arena.take(MemoryClass::frozen, context.dtype, embedding.value.shape());
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        const std::vector<Linear*> followed = linears_of(blocks[i].groups());
        for (const Linear* linear : followed)
            internal_check(linear->frozen() && !linear->adapter()->merged(),
                           "a shadow of {}, which has no base", linear->name());
        Block& block = blocks_.emplace_back(context, static_cast<int>(i));
        block.allocate_norms(context, false);
        auto next = followed.begin();
        for (LinearGroup* group : block.groups())
            group->allocate(context, attach_each(*group, [&](Linear&) -> std::unique_ptr<Adapter> {
                                return std::make_unique<Follower>(**next++);
                            }));
    }
    const auto take_wide = [&] {
        return context.arena.take(MemoryClass::activations, context.dtype,
                                  {context.tokens(), context.config.model.hidden_size});
    };
    for (const Block& block : blocks_) {
        if (saved_.empty()) {
            saved_.push_back(block.allocate_saved(context, take_wide()));
            continue;
        }
        saved_.push_back(saved_.front());
        if (recompute_) saved_.back().x = take_wide();
    }
    y_ = take_wide();
}

void Shadow::take() {
    kernels::copy(model_vocab_.embedding().value, embedding_.value);
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
        const std::vector<Parameter*> from = model_blocks_[i].norms(), to = blocks_[i].norms();
        for (std::size_t k = 0; k < to.size(); ++k) kernels::copy(from[k]->value, to[k]->value);
    }
}

std::vector<Parameter*> Shadow::copies() {
    std::vector<Parameter*> all{&embedding_};
    for (Block& block : blocks_)
        for (Parameter* norm : block.norms()) all.push_back(norm);
    return all;
}

void Shadow::visit(StateIo& io, const std::string& folder) {
    for (const Parameter* copy : copies()) {
        Shard shard = copy->shard;
        shard.replica = copy->tp_gradient == TpGradient::own ? dp_rank_ : world_rank_;
        io.tensor(folder + shard.name, shard, copy->value);
    }
}

void Shadow::begin(Tensor tokens) {
    model_vocab_.embed(embedding_.value, tokens, saved_.front().x, scratch_.reduce).wait();
}

void Shadow::forward(int block) {
    const bool first = block == 0;
    blocks_[block].forward(first ? Tensor{} : saved_[block - 1].x_mid, first ? Tensor{} : y_, saved_[block],
                           scratch_, y_);
}

std::vector<Linear*> Shadow::linears() {
    std::vector<Linear*> all;
    for (Block& block : blocks_)
        for (Linear* linear : linears_of(block.groups())) all.push_back(linear);
    return all;
}

double Shadow::sums() const {
    const auto layers = static_cast<double>(blocks_.size());
    return 1 + 2 * layers + (recompute_ ? layers - 1 : 0);
}

}  // namespace switchyard
